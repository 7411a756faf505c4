package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// staleTimeout is how long to wait for a connection that tells whether a socket
// is in use. A server that is too busy to accept one is in use.
const staleTimeout = time.Second

// Listen makes a Unix socket at path that only this user can connect to.
// Closing the listener removes it.
//
// What a server that is gone has left at path is replaced. Anything else there,
// and a socket on which somebody listens, is refused with [fs.ErrExist].
func Listen(path string) (net.Listener, error) {
	path, err := filepath.Abs(path) // "@name" would be no file
	if err != nil {
		return nil, err
	}
	l, err := bind(path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err = removeStale(path); err == nil {
			l, err = bind(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &listener{UnixListener: l, path: path, made: made}, nil
}

func bind(path string) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// The mode that a socket has before it is bound is that of its name
		// (unix_bind of Linux), so it is never open to others.
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // see listener.Close
	return u, nil
}

// removeStale removes a socket on which nobody listens. Two servers that start
// at the same moment at the place of a stale one may both find it stale; the
// later one then has the path.
func removeStale(path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if before.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("what is there is no socket: %w", fs.ErrExist)
	}
	conn, err := net.DialTimeout("unix", path, staleTimeout)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("another server listens there: %w", fs.ErrExist)
	}
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(before, now) {
		return fmt.Errorf("another server has just started there: %w", fs.ErrExist)
	}
	return os.Remove(path)
}

// listener removes its socket when it is closed, unless something else lies at
// the path by then.
type listener struct {
	*net.UnixListener
	path   string
	made   fs.FileInfo
	remove sync.Once
}

func (l *listener) Close() error {
	var err error
	l.remove.Do(func() { err = l.removeSocket() })
	return errors.Join(err, l.UnixListener.Close())
}

func (l *listener) removeSocket() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.made, now) {
		return os.Remove(l.path)
	}
	return nil
}
