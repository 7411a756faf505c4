package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/drydock-vm/drydock/disk"
)

// Export is a disk under a name.
type Export struct {
	// Name is what clients ask for: UTF-8, at most 4096 bytes. The first
	// export of a server is also found under the empty name.
	Name string
	// Description is shown to people who list the exports; it may be empty.
	Description string
	// Disk is what is read. Its size must not change.
	Disk disk.Sparse
}

// Options say what a server does.
type Options struct {
	// Exports are the disks, at least one.
	Exports []Export
	// MaxConnections is how many clients may be connected at the same time;
	// by default 32. Further ones are cut off at once. Each may need 40 MiB.
	MaxConnections int
	// Report is told, from any goroutine, why a connection ended that the
	// client did not end itself, and of the first error of the disk on each
	// connection. It may be nil.
	Report func(error)
}

// Serve answers the clients that connect to l until ctx is done, and then
// returns nil: l and all connections are closed, and no read of a disk is in
// progress. Any other end is an error. It closes l in any case.
func Serve(ctx context.Context, l net.Listener, opts Options) error {
	if err := opts.check(); err != nil {
		l.Close()
		return err
	}
	s := &server{Options: opts, conns: make(map[net.Conn]struct{})}
	stop := context.AfterFunc(ctx, func() { s.close(l) })
	defer stop()
	err := s.accept(ctx, l)
	s.close(l)
	s.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve NBD: %w", err)
}

// Server is a [Serve] in the background.
type Server struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Serve, when done is closed
}

// Start has [Serve] answer the clients that connect to l until Close, whatever becomes
// of the context of who starts it. ended is told if the server ends by itself.
func Start(l net.Listener, opts Options, ended func(error)) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if s.err = Serve(ctx, l, opts); s.err != nil {
			ended(s.err)
		}
	}()
	return s
}

// Close ends the server and all connections. The error is that of a server that ended
// by itself.
func (s *Server) Close() error {
	s.cancel()
	<-s.done
	return s.err
}

// check fills in defaults and refuses what cannot be served.
func (o *Options) check() error {
	if len(o.Exports) == 0 {
		return errors.New("serve NBD: there is no export")
	}
	names := make(map[string]bool)
	for _, e := range o.Exports {
		for _, s := range []string{e.Name, e.Description} {
			if len(s) > maxName || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				return fmt.Errorf("serve NBD: export %.40q: names and descriptions are UTF-8 of at most %d bytes", e.Name, maxName)
			}
		}
		if e.Disk == nil || names[e.Name] {
			return fmt.Errorf("serve NBD: export %q: it has no disk, or its name is there twice", e.Name)
		}
		names[e.Name] = true
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = defaultConnections
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	return nil
}

type server struct {
	Options
	wg sync.WaitGroup // of connections

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]struct{}
	closed bool
}

// accept accepts connections until l is closed.
func (s *server) accept(ctx context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM),
			errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		default:
			return err
		}
		if err := s.add(conn); err != nil {
			conn.Close()
			s.Report(err)
			continue
		}
		go func() {
			defer s.remove(conn)
			if err := serveConn(conn, s.Exports, s.Report); err != nil && !s.closing() {
				s.Report(fmt.Errorf("NBD client: %w", err))
			}
		}()
	}
}

// add takes a connection in, if there is room.
func (s *server) add(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if len(s.conns) >= s.MaxConnections {
		return fmt.Errorf("NBD client refused: %d are connected", len(s.conns))
	}
	s.conns[conn] = struct{}{}
	s.wg.Add(1)
	return nil
}

func (s *server) remove(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	s.wg.Done()
}

func (s *server) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// close ends the listener and all connections. Those who use them notice.
func (s *server) close(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	l.Close()
	for conn := range s.conns {
		conn.Close()
	}
}
