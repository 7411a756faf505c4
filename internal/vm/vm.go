// Package vm says what drydock needs of a virtual machine: to know whether it
// runs, to start it, and to bring it down in order. The drivers below this
// folder do it for QEMU processes that drydock owns (qemu) and for systemd
// units (systemd).
package vm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// State is what a machine is doing.
type State string

// The states of a machine.
const (
	Off     State = "off"
	Running State = "running"
	// Paused: the machine exists and its disks are in use, but its CPUs are
	// stopped.
	Paused State = "paused"
	// Stopping and Starting are the transitions that a driver reports while
	// somebody else is at it.
	Stopping State = "stopping"
	Starting State = "starting"
	// Failed is off after a failure, as systemd keeps it.
	Failed State = "failed"
)

// UsesDisks reports whether a machine in state s may write to its disks.
func (s State) UsesDisks() bool { return s != Off && s != Failed }

// Machine is one virtual machine. A Machine holds no resources: any number of
// processes may make one for the same VM, one after the other, and see the
// same state.
type Machine interface {
	State(ctx context.Context) (State, error)

	// Start starts the machine and returns when its guest executes. It does
	// nothing when it runs already. [ErrSkipped] says that the machine's own
	// start condition declined (systemd's ExecCondition=), [ErrPaused] that it
	// runs with its CPUs stopped. After any other error State tells what
	// became of it: a machine that does not answer is left as it is, since
	// only Kill takes power away, and one that is off stays off.
	Start(ctx context.Context) error

	// Shutdown asks the guest to power off, and returns when the machine is
	// off and no process holds its disks. After timeout it returns
	// [ErrShutdownTimeout], and the machine still runs. It does nothing when
	// the machine is off. A machine that is paused cannot hear: [ErrPaused].
	Shutdown(ctx context.Context, timeout time.Duration) error

	// Kill takes the machine's power away. The guest loses what it had not
	// yet written, as in a power cut.
	Kill(ctx context.Context) error
}

// Console is what a machine has whose serial console is kept in a file.
type Console interface {
	// ConsolePath names the file that the console is appended to, or is empty
	// where this machine keeps none. What the file holds was written by the
	// guest: escape it.
	ConsolePath() string
}

// Filler is a machine whose disks can come to stand on their own while it runs.
type Filler interface {
	// CanFill returns an error if Fill could not do that to an image which lies on
	// another, once it is put at path. The machine is off.
	CanFill(ctx context.Context, path string) error

	// Fill copies what the qcow2 image at path shows of the images below it into it,
	// and returns when it needs them no more. progress is told now and then how many
	// bytes are done, of how many.
	Fill(ctx context.Context, path string, progress func(done, of int64)) error
}

// Attacher is a machine that knows which images its guest has as disks.
type Attacher interface {
	// Attached returns an error if the image at path is no disk of the machine: what
	// its guest writes is elsewhere then, and nobody may put another in its place.
	Attached(ctx context.Context, path string) error
}

// Defined is a machine that can say what on this host defines it, so that it can be
// made again on another.
type Defined interface {
	Definition(ctx context.Context) (Definition, error)
}

// Definition is what defines a machine on this host.
type Definition struct {
	// Files are the paths of the files that a person wrote: a unit's own, and
	// then its drop-ins, as systemd orders them.
	Files []string
	// Command is QEMU and its arguments, or whatever a unit runs.
	Command []string
	// User is who runs it, a name or a number; empty is who runs drydock.
	User string
}

// Errors of a [Machine].
var (
	ErrShutdownTimeout = errors.New("the guest did not power off in time")
	ErrSkipped         = errors.New("the start condition was not met")
	// ErrPaused: somebody stopped the CPUs of the machine, or an I/O error did.
	// drydock does not resume what it has not paused.
	ErrPaused = errors.New("the machine is paused")
	// ErrHardStop is of a Shutdown after which the machine is off, but not in
	// order: its power was taken away, and the guest may have lost what it had
	// not yet written.
	ErrHardStop = errors.New("the guest was not shut down in order")
)

// Error is what a driver could not do with a machine.
type Error struct {
	Op   string // "start", "shut down", "kill", "state"
	VM   string // the machine's name, or its unit's
	Err  error
	Hint string // the likely fix; may be empty
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.VM, e.Err)
	}
	return fmt.Sprintf("%s %s: %v (%s)", e.Op, e.VM, e.Err, e.Hint)
}

func (e *Error) Unwrap() error { return e.Err }

// WithHint is an error with its likely fix, which [Fail] takes over.
func WithHint(err error, hint string) error { return &hinted{err, hint} }

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Fail is the [Error] of an operation on a machine, with the hint that err has; nil if err
// is.
func Fail(op, machine string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if h, ok := errors.AsType[*hinted](err); ok {
		hint = h.hint
	}
	return &Error{Op: op, VM: machine, Err: err, Hint: hint}
}
