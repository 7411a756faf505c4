//go:build linux

// Package qemu runs virtual machines as QEMU processes that drydock starts
// itself, from a command line that the user wrote.
//
// A machine belongs to no process of drydock: QEMU runs in its own session,
// holds no descriptor of drydock's, and goes on when drydock ends or is killed.
// Another drydock finds it again by the lock that QEMU keeps on its pidfile
// (util/oslib-posix.c, qemu_write_pidfile: F_SETLK, for as long as the process
// lives). The kernel says which process holds that lock, so neither a stale
// pidfile nor a process ID that was used again can be mistaken for the machine,
// and of two QEMUs for one machine the second one gives up before it opens a
// disk.
//
// To the user's command drydock appends what it owns: the pidfile, a QMP socket,
// a name, a serial console that goes to a file, and no display, the last three
// unless the command has its own. It chooses no accelerator. Paths in the
// command have to be absolute: QEMU runs in the machine's runtime folder, and
// with a small environment.
//
// All that drydock writes for a machine lies in two folders:
//
//	RuntimeDir/pid            QEMU's pidfile
//	RuntimeDir/qmp.sock       its QMP socket
//	RuntimeDir/start.lock     held (flock) by the process that starts the machine
//	LogDir/NAME.qemu.log      what QEMU itself printed
//	LogDir/NAME.console.log   what the guest printed on its serial console
//
// The logs are appended to, without a limit while the machine runs; a start puts
// one that has become long aside as NAME….log.1.
//
// systemd knows nothing of sessions: a unit that runs drydock takes the machines
// down with it when it ends, unless it has KillMode=process.
//
// It needs Linux 5.11 (pidfd, close_range), and QEMU 5.0 or newer.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// The names in [Options.RuntimeDir].
const (
	pidFile   = "pid"
	qmpSocket = "qmp.sock"
	startLock = "start.lock"
)

// Options say which machine to run, and how.
type Options struct {
	// Name is the machine's: 1 to 63 letters, digits, ".", "_" and "-".
	Name string
	// Command is QEMU and its arguments.
	Command []string
	// RuntimeDir is a folder for this machine alone, as /run/drydock/vm/NAME.
	// The first start makes it. It may be lost at a boot.
	RuntimeDir string
	// LogDir is the folder of the logs. The first start makes it.
	LogDir string
	// Console is the file for the serial console, LogDir/NAME.console.log if
	// empty.
	Console string
}

// Machine is a VM that drydock starts. It implements [vm.Machine], [vm.Console] and
// [vm.Defined], and the LiveDeleter of package snapshot.
type Machine struct {
	o    Options
	args []string // what drydock appends to the command
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// New checks the options and returns the machine. It starts nothing.
func New(o Options) (*Machine, error) {
	if !namePattern.MatchString(o.Name) {
		return nil, fmt.Errorf("%q cannot be the name of a machine (use letters, digits, \".\", \"_\" and \"-\")", o.Name)
	}
	for _, dir := range []string{o.RuntimeDir, o.LogDir} {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("machine %s: the folder %q is not an absolute path", o.Name, dir)
		}
	}
	if o.Console == "" {
		o.Console = filepath.Join(o.LogDir, o.Name+".console.log")
	}
	line, err := scan(o.Command)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", o.Name, err)
	}
	if line.serial {
		o.Console = ""
	}
	return &Machine{o: o, args: line.additions(o.Name, o.Console)}, nil
}

// ConsolePath names the file of the serial console. It is empty if the command
// says itself where the console goes.
func (m *Machine) ConsolePath() string { return m.o.Console }

// Definition is the command alone: drydock's own configuration has it.
func (m *Machine) Definition(context.Context) (vm.Definition, error) {
	return vm.Definition{Command: m.o.Command}, nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.o.RuntimeDir, name) }

func (m *Machine) logPath() string { return filepath.Join(m.o.LogDir, m.o.Name+".qemu.log") }

// fail is the error of an operation on this machine.
func (m *Machine) fail(op string, err error, hint string) error {
	var already *vm.Error
	if errors.As(err, &already) {
		return err
	}
	return &vm.Error{Op: op, VM: m.o.Name, Err: err, Hint: hint}
}

// State says what the machine is doing. One whose QEMU does not answer counts
// as running: its disks are in use.
func (m *Machine) State(ctx context.Context) (vm.State, error) {
	p, err := m.find()
	if err != nil {
		return "", m.fail("state", err, "")
	}
	if p == nil {
		if flock.Held(m.path(startLock)) {
			return vm.Starting, nil
		}
		return vm.Off, nil
	}
	defer p.close()
	state, err := qmp.State(ctx, m.path(qmpSocket))
	switch {
	case err == nil:
		return state, nil
	case ctx.Err() != nil:
		return "", m.fail("state", ctx.Err(), "")
	case p.gone():
		return vm.Off, nil
	case flock.Held(m.path(startLock)):
		return vm.Starting, nil
	}
	return vm.Running, nil
}
