// Package flock keeps processes of drydock out of each other's way. A lock lies on a file
// or a folder; the kernel takes it from a process that ends, in whatever way, so nobody
// ever has to remove one.
//
// A lock belongs to whoever took it, not to its process: of two goroutines that want one,
// too, only one gets it. Nobody but drydock respects these locks. Those of images, which
// QEMU respects, are in package imagelock, and those of repositories in package repository.
package flock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long Wait waits before it tries again.
const pause = 10 * time.Millisecond

// maxHolder is how many bytes of a file may say who holds it.
const maxHolder = 200

// Lock is a lock that is held.
type Lock struct{ f *os.File }

// HeldError says that somebody else holds a lock.
type HeldError struct {
	Path   string
	Holder string // what the holder said of itself, or "another process"
}

func (e *HeldError) Error() string { return e.Path + " is locked by " + e.Holder }

// Take takes the lock on the file of that path, which it makes if there is none, without
// waiting: somebody else's is a [HeldError]. The file says for what, and which process,
// for people to read.
func Take(path, purpose string) (*Lock, error) {
	for {
		f, err := open(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, err
		}
		// Whoever had the lock may have removed its file.
		held, err := f.Stat()
		if err == nil && !held.Mode().IsRegular() {
			err = fmt.Errorf("%s is no file, and cannot be a lock", path)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(held, there) {
			l := &Lock{f}
			l.sign(purpose)
			return l, nil
		}
		f.Close()
	}
}

// Wait is Take, but waits until whoever has the lock releases it, or ctx ends.
func Wait(ctx context.Context, path, purpose string) (*Lock, error) {
	for {
		l, err := Take(path, purpose)
		var held *HeldError
		if !errors.As(err, &held) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// TakeFolder takes the lock on a folder, not on what a link leads to, without waiting.
// There is no place in it for a purpose.
func TakeFolder(path string) (*Lock, error) {
	f, err := open(path, os.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Lock{f}, nil
}

// Held reports whether somebody holds the lock on a file. Looking is in the way of a Take at
// the same time, so it is for locks that everybody waits for.
func Held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(lock(f, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Path is where the lock was taken.
func (l *Lock) Path() string { return l.f.Name() }

// Release gives the lock back. Its file stays.
func (l *Lock) Release() error {
	// A child process that is being made has the descriptor until it executes its program:
	// closing it here alone would leave the lock for that long.
	err := lock(l.f, unix.LOCK_UN)
	return errors.Join(err, l.f.Close())
}

// Remove gives the lock back and leaves no file.
func (l *Lock) Remove() error {
	err := os.Remove(l.f.Name()) // in this order: it may be somebody else's afterwards
	return errors.Join(err, l.Release())
}

// open opens a file or a folder, and locks it.
func open(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = lock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &HeldError{path, holder(f)}
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sign writes who holds the lock. A full disk keeps nobody from taking it.
func (l *Lock) sign(purpose string) {
	text := fmt.Sprintf("drydock %s, process %d, since %s\n", purpose, os.Getpid(), time.Now().Format(time.DateTime))
	if l.f.Truncate(0) == nil {
		_, _ = l.f.WriteAt([]byte(text), 0)
	}
}

func holder(f *os.File) string {
	text, _ := io.ReadAll(io.LimitReader(f, maxHolder)) // a folder cannot be read
	if who := strings.TrimSpace(string(text)); who != "" {
		return who
	}
	return "another process"
}
