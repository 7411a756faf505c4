//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
)

// process is a QEMU that lives, or has lived a moment ago. It is held by a
// pidfd, which never comes to mean another process.
type process struct {
	pid int
	fd  int
}

// findTries is how often [Machine.find] looks again when the process that it
// found ended meanwhile.
const findTries = 10

// find returns the QEMU of this machine, or nil if there is none.
func (m *Machine) find() (*process, error) {
	f, err := os.Open(m.path(pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for range findTries {
		pid, err := lockHolder(f)
		if pid == 0 || err != nil {
			return nil, err
		}
		p, err := openProcess(pid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Who holds the lock now has held it all the time, so the pidfd is of
		// QEMU and not of a later process of the same number.
		if again, err := lockHolder(f); err == nil && again == pid {
			return p, nil
		}
		p.close()
	}
	return nil, fmt.Errorf("the process that holds %s changes all the time", m.path(pidFile))
}

// settled returns the QEMU of this machine, or nil if there is none. While some
// process starts one that cannot be found yet, it waits for that.
func (m *Machine) settled(ctx context.Context) (*process, error) {
	for {
		// In this order: a start may end between the two.
		starting := flock.Held(m.path(startLock))
		p, err := m.find()
		if p != nil || err != nil || !starting {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process is starting it: %w", context.Cause(ctx))
		case <-time.After(retryPause):
		}
	}
}

// lockHolder returns the process that holds a POSIX lock on f, 0 if none does.
func lockHolder(f *os.File) (int, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	// F_OFD_GETLK asks for an open file and not for this process, so it also
	// sees a lock that this process might hold.
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("ask for the lock on %s: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	if lock.Pid <= 0 {
		return 0, fmt.Errorf("%s is locked by a process that cannot be seen from here (is drydock in a container of its own?)", f.Name())
	}
	return int(lock.Pid), nil
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid: pid, fd: fd}, nil
}

func (p *process) close() { unix.Close(p.fd) }

func (p *process) kill() error {
	err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// gone reports whether the process has ended, and with it all use of its files.
func (p *process) gone() bool {
	gone, _ := p.poll(0)
	return gone
}

// pollSlice is how often a wait looks whether its context has ended. The end of
// the process is noticed at once.
const pollSlice = 50 * time.Millisecond

// wait waits for the end of the process, until ctx ends, and reports whether it
// came.
func (p *process) wait(ctx context.Context) (bool, error) {
	for {
		gone, err := p.poll(pollSlice)
		if gone || err != nil {
			return gone, err
		}
		if ctx.Err() != nil {
			return false, nil
		}
	}
}

func (p *process) poll(d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	return n > 0, nil
}
