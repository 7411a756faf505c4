package sandbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/sandbox/confine"
)

// The names of the measures that confine a worker, as [Options.AllowWithout]
// and drydock's configuration spell them.
const (
	// Namespaces: own network, mounts, IPC, host name and processes.
	Namespaces = confine.Namespaces
	// Rlimits: bounded memory, no new descriptor, no file write, no core.
	Rlimits = confine.Rlimits
	// Privileges: user nobody, no capability, no debugger, dies with drydock.
	Privileges = confine.Privileges
	// NoNewPrivs: never more rights.
	NoNewPrivs = confine.NoNewPrivs
	// Landlock: no file, no TCP, no abstract socket, no signal.
	Landlock = confine.Landlock
	// Seccomp: only the system calls that reading needs.
	Seccomp = confine.Seccomp
)

// Measures lists the names of all measures.
func Measures() []string {
	return []string{Namespaces, Rlimits, Privileges, NoNewPrivs, Landlock, Seccomp}
}

// Measure is what became of one means of confinement on this host.
type Measure struct {
	Name   string
	OK     bool
	Detail string // what is in force ("ABI 7"), or why it is not
}

// MissingError says that this host cannot confine a worker as it should. No
// worker ran on.
type MissingError struct {
	Missing []Measure
}

func (e *MissingError) Error() string {
	var names, why []string
	for _, m := range e.Missing {
		names = append(names, m.Name)
		why = append(why, fmt.Sprintf("%s: %s", m.Name, m.Detail))
	}
	return fmt.Sprintf("this host cannot confine disk readers: %s (mend that, or accept the risk by allowing disk readers without: %s)",
		strings.Join(why, "; "), strings.Join(names, ", "))
}

// checkMeasures returns a [*MissingError] for what is missing and not allowed
// to be.
func checkMeasures(list []Measure, allowed []string) error {
	var missing []Measure
	for _, m := range list {
		if !m.OK && !slices.Contains(allowed, m.Name) {
			missing = append(missing, m)
		}
	}
	if missing != nil {
		return &MissingError{Missing: missing}
	}
	return nil
}

// Probe starts a worker that reads no disk, and reports which measures are in
// force in it, one item for each of [Measures].
func Probe(ctx context.Context, opts Options) ([]Measure, error) {
	opts.setDefaults()
	r, measures, err := startWorker(ctx, opts, "no disk", given{})
	if err != nil {
		return nil, err
	}
	return measures, r.Close()
}
