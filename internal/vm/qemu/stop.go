//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

const (
	// quitPause is how long QEMU may take to end by itself, which leaves the
	// metadata of its images in order.
	quitPause = 10 * time.Second
	// diePause is how long a process may take to end after SIGKILL: until its
	// disk requests that are under way have ended.
	diePause = time.Minute
)

// Shutdown presses the guest's power button, again and again, and waits until
// QEMU has ended.
func (m *Machine) Shutdown(ctx context.Context, timeout time.Duration) error {
	p, err := m.settledWithin(ctx, timeout)
	if err != nil {
		return m.fail("shut down", err, "")
	}
	if p == nil {
		return nil
	}
	defer p.close()
	err = qmp.ShutDown(ctx, m.path(qmpSocket), timeout, p.wait)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vm.ErrPaused):
		return m.fail("shut down", err, "resume it, or power it off")
	case errors.Is(err, vm.ErrShutdownTimeout):
		return m.fail("shut down", err, "does the guest react to its power button? See "+m.lastWords())
	}
	return m.fail("shut down", err, "")
}

// settledWithin is settled, for a part of the time that a shutdown may take.
func (m *Machine) settledWithin(ctx context.Context, timeout time.Duration) (*process, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, timeout, vm.ErrShutdownTimeout)
	defer cancel()
	return m.settled(waiting)
}

// lastWords names the file that tells most about the guest.
func (m *Machine) lastWords() string {
	if m.o.Console != "" {
		return m.o.Console
	}
	return m.logPath()
}

// Kill has QEMU quit at once, which at least leaves its images in order, and
// kills it if it does not.
func (m *Machine) Kill(ctx context.Context) error {
	p, err := m.settled(ctx)
	if err != nil {
		return m.fail("kill", err, "")
	}
	if p == nil {
		return nil
	}
	defer p.close()
	if qmp.Quit(ctx, m.path(qmpSocket)) == nil {
		waiting, cancel := context.WithTimeout(ctx, quitPause)
		defer cancel()
		if gone, err := p.wait(waiting); gone && err == nil {
			return nil
		}
	}
	err = ctx.Err()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return m.fail("kill", err, "")
	}
	return nil
}

// end kills a process and waits until it is gone. It cannot be called off: what
// has been killed must be seen to its end.
func (p *process) end() error {
	if err := p.kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), diePause)
	defer cancel()
	gone, err := p.wait(ctx)
	if err == nil && !gone {
		err = fmt.Errorf("process %d does not end after SIGKILL: it waits for its storage", p.pid)
	}
	return err
}
