package sandbox

import (
	"context"
	"errors"
)

// The names of the measures that confine a worker, as [Options.AllowWithout]
// and drydock's configuration spell them.
const (
	Landlock   = "landlock"     // no file, no TCP, no abstract socket, no signal
	Seccomp    = "seccomp"      // only the system calls that reading needs
	Namespaces = "namespaces"   // own network, processes, mounts, IPC and host name
	NoNewPrivs = "no-new-privs" // never more rights through exec
	Privileges = "privileges"   // user nobody, no capability, no debugger
	Rlimits    = "rlimits"      // bounded memory and descriptors, no file writes
)

// Measures lists the names of all measures, in the order in which they are
// reported.
func Measures() []string {
	return []string{Namespaces, Rlimits, Privileges, NoNewPrivs, Landlock, Seccomp}
}

// Measure is what one means of confinement can do on this host.
type Measure struct {
	Name   string
	OK     bool
	Detail string // what is in force ("ABI 7"), or why it is not
}

// MissingError says that this host cannot confine a worker as it should.
type MissingError struct {
	Missing []Measure
}

func (e *MissingError) Error() string { return "" }

// Probe starts a worker with no disk, and reports which measures are in force
// in it.
func Probe(ctx context.Context, opts Options) ([]Measure, error) { return nil, errors.ErrUnsupported }
