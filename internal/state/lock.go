package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another run of drydock is at work on this host.
var ErrLocked = errors.New("another drydock is at work")

// Lock is the one lock of a host: held, it keeps other rounds, recoveries and
// image changes out. It is a flock, so the kernel drops it when the process
// ends in whatever way; nobody ever has to remove anything.
type Lock struct{ f *os.File }

// AcquireLock takes the lock in dir without waiting. The error wraps
// [ErrLocked] and says who holds it.
func AcquireLock(dir, purpose string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		held, _ := io.ReadAll(io.LimitReader(f, 200))
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, strings.TrimSpace(string(held)))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// What is written here is for people only; the lock is the flock.
	text := fmt.Sprintf("drydock %s, process %d, since %s\n", purpose, os.Getpid(), time.Now().Format(time.DateTime))
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	return &Lock{f: f}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.f.Close() }
