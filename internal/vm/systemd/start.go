//go:build linux

package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

const (
	// startTimeout is how long a start may take that systemd itself does not
	// limit.
	startTimeout = 10 * time.Minute
	// answerTimeout is how long the QMP socket of a unit that is active may be
	// silent. QEMU makes it before it reads a kernel or touches memory.
	answerTimeout = time.Minute
	// undoTimeout is how long it may take to stop a unit that did not start.
	undoTimeout = 3 * time.Minute
)

// Start starts the unit, and waits until it has started: with a QMP socket until
// QEMU says that the guest executes, otherwise until systemd says that the unit
// is active, which for Type=simple is as soon as QEMU has been executed. A unit
// whose ExecCondition= or Condition…= declined is [vm.ErrSkipped].
//
// A unit that is ordered after the one that drydock itself is starting in is only
// put into systemd's queue: it starts as soon as drydock has ended.
func (m *Machine) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return m.with(ctx, "start", func(c *connection) error {
		u, err := c.unit(ctx)
		if err != nil {
			return err
		}
		if u.active == "failed" {
			// It also forgets how often the unit was started in the last
			// seconds.
			if err := c.conn.ResetFailedUnitContext(ctx, c.name); err != nil {
				return fmt.Errorf("reset the failed unit: %w", err)
			}
		}
		err = m.start(ctx, c)
		if err == nil || errors.Is(err, vm.ErrSkipped) || errors.Is(err, vm.ErrPaused) {
			return err
		}
		return errors.Join(err, c.giveUp(ctx))
	})
}

// comesAfterUs reports whether this process belongs to a unit that is starting,
// and that the machine's unit is ordered after: as at boot drydock-recover.service,
// which comes before the VMs. The machine cannot start before this process ends, so
// waiting for it would last for ever. Where that cannot be told it is not so.
//
// A process knows its unit by the invocation (systemd.exec(5), INVOCATION_ID).
// Asking systemd by process ID would be simpler, but version 252 crashes when the
// process is in another PID namespace.
func (c *connection) comesAfterUs(ctx context.Context) bool {
	own := os.Getenv("INVOCATION_ID")
	if own == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, err := c.conn.GetUnitPropertiesContext(ctx, c.name)
	if err != nil {
		return false
	}
	after, _ := p["After"].([]string)
	for _, name := range after {
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		p, err := c.conn.GetUnitPropertiesContext(ctx, name)
		if err != nil || p["ActiveState"] != "activating" {
			continue
		}
		if id, _ := p["InvocationID"].([]byte); hex.EncodeToString(id) == own {
			return true
		}
	}
	return false
}

// giveUp stops a unit that did not start, since with Restart= it would be tried
// again behind the caller's back. One that is active is left alone: its guest may
// run.
func (c *connection) giveUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	u, err := c.unit(ctx)
	if err != nil || u.off() || u.active == "active" {
		return err
	}
	return c.stop(ctx)
}

func (m *Machine) start(ctx context.Context, c *connection) error {
	job := make(chan string, 1)
	if c.comesAfterUs(ctx) {
		job = nil
	}
	if _, err := c.conn.StartUnitContext(ctx, c.name, "replace", job); err != nil {
		return fmt.Errorf("start the unit: %w", err)
	}
	if job == nil {
		return nil
	}
	var result string
	select {
	case result = <-job:
	case <-ctx.Done():
		return fmt.Errorf("wait for the unit to start: %w", ctx.Err())
	}
	u, err := c.unit(ctx)
	if err != nil {
		return err
	}
	switch {
	case result == "skipped", result == "done" && u.off() && (u.result == "exec-condition" || !u.condition):
		return vm.ErrSkipped
	case result != "done":
		return m.failed(fmt.Errorf("the start job ended as %q, the unit is %s (%s)", result, u.active, u.outcome()))
	case u.off():
		return m.failed(fmt.Errorf("it ended at once (%s)", u.outcome()))
	}
	return m.awaitRunning(ctx, c)
}

func (m *Machine) failed(err error) error {
	return vm.WithHint(err, "journalctl -u "+m.o.Unit+" says why")
}

// awaitRunning waits until QEMU says that its guest executes.
func (m *Machine) awaitRunning(ctx context.Context, c *connection) error {
	if m.o.QMPSocket == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for {
		state, err := qmp.State(ctx, m.o.QMPSocket)
		switch {
		case err == nil && state == vm.Running:
			return nil
		case err == nil && state == vm.Paused:
			return paused
		case ctx.Err() != nil:
			return vm.WithHint(fmt.Errorf("the unit is active, but the QMP socket %s does not answer: %w", m.o.QMPSocket, ctx.Err()),
				"does the unit's QEMU have -qmp unix:"+m.o.QMPSocket+",server=on,wait=off?")
		}
		u, err := c.unit(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil && u.active != "active" {
			return m.failed(fmt.Errorf("it ended at once (%s)", u.outcome()))
		}
		time.Sleep(pollPause)
	}
}
