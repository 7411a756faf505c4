//go:build linux

package qmp

import (
	"context"
	"encoding/json"
	"fmt"
)

// Monitor executes commands of a QEMU, as [Client.Execute] does.
type Monitor interface {
	Execute(ctx context.Context, command string, args, out any) error
}

// Reach connects to a QEMU for as long as do takes.
type Reach func(ctx context.Context, do func(context.Context, Monitor) error) error

// At reaches the QEMU whose socket is at path.
func At(path string) Reach {
	return func(ctx context.Context, do func(context.Context, Monitor) error) error {
		return ask(ctx, path, func(ctx context.Context, c *Client) error { return do(ctx, c) })
	}
}

// Carried is the Monitor of a QEMU whose socket somebody else has, as libvirt does: the
// function takes a command to it, and brings the answer back.
type Carried func(ctx context.Context, command string) (answer string, err error)

// Execute has QEMU execute a command.
func (c Carried) Execute(ctx context.Context, command string, args, out any) error {
	request, err := json.Marshal(request{Execute: command, Arguments: args})
	if err != nil {
		return err
	}
	text, err := c(ctx, string(request))
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var a answer // whose ID is not ours
	if err := json.Unmarshal([]byte(text), &a); err != nil || (a.Return == nil) == (a.Error == nil) {
		return fmt.Errorf("%w: the answer to %s is %s", ErrProtocol, command, clip(text))
	}
	return a.result(command, out)
}

// request is a command.
type request struct {
	Execute   string  `json:"execute"`
	Arguments any     `json:"arguments,omitempty"`
	ID        *uint64 `json:"id,omitempty"`
}

// result stores an answer in out.
func (a answer) result(command string, out any) error {
	if a.Error != nil {
		return &Error{Command: command, Class: clip(a.Error.Class), Desc: clip(a.Error.Desc)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(a.Return, out); err != nil {
		return fmt.Errorf("%w: the answer to %s: %w", ErrProtocol, command, err)
	}
	return nil
}
