// Package vm says what drydock needs of a virtual machine: to know whether it
// runs, to start it, and to bring it down in order. The drivers below this
// folder do it for QEMU processes that drydock owns (qemu) and for systemd
// units (systemd).
package vm

import (
	"context"
	"errors"
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
	// start condition declined (systemd's ExecCondition=).
	Start(ctx context.Context) error

	// Shutdown asks the guest to power off, and returns when the machine is
	// off and no process holds its disks. After timeout it returns
	// [ErrShutdownTimeout], and the machine still runs. It does nothing when
	// the machine is off.
	Shutdown(ctx context.Context, timeout time.Duration) error

	// Kill takes the machine's power away. The guest loses what it had not
	// yet written, as in a power cut.
	Kill(ctx context.Context) error
}

// Console is what a machine has whose serial console is kept in a file.
type Console interface {
	// ConsolePath names the file that the console is appended to. What it
	// holds was written by the guest: escape it.
	ConsolePath() string
}

// Errors of a [Machine].
var (
	ErrShutdownTimeout = errors.New("the guest did not power off in time")
	ErrSkipped         = errors.New("the start condition was not met")
)
