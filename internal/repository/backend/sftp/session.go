package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/transport"
)

// maxAnswer bounds what one operation may answer beside the content of a file, in
// bytes. An entry of a listing has about 250: a folder of 250,000 files is listed,
// and packs lie in 256 folders.
const maxAnswer = 64 << 20

// Options say where the server is, and how to log in.
type Options struct {
	Place string // what errors call it
	Host  string
	Port  uint16 // 0 means 22
	User  string
	Path  string // the folder; without a slash in front it starts at the login folder
	Keys  Keys
	// Stall is the time after which a silent connection fails.
	Stall time.Duration
}

func (o Options) address() string {
	port := 22
	if o.Port != 0 {
		port = int(o.Port)
	}
	return net.JoinHostPort(o.Host, strconv.Itoa(port))
}

// session is one connection, used by one operation at a time.
type session struct {
	*sftp.Client
	conn    net.Conn
	answers *transport.Budget
	canSync bool
	dead    chan struct{} // closed when the connection has ended
}

// close ends the connection at once; whoever waits on it gets an error.
func (s *session) close() { _ = s.conn.Close() }

// pool keeps the sessions that nobody uses.
type pool struct {
	opts Options
	mu   sync.Mutex // guards idle
	idle []*session
}

// take returns an idle session that lives, or nil.
func (p *pool) take() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		s := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		select {
		case <-s.dead:
		default:
			return s
		}
	}
	return nil
}

func (p *pool) give(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, s)
}

// do runs an operation on a session of its own, which ctx ends. Size is that of the
// content that it may answer with.
func (p *pool) do(ctx context.Context, op string, size int64, run func(*session) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := p.take()
	if s == nil {
		var err error
		if s, err = p.dial(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", ctx.Err(), p.fail(err, ""))
			}
			return err
		}
	}
	s.answers.Allow(maxAnswer + 2*size)
	stop := context.AfterFunc(ctx, s.close)
	err := run(s)
	whole := stop()
	if whole && (err == nil || isStatus(err)) {
		p.give(s)
	} else {
		s.close()
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), p.translate(op, err))
	}
	return p.translate(op, err)
}

// translate makes an error of an operation one of the backend.
func (p *pool) translate(op string, err error) error {
	var status *sftp.StatusError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, backend.ErrRefused):
		return p.fail(fmt.Errorf("%s: %w", op, err), "free some of it there")
	case errors.Is(err, fs.ErrNotExist):
		return p.fail(fmt.Errorf("%s: %w", op, backend.ErrNotExist), "")
	case errors.Is(err, fs.ErrExist):
		return p.fail(fmt.Errorf("%s: %w", op, backend.ErrExist), "")
	case errors.Is(err, fs.ErrPermission):
		return p.fail(fmt.Errorf("%s: %w: %w", op, backend.ErrRefused, err), fmt.Sprintf("may %s write to %s there?", p.opts.User, p.opts.Path))
	case errors.As(err, &status):
		return p.fail(fmt.Errorf("%s: the server says %s", op, backend.Words(status.Error())), "")
	}
	return p.fail(fmt.Errorf("%s: %w", op, err), "")
}

func (p *pool) fail(err error, hint string) error {
	return &backend.Error{Place: p.opts.Place, Err: err, Hint: hint}
}

// dial connects and logs in.
func (p *pool) dial(ctx context.Context) (*session, error) {
	login, err := p.opts.Keys.login(p.opts)
	if err != nil {
		return nil, p.fail(err, "")
	}
	defer login.close()
	conn, err := transport.Dial(ctx, p.opts.address(), p.opts.Stall)
	if err != nil {
		return nil, p.fail(err, transport.Hint(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, p.opts.address(), login.config())
	if err != nil {
		_ = conn.Close() // nothing was sent that could be lost
		return nil, p.loginError(login, err)
	}
	s, err := p.open(ssh.NewClient(c, channels, requests), conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// open starts the subsystem on a new connection.
func (p *pool) open(client *ssh.Client, conn net.Conn) (*session, error) {
	channel, err := client.NewSession()
	if err != nil {
		return nil, p.fail(fmt.Errorf("open a session: %w", err), "")
	}
	in, err := channel.StdinPipe()
	if err != nil {
		return nil, p.fail(err, "")
	}
	out, err := channel.StdoutPipe()
	if err != nil {
		return nil, p.fail(err, "")
	}
	if err := channel.RequestSubsystem("sftp"); err != nil {
		return nil, p.fail(fmt.Errorf("start sftp: %w", err), "sshd_config on the server needs the line: Subsystem sftp internal-sftp")
	}
	s := &session{conn: conn, answers: transport.Limited(out, maxAnswer), dead: make(chan struct{})}
	s.Client, err = sftp.NewClientPipe(s.answers, in, sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, p.fail(fmt.Errorf("start sftp: %w", err), "does the login's shell print something? it must not")
	}
	_, s.canSync = s.HasExtension("fsync@openssh.com")
	go func() {
		defer close(s.dead)
		_ = s.Wait() // it ends with the connection, for whatever reason
		s.close()
	}()
	return s, nil
}
