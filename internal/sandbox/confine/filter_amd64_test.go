package confine

import (
	"encoding/binary"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The filter, run on made-up system calls: what is conditional is allowed with
// the right arguments only, in all 64 bits.
func TestFilter(t *testing.T) {
	policy, err := newPolicy(Options{FirstDisk: 5, Disks: 2}, 77)
	if err != nil {
		t.Fatal(err)
	}
	instructions, err := policy.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	const rw = unix.PROT_READ | unix.PROT_WRITE
	const anonymous = unix.MAP_PRIVATE | unix.MAP_ANON
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	for _, c := range []struct {
		name string
		nr   int
		args [6]uint64
		want seccomp.Action
	}{
		{"pread", unix.SYS_PREAD64, [6]uint64{5}, seccomp.ActionAllow},
		{"write to the socket", unix.SYS_WRITE, [6]uint64{3}, seccomp.ActionAllow},
		{"write to standard error", unix.SYS_WRITE, [6]uint64{2}, seccomp.ActionAllow},
		{"write below the disks", unix.SYS_WRITE, [6]uint64{4}, seccomp.ActionAllow},
		{"write to the first disk", unix.SYS_WRITE, [6]uint64{5}, seccomp.ActionErrno},
		{"write to the last disk", unix.SYS_WRITE, [6]uint64{6}, seccomp.ActionErrno},
		{"writev to a disk", unix.SYS_WRITEV, [6]uint64{6}, seccomp.ActionErrno},
		{"write above the disks", unix.SYS_WRITE, [6]uint64{7}, seccomp.ActionAllow},
		{"write to a disk, upper bits set", unix.SYS_WRITE, [6]uint64{5 | 1<<32}, seccomp.ActionErrno},
		{"write to a disk, sign set", unix.SYS_WRITE, [6]uint64{5 | 1<<63}, seccomp.ActionErrno},
		{"pwrite", unix.SYS_PWRITE64, [6]uint64{2}, seccomp.ActionErrno},
		{"a thread", unix.SYS_CLONE, [6]uint64{thread}, seccomp.ActionAllow},
		{"a process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, seccomp.ActionErrno},
		{"vfork", unix.SYS_CLONE, [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, seccomp.ActionErrno},
		{"a thread in a namespace", unix.SYS_CLONE, [6]uint64{thread | unix.CLONE_NEWUSER}, seccomp.ActionErrno},
		{"memory", unix.SYS_MMAP, [6]uint64{0, 4096, rw, anonymous}, seccomp.ActionAllow},
		{"reserved memory", unix.SYS_MMAP, [6]uint64{0, 4096, 0, anonymous | unix.MAP_FIXED}, seccomp.ActionAllow},
		{"executable memory", unix.SYS_MMAP, [6]uint64{0, 4096, rw | unix.PROT_EXEC, anonymous}, seccomp.ActionErrno},
		{"a mapped file", unix.SYS_MMAP, [6]uint64{0, 4096, rw, unix.MAP_PRIVATE, 5}, seccomp.ActionErrno},
		{"shared memory", unix.SYS_MMAP, [6]uint64{0, 4096, rw, unix.MAP_SHARED | unix.MAP_ANON}, seccomp.ActionErrno},
		{"memory that grows", unix.SYS_MMAP, [6]uint64{0, 4096, rw, anonymous | unix.MAP_GROWSDOWN}, seccomp.ActionErrno},
		{"mprotect", unix.SYS_MPROTECT, [6]uint64{0, 4096, rw}, seccomp.ActionAllow},
		{"mprotect to executable", unix.SYS_MPROTECT, [6]uint64{0, 4096, unix.PROT_EXEC}, seccomp.ActionErrno},
		{"a signal within", unix.SYS_TGKILL, [6]uint64{77, 78, 23}, seccomp.ActionAllow},
		{"a signal without", unix.SYS_TGKILL, [6]uint64{78, 78, 23}, seccomp.ActionErrno},
		{"a signal without, upper bits set", unix.SYS_TGKILL, [6]uint64{77 | 1<<32, 78, 23}, seccomp.ActionErrno},
		{"naming memory", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_VMA}, seccomp.ActionAllow},
		{"allowing debuggers", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_DUMPABLE, 1}, seccomp.ActionErrno},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, seccomp.ActionErrno},
		{"exec", unix.SYS_EXECVE, [6]uint64{}, seccomp.ActionErrno},
		{"open", unix.SYS_OPENAT, [6]uint64{}, seccomp.ActionErrno},
		{"io_uring", unix.SYS_IO_URING_SETUP, [6]uint64{}, seccomp.ActionErrno},
		{"bpf", unix.SYS_BPF, [6]uint64{}, seccomp.ActionErrno},
		{"sendmsg", unix.SYS_SENDMSG, [6]uint64{3}, seccomp.ActionErrno},
		{"fcntl", unix.SYS_FCNTL, [6]uint64{3, unix.F_DUPFD}, seccomp.ActionErrno},
		{"ioctl", unix.SYS_IOCTL, [6]uint64{5}, seccomp.ActionErrno},
		{"another table of calls", 1<<30 | unix.SYS_READ, [6]uint64{}, seccomp.ActionErrno},
		{"a call that is yet to be invented", 5000, [6]uint64{}, seccomp.ActionErrno},
	} {
		got, err := vm.Run(seccompData(c.nr, c.args))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if seccomp.Action(got)&^0xffff != c.want {
			t.Errorf("%s: %v, want %v", c.name, seccomp.Action(got), c.want)
		}
	}
	if got, _ := vm.Run(seccompData(unix.SYS_CLONE3, [6]uint64{})); got&0xffff != int(unix.ENOSYS) {
		t.Errorf("clone3 gives error %d, which the C library takes for final", got&0xffff)
	}
}

// seccompData is struct seccomp_data of linux/seccomp.h for x86-64, laid out for
// the virtual machine of x/net/bpf, which reads words in big-endian order.
func seccompData(nr int, args [6]uint64) []byte {
	const auditArchX86 = 0xc000003e
	b := binary.BigEndian.AppendUint32(nil, uint32(nr))
	b = binary.BigEndian.AppendUint32(b, auditArchX86)
	b = binary.BigEndian.AppendUint64(b, 0) // instruction pointer
	for _, a := range args {
		b = binary.BigEndian.AppendUint32(b, uint32(a)) // the lower half first
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	return b
}
