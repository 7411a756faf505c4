//go:build linux

// Package systemd drives virtual machines that are services of systemd, over
// D-Bus.
//
// A unit says itself how its machine starts. How it is shut down depends on what
// drydock is told:
//
//   - With the machine's QMP socket, drydock presses the power button and waits
//     until the unit is inactive. A guest that does not react still runs
//     afterwards.
//   - Without it, drydock stops the unit, and the unit's ExecStop= has to ask the
//     guest to power off and to wait until it has: when the last ExecStop= has
//     ended, systemd kills what is left. It kills as well when TimeoutStopSec= is
//     over, so that must not be shorter than the time that the guest is given.
//     There is no way back from there. If systemd had to kill, the error is
//     [vm.ErrHardStop].
//
// A unit with Restart=always or on-success would come back by itself when its
// guest powers off, so it is stopped in the second way, also if it has a QMP
// socket. What cannot be done in order is refused, with the line that the unit
// lacks.
//
// It works with systemd 240 (2018) and newer; ExecCondition= needs 243.
package systemd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// Connect connects to a systemd.
type Connect func(context.Context) (*systemd.Conn, error)

// Options say which unit is the machine.
type Options struct {
	// Unit is the name of a service, with ".service" at its end.
	Unit string
	// QMPSocket is the path of the machine's QMP socket, or empty.
	QMPSocket string
	// Console is the file that the serial console is appended to, or empty.
	Console string
	// Connect reaches systemd; by default the one that runs this host.
	Connect Connect
}

// Machine is a VM that is a service. It implements [vm.Machine], [vm.Console] and
// [vm.Defined].
type Machine struct{ o Options }

// New checks the options and returns the machine. It asks systemd nothing.
func New(o Options) (*Machine, error) {
	if !strings.HasSuffix(o.Unit, ".service") || len(o.Unit) > 255 {
		return nil, fmt.Errorf("%q cannot be a machine: it must be a unit NAME.service, which can be stopped and started", o.Unit)
	}
	for _, path := range []string{o.QMPSocket, o.Console} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("unit %s: %q is not an absolute path", o.Unit, path)
		}
	}
	if o.Connect == nil {
		o.Connect = systemd.NewWithContext
	}
	return &Machine{o}, nil
}

// At reaches a systemd by the D-Bus address of its system bus
// ("unix:path=/run/dbus/system_bus_socket").
func At(address string) Connect {
	return func(ctx context.Context) (*systemd.Conn, error) {
		return systemd.NewConnection(func() (*dbus.Conn, error) {
			return dbus.Connect(address, dbus.WithContext(ctx))
		})
	}
}

// ConsolePath names the file of the serial console, or is empty.
func (m *Machine) ConsolePath() string { return m.o.Console }

// State says what the machine is doing.
func (m *Machine) State(ctx context.Context) (vm.State, error) {
	var state vm.State
	err := m.with(ctx, "state", func(c *connection) error {
		u, err := c.unit(ctx)
		if err != nil {
			return err
		}
		state, err = m.state(ctx, u)
		return err
	})
	return state, err
}

// state puts the unit's state into the terms of package vm. A machine whose
// QEMU does not answer counts as running: its disks are in use.
func (m *Machine) state(ctx context.Context, u unit) (vm.State, error) {
	switch u.active {
	case "active", "reloading", "refreshing":
	case "activating":
		return vm.Starting, nil
	case "deactivating":
		return vm.Stopping, nil
	case "failed":
		return vm.Failed, nil
	case "inactive", "maintenance":
		return vm.Off, nil
	default:
		return "", fmt.Errorf("systemd says that it is %q, which drydock does not know", u.active)
	}
	if m.o.QMPSocket == "" {
		return vm.Running, nil
	}
	state, err := qmp.State(ctx, m.o.QMPSocket)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return vm.Running, nil
	}
	return state, nil
}

// with connects to systemd for as long as do takes.
func (m *Machine) with(ctx context.Context, op string, do func(*connection) error) error {
	// A connection ends with the context that it was made with, but what was
	// begun may have to be undone after ctx has ended.
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	connected := context.AfterFunc(ctx, end)
	conn, err := m.o.Connect(lasting)
	connected()
	if err != nil {
		return m.fail(op, vm.WithHint(fmt.Errorf("connect to systemd: %w", err), "is D-Bus running, and is drydock run by root?"))
	}
	defer conn.Close()
	return m.fail(op, do(&connection{conn, m.o.Unit}))
}

// fail is the error of an operation on this machine.
func (m *Machine) fail(op string, err error) error { return vm.Fail(op, m.o.Unit, err) }

// pollPause is how long to wait before looking at the unit again. One look costs
// systemd a millisecond.
const pollPause = 100 * time.Millisecond
