//go:build linux

package systemd

import (
	"context"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
)

// Options say which machine to run, and how.
type Options struct {
	Unit      string
	QMPSocket string
	Console   string
}

// Machine is a VM that drydock starts. It implements [vm.Machine] and
// [vm.Console].
type Machine struct{ o Options }

// New checks the options and returns the machine. It starts nothing.
func New(o Options) (*Machine, error) { return &Machine{o}, nil }

func (m *Machine) ConsolePath() string                           { return m.o.Console }
func (m *Machine) State(context.Context) (vm.State, error)       { return vm.Off, nil }
func (m *Machine) Start(context.Context) error                   { return nil }
func (m *Machine) Shutdown(context.Context, time.Duration) error { return nil }
func (m *Machine) Kill(context.Context) error                    { return nil }
