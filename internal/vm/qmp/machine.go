//go:build linux

package qmp

import (
	"context"
	"errors"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
)

// askTimeout is how long the functions of this file wait for QEMU, and for
// their turn while another client is connected.
const askTimeout = 3 * time.Second

// State asks the QEMU whose socket is at path what its machine is doing.
func State(ctx context.Context, path string) (vm.State, error) {
	var state vm.State
	err := ask(ctx, path, func(ctx context.Context, c *Client) error {
		var err error
		state, err = c.state(ctx)
		return err
	})
	return state, err
}

// Quit has the QEMU whose socket is at path end at once, with its images in
// order. It may not have ended yet when Quit returns.
func Quit(ctx context.Context, path string) error {
	err := ask(ctx, path, func(ctx context.Context, c *Client) error {
		return c.Execute(ctx, "quit", nil, nil)
	})
	if errors.Is(err, ErrClosed) {
		return nil // it ended before it answered
	}
	return err
}

// ShutDown presses the power button of the machine whose socket is at path, as
// [vm.PressUntilGone] does. A QEMU that does not answer is waited for.
func ShutDown(ctx context.Context, path string, timeout time.Duration, gone func(context.Context) (bool, error)) error {
	return vm.PressUntilGone(ctx, timeout, func(ctx context.Context) error { return ask(ctx, path, pressPower) }, gone)
}

// pressPower presses the power button once, or ends a QEMU whose guest is off
// already.
func pressPower(ctx context.Context, c *Client) error {
	state, err := c.state(ctx)
	switch {
	case err != nil:
		return err
	case state == vm.Paused:
		return vm.ErrPaused
	case state == vm.Stopping:
		return c.Execute(ctx, "quit", nil, nil)
	}
	return c.Execute(ctx, "system_powerdown", nil, nil)
}

// Unbegun reports whether the guest of a QEMU has not executed anything yet: it was started
// with its CPUs stopped, and they were not started since.
func Unbegun(ctx context.Context, m Monitor) (bool, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := m.Execute(ctx, "query-status", nil, &answer)
	return answer.Status == "prelaunch", err
}

// state is query-status in the terms of package vm (qapi/run-state.json).
func (c *Client) state(ctx context.Context) (vm.State, error) {
	var answer struct {
		Status string `json:"status"`
	}
	if err := c.Execute(ctx, "query-status", nil, &answer); err != nil {
		return "", err
	}
	switch answer.Status {
	case "running":
		return vm.Running, nil
	case "shutdown": // the guest is off, and -no-shutdown keeps the process
		return vm.Stopping, nil
	}
	// "paused", "io-error", "suspended" and a dozen more that have in common
	// that no CPU runs.
	return vm.Paused, nil
}

// ask connects to the QEMU at path for as long as do takes.
func ask(ctx context.Context, path string, do func(context.Context, *Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := Dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}
