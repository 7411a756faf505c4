package confine

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// dataSlack is what RLIMIT_DATA allows above the memory limit: the runtime maps
// its heap in arenas of 64 MiB, of which the last is rarely full, and a worker
// that has just started has 40 MiB of code, metadata and stacks mapped.
const dataSlack = 128 << 20

// gcShare is the part of the memory limit, in percent, at which the garbage
// collector stops trading memory for time.
const gcShare = 75

// maxThreads bounds what threads take of the kernel's memory: 16 KiB each.
const maxThreads = 4096

// limitMemory bounds what the process can use. RLIMIT_AS would have to leave
// room for the gigabytes of address space that Go reserves and never touches;
// RLIMIT_DATA counts private writable mappings alone.
//
// RLIMIT_NPROC bounds the threads alone, since seccomp forbids processes. It
// counts those of all processes of a user, drydock's other workers among them,
// so it is far above what a worker needs.
func limitMemory(memory int64) (string, error) {
	debug.SetMemoryLimit(memory / 100 * gcShare)
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_DATA", unix.RLIMIT_DATA, uint64(memory) + dataSlack},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, 0},
		{"RLIMIT_NPROC", unix.RLIMIT_NPROC, maxThreads},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, 0},
		{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0},
	} {
		if err := lower(l.resource, l.value); err != nil {
			return "", fmt.Errorf("set %s to %d: %w", l.name, l.value, err)
		}
	}
	return fmt.Sprintf("%d MiB of memory, no new descriptors, no file writes", memory>>20), nil
}

// limitDescriptors forbids any new descriptor. Those that are open stay.
func limitDescriptors() error {
	if err := lower(unix.RLIMIT_NOFILE, 0); err != nil {
		return fmt.Errorf("set RLIMIT_NOFILE to 0: %w", err)
	}
	if fd, err := unix.Dup(0); err == nil {
		unix.Close(fd)
		return errors.New("a descriptor could be made in spite of RLIMIT_NOFILE")
	}
	return nil
}

// lower sets both limits of a resource, never above what they were.
func lower(resource int, value uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(0, resource, nil, &old); err != nil {
		return err
	}
	value = min(value, old.Max)
	return unix.Prlimit(0, resource, &unix.Rlimit{Cur: value, Max: value}, nil)
}
