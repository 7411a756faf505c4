//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// Shutdown brings the machine down as the package's documentation says. A unit
// that is stopped through systemd, and not through its QMP socket, is off when
// Shutdown returns, unless ctx ends before.
func (m *Machine) Shutdown(ctx context.Context, timeout time.Duration) error {
	return m.with(ctx, "shut down", func(c *connection) error {
		u, err := c.unit(ctx)
		if err != nil || u.off() {
			return err
		}
		if u.sub == "auto-restart" { // nothing runs, but soon would
			return c.stop(ctx)
		}
		if m.o.QMPSocket != "" && !u.comesBack() {
			return m.pressButton(ctx, c, u, timeout)
		}
		if err := m.stoppable(u, timeout); err != nil {
			return err
		}
		switch state, err := m.state(ctx, u); {
		case err != nil:
			return err
		case state == vm.Paused:
			return paused
		}
		return m.stopInOrder(ctx, c)
	})
}

var paused = vm.WithHint(vm.ErrPaused, "resume it, or power it off")

func (m *Machine) pressButton(ctx context.Context, c *connection, u unit, timeout time.Duration) error {
	err := qmp.ShutDown(ctx, m.o.QMPSocket, timeout, func(ctx context.Context) (bool, error) {
		return c.awaitOff(ctx, u)
	})
	switch {
	case errors.Is(err, vm.ErrPaused):
		return paused
	case errors.Is(err, vm.ErrShutdownTimeout):
		return vm.WithHint(err, "does the guest react to its power button?")
	}
	return err
}

// stoppable says why stopping the unit would not shut its guest down in order.
func (m *Machine) stoppable(u unit, timeout time.Duration) error {
	if !u.execStop {
		if m.o.QMPSocket != "" {
			return vm.WithHint(
				fmt.Errorf("the unit has Restart=%s, so the machine would come back when its guest powers off", u.restart),
				"set Restart=on-failure in the unit, and systemctl daemon-reload",
			)
		}
		return vm.WithHint(
			errors.New("the unit has no ExecStop=, so stopping it would take the guest's power away"),
			"tell drydock the machine's QMP socket (qmp:), or give the unit an ExecStop= that shuts the guest down and waits until it is off",
		)
	}
	if u.timeoutStop < timeout {
		return vm.WithHint(
			fmt.Errorf("the unit has TimeoutStopSec=%s, so systemd would kill the guest before its shutdown timeout of %s is over", u.timeoutStop, timeout),
			fmt.Sprintf("set TimeoutStopSec=%d in the unit and systemctl daemon-reload, or lower shutdown_timeout", int64((timeout+time.Second-1)/time.Second)),
		)
	}
	return nil
}

// stopInOrder stops the unit, whose ExecStop= shuts the guest down.
func (m *Machine) stopInOrder(ctx context.Context, c *connection) error {
	if err := c.stop(ctx); err != nil {
		return err
	}
	u, err := c.unit(ctx)
	if err != nil {
		return err
	}
	if u.result != "success" {
		return vm.WithHint(
			fmt.Errorf("%w: systemd stopped the unit with result %s", vm.ErrHardStop, u.outcome()),
			"journalctl -u "+m.o.Unit+" says why",
		)
	}
	return nil
}

// stop stops the unit and waits until it is off. Once begun it cannot be called
// off: when ctx ends, systemd goes on.
func (c *connection) stop(ctx context.Context) error {
	job := make(chan string, 1)
	if _, err := c.conn.StopUnitContext(ctx, c.name, "replace", job); err != nil {
		return fmt.Errorf("stop the unit: %w", err)
	}
	select {
	case result := <-job:
		u, err := c.unit(ctx)
		if err == nil && !u.off() {
			err = fmt.Errorf("the stop job ended as %q, and the unit is %s", result, u.active)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the unit to stop: %w", ctx.Err())
	}
}

// killTimeout is how long a unit may take to end once its processes are killed:
// until their disk requests that are under way have ended.
const killTimeout = 2 * time.Minute

// killPause is after which time what is there then is killed too: an ExecStop=
// that was not there before.
const killPause = 500 * time.Millisecond

// Kill kills all processes of the unit, which is then off and not failed. Its
// ExecStopPost= may clean up.
func (m *Machine) Kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return m.with(ctx, "kill", func(c *connection) error {
		u, err := c.unit(ctx)
		if err != nil || u.off() {
			return err
		}
		// It is to be stopped as well, so that Restart= does not start it.
		stopped := make(chan error, 1)
		go func() { stopped <- c.stop(ctx) }()
		for {
			if !cleaningUp[u.sub] {
				// It fails when there is no process any more.
				_ = c.conn.KillUnitWithTarget(ctx, c.name, systemd.All, int32(unix.SIGKILL))
			}
			select {
			case err := <-stopped:
				if err == nil {
					// It was meant to end so, and has not failed. Where systemd
					// has forgotten the unit by now there is nothing to reset.
					_ = c.conn.ResetFailedUnitContext(ctx, c.name)
				}
				return err
			case <-time.After(killPause):
			}
			if u, err = c.unit(ctx); err != nil {
				return err
			}
		}
	})
}

// cleaningUp are the states of a service after its processes have ended.
var cleaningUp = map[string]bool{"stop-post": true, "final-watchdog": true, "final-sigterm": true, "final-sigkill": true}
