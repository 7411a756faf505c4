package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
	"github.com/drydock-vm/drydock/internal/sandbox/worker"
)

// An attempt is something that a worker which a guest took over might do. It
// returns nil if it could. arg is what the test passed: a process, an amount.
type try struct {
	name string
	do   func(arg int) error
}

// attempt serves the requests of these tests: the number of an entry of tries,
// and its argument.
func attempt(op wire.Op, payload []byte) ([]byte, error) {
	arg := int(binary.LittleEndian.Uint64(payload))
	if list, i := tries(), int(op-wire.OpTest); i < len(list) {
		return nil, list[i].do(arg)
	}
	return nil, special(op, arg)
}

// tryRequest is the payload of such a request.
type tryRequest int

func (r tryRequest) Append(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, uint64(r)) }

func tries() []try {
	return []try{
		{"open a file", func(int) error { return closing(os.Open("/etc/passwd")) }},
		{"open a folder", func(int) error { return closing(os.Open("/")) }},
		{"look at a file", func(int) error { return unix.Stat("/etc/passwd", new(unix.Stat_t)) }},
		{"make a file", func(int) error {
			f, err := os.CreateTemp("/tmp", "drydock-test")
			if err == nil {
				os.Remove(f.Name())
			}
			return closing(f, err)
		}},
		{"make an anonymous file", func(int) error { return closingFD(unix.MemfdCreate("x", 0)) }},
		{"remove a file", func(int) error { return reached(unix.Unlink("/nonexistent"), unix.ENOENT) }},
		{"open its own memory", func(int) error { return closing(os.OpenFile("/proc/self/mem", os.O_RDWR, 0)) }},
		{"write to the image", func(int) error { return writeTo(worker.FirstDisk) }},
		{"write to the image by another number", func(int) error { return writeTo(worker.FirstDisk | 1<<32) }},
		{"make a new descriptor", func(int) error { return closingFD(unix.Dup(0)) }},
		{"make a pipe", func(int) error {
			var p [2]int
			err := unix.Pipe2(p[:], 0)
			return err
		}},
		{"make a Unix socket", func(int) error { return closingFD(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
		{"make a TCP socket", func(int) error { return closingFD(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }},
		{"make a netlink socket", func(int) error { return closingFD(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)) }},
		{"connect", func(int) error {
			return reached(unix.Connect(worker.Socket, &unix.SockaddrUnix{Name: "/nonexistent"}), unix.ENOENT, unix.EISCONN)
		}},
		{"pass its descriptors on", func(int) error {
			// Standard input is no socket, but only who may send learns that.
			return reached(unix.Sendmsg(0, nil, unix.UnixRights(worker.FirstDisk), nil, 0), unix.ENOTSOCK)
		}},
		{"fork", func(int) error { return fork() }},
		{"run a program", func(int) error {
			_, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
			return err
		}},
		{"become a program", func(int) error {
			return reached(unix.Exec("/nonexistent", []string{"x"}, nil), unix.ENOENT)
		}},
		{"signal another process", func(pid int) error { return unix.Kill(pid, 0) }},
		{"signal its own group", func(int) error { return unix.Kill(0, 0) }},
		{"signal another thread", func(pid int) error { return unix.Tgkill(pid, pid, 0) }},
		{"trace another process", func(pid int) error { return trace(pid) }},
		{"read another process", func(pid int) error { return readProcess(pid) }},
		{"become root again", func(int) error { return rawCall(unix.SYS_SETRESUID, 0, 0, 0) }},
		{"make namespaces", func(int) error { return rawCall(unix.SYS_UNSHARE, unix.CLONE_NEWUTS, 0, 0) }},
		{"mount", func(int) error {
			return reached(unix.Mount("x", "/nonexistent", "tmpfs", 0, ""), unix.ENOENT)
		}},
		{"allow debuggers again", func(int) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"raise a limit", func(int) error {
			return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		}},
		{"make memory executable", func(int) error {
			return mapping(-1, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		}},
		{"map the image", func(int) error { return mapping(worker.FirstDisk, unix.PROT_READ, unix.MAP_PRIVATE) }},
		{"share memory", func(int) error {
			return mapping(-1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
		}},
		{"map more memory than it may", func(int) error {
			b, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err == nil {
				err = unix.Munmap(b)
			}
			return err
		}},
	}
}

// The requests behind the tries, which are not about being denied.
const (
	tryAllocate = 100 + iota // touch arg MiB
	tryHang
	tryCrash
	tryThreads // wake some threads up
)

func special(op wire.Op, arg int) error {
	switch op - wire.OpTest {
	case tryAllocate:
		var kept [][]byte
		for range arg {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
		}
		runtime.KeepAlive(kept)
	case tryHang:
		//lint:ignore SA5002 the attempt is to use the processor for ever
		for {
		}
	case tryCrash:
		var m map[string]int
		//lint:ignore SA5000 the attempt is to crash
		m["crash"] = 1
	case tryThreads:
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func rawCall(nr, a, b, c uintptr) error {
	if _, _, e := unix.RawSyscall(nr, a, b, c); e != 0 {
		return e
	}
	return nil
}

func closing(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

func closingFD(fd int, err error) error {
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// reached turns errors that show that the kernel looked at the request, and did
// not refuse it as such, into success.
func reached(err error, looked ...error) error {
	for _, l := range looked {
		if errors.Is(err, l) {
			return nil
		}
	}
	return err
}

func writeTo(fd uintptr) error {
	b := []byte{'x'}
	return rawCall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), 1)
}

func fork() error {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return e
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

func trace(pid int) error {
	return rawCall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0)
}

func rawCall6(nr, a, b, c, d uintptr) error {
	if _, _, e := unix.RawSyscall6(nr, a, b, c, d, 0, 0); e != 0 {
		return e
	}
	return nil
}

func readProcess(pid int) error {
	b := make([]byte, 1)
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	// Nothing is mapped there: EFAULT says that the reading itself was allowed.
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
	return reached(err, unix.EFAULT)
}

func mapping(fd, prot, flags int) error {
	b, err := unix.Mmap(fd, 0, 4096, prot, flags)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	return unix.Munmap(b)
}
