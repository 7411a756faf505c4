package confine

import (
	"errors"
	"fmt"
	"math"
	"os"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// always are the system calls that the worker and Go's runtime make, and that
// can do no harm with any argument. Names that an architecture does not have are
// left out there.
var always = []string{
	// Reading the images and the socket, waiting for it, and leaving.
	"read", "pread64", "lseek", "fstat", "close", "epoll_pwait", "epoll_pwait2", "epoll_wait",
	"exit", "exit_group",
	// Goroutines, threads and their signals.
	"futex", "nanosleep", "clock_nanosleep", "sched_yield", "sched_getaffinity", "getpid", "gettid",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	"set_robust_list", "rseq",
	// Memory; mapping and protecting are below.
	"munmap", "madvise", "brk",
	"getrandom", "clock_gettime", "gettimeofday",
}

// applySeccomp puts the allow-list in force on all threads. What is not on it
// fails with EPERM rather than killing the process: a call that a future
// runtime tries then costs that call and not every worker, and an attacker gets
// nothing from either.
func applySeccomp(o Options) (string, error) {
	policy, err := newPolicy(o, uint64(os.Getpid()))
	if err != nil {
		return "", err
	}
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy})
	if err != nil {
		return "", err
	}
	fd, err := unix.Open("/", unix.O_RDONLY, 0)
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.EPERM) {
		return "", fmt.Errorf("opening a folder gave %v in spite of seccomp", err)
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.EPERM) {
		return "", fmt.Errorf("making a socket gave %v in spite of seccomp", err)
	}
	return fmt.Sprintf("%d system calls allowed", calls(policy)), nil
}

func newPolicy(o Options, pid uint64) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, fmt.Errorf("this architecture has no seccomp table: %w", err)
	}
	allow := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, name := range always {
		if _, ok := info.SyscallNames[name]; ok {
			allow.Names = append(allow.Names, name)
		}
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			allow,
			{Action: seccomp.ActionAllow, NamesWithCondtions: conditional(o, pid)},
			// The C library falls back to clone, whose flags a filter can see.
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
		},
	}, nil
}

// conditional are the calls that are allowed with certain arguments only.
func conditional(o Options, pid uint64) []seccomp.NameWithConditions {
	is := func(arg uint32, v uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: v}
	}
	has := func(arg uint32, bit uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.BitsSet, Value: bit}
	}
	lacks := func(arg uint32, bits uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.BitsNotSet, Value: bits}
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

	list := []seccomp.NameWithConditions{
		// Memory is anonymous, so no image is mapped, and never executable.
		// RLIMIT_DATA does not count what is shared or grows like a stack.
		{Name: "mmap", Conditions: []seccomp.Condition{
			has(3, unix.MAP_ANONYMOUS), lacks(3, unix.MAP_SHARED|unix.MAP_GROWSDOWN), lacks(2, unix.PROT_EXEC),
		}},
		{Name: "mprotect", Conditions: []seccomp.Condition{lacks(2, unix.PROT_EXEC)}},
		// The runtime gives its mappings names.
		{Name: "prctl", Conditions: []seccomp.Condition{is(0, unix.PR_SET_VMA)}},
		// Threads, no processes; signals to threads of this process alone, by
		// which the runtime preempts.
		{Name: "clone", Conditions: []seccomp.Condition{has(0, unix.CLONE_THREAD), lacks(0, namespaces)}},
		{Name: "tgkill", Conditions: []seccomp.Condition{is(0, pid)}},
	}
	for _, name := range []string{"write", "writev"} {
		list = append(list, exceptDisks(name, o)...)
	}
	return list
}

// exceptDisks allows a call whose first argument is a descriptor, unless that is
// one of the images'. The kernel looks at the lower 32 bits of the argument and
// the filter at all 64, so the upper ones must be zero.
func exceptDisks(name string, o Options) []seccomp.NameWithConditions {
	compare := func(op seccomp.Operation, v int) seccomp.Condition {
		return seccomp.Condition{Argument: 0, Operation: op, Value: uint64(v)}
	}
	return []seccomp.NameWithConditions{
		{Name: name, Conditions: []seccomp.Condition{compare(seccomp.LessThan, o.FirstDisk)}},
		{Name: name, Conditions: []seccomp.Condition{
			compare(seccomp.GreaterOrEqual, o.FirstDisk+o.Disks),
			compare(seccomp.LessOrEqual, math.MaxInt32),
		}},
	}
}

// calls counts the system calls that are allowed, with conditions or without.
func calls(p seccomp.Policy) int {
	names := make(map[string]bool)
	for _, g := range p.Syscalls {
		if g.Action != seccomp.ActionAllow {
			continue
		}
		for _, n := range g.Names {
			names[n] = true
		}
		for _, n := range g.NamesWithCondtions {
			names[n.Name] = true
		}
	}
	return len(names)
}
