// Package confine takes away from the running process everything that a disk
// reader does not need, for good and on all threads.
//
// [Apply] runs in the worker before it looks at a guest's first byte. It works
// in layers, each of which would be enough against most attacks: Landlock
// closes the filesystem, TCP, abstract sockets and signals; seccomp leaves some
// thirty system calls, several of them only with harmless arguments; the user,
// the capabilities and the right to gain new ones go; and limits bound memory
// and descriptors. The namespaces were made by the parent, when it started the
// process ([CloneAttempts]).
//
// Apply tries what it can to break out of what it has just applied, and reports
// a measure as in force only if that failed.
package confine

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// The names of the measures.
const (
	Namespaces = "namespaces"
	Rlimits    = "rlimits"
	Privileges = "privileges"
	NoNewPrivs = "no-new-privs"
	Landlock   = "landlock"
	Seccomp    = "seccomp"
)

// Options say what the confined process keeps.
type Options struct {
	// FirstDisk is the lowest of Disks consecutive descriptors that may be
	// read but never written, even if they were opened for writing.
	FirstDisk, Disks int
	// Memory is how much memory the process may use, in bytes.
	Memory int64
	// Namespaces says that the process was started in namespaces of its own.
	Namespaces bool
}

// Apply confines the process and reports what is in force, one item for each
// measure. It goes on when one of them fails: whether that is enough is for the
// parent to say.
func Apply(o Options) []wire.Measure {
	// Seccomp and no_new_privs start from the calling thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	list := []wire.Measure{
		namespaces(o),
		measure(Rlimits, func() (string, error) { return limitMemory(o.Memory) }),
		measure(Privileges, dropPrivileges),
		measure(NoNewPrivs, setNoNewPrivs),
		measure(Landlock, applyLandlock),
	}
	// Landlock and seccomp need a descriptor for a moment, so this comes late.
	if err := limitDescriptors(); err != nil && list[1].OK {
		list[1] = wire.Measure{Name: Rlimits, Detail: err.Error()}
	}
	return append(list, measure(Seccomp, func() (string, error) { return applySeccomp(o) }))
}

func measure(name string, apply func() (string, error)) wire.Measure {
	detail, err := apply()
	if err != nil {
		return wire.Measure{Name: name, Detail: err.Error()}
	}
	return wire.Measure{Name: name, OK: true, Detail: detail}
}

func namespaces(o Options) wire.Measure {
	m := wire.Measure{Name: Namespaces, OK: o.Namespaces}
	if m.OK {
		m.Detail = namespaceDetail
	}
	return m
}

func setNoNewPrivs() (string, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("set no_new_privs: %w", err)
	}
	// The other threads follow when seccomp is applied to all of them.
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return "", fmt.Errorf("read no_new_privs: %w", err)
	}
	if v != 1 {
		return "", errors.New("no_new_privs is not set after it was set")
	}
	return "set", nil
}
