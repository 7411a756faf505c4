package imagelock

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxComm is how much of a process's name is shown. The kernel keeps 15 bytes.
const maxComm = 64

// holder names a process, other than by f itself, whose open of the same file
// holds OFD locks. The kernel does not say who holds one, but lists in
// /proc/PID/fdinfo/FD the locks of each open file. Without the right to read
// these it returns "".
func holder(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	self := ""
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { self = strconv.Itoa(int(fd)) })
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if locks(pid, info, self) {
			return fmt.Sprintf("process %d (%s)", pid, comm(pid))
		}
	}
	return ""
}

// locks reports whether process pid holds OFD locks on the file that info is
// of, by another descriptor than this process's self.
func locks(pid int, info os.FileInfo, self string) bool {
	dir := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false // gone meanwhile, or not ours to see
	}
	want, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	inode := []byte(":" + strconv.FormatUint(want.Ino, 10) + " ")
	for _, fd := range fds {
		if pid == os.Getpid() && fd.Name() == self {
			continue
		}
		lines, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
		if err != nil || !bytes.Contains(lines, []byte("OFDLCK")) || !bytes.Contains(lines, inode) {
			continue
		}
		// The device in these lines is not the one that stat names on btrfs,
		// so the file itself decides. Only files that passed the test above
		// are asked, since a stat may hang on a dead network filesystem.
		var st syscall.Stat_t
		if syscall.Stat(filepath.Join(dir, "fd", fd.Name()), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			return true
		}
	}
	return false
}

// comm returns a process's name as the kernel keeps it. A process chooses its
// own, so anything but plain letters is replaced.
func comm(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSuffix(string(name[:min(len(name), maxComm)]), "\n"))
}
