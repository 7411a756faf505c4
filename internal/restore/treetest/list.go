package treetest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// List describes what is below a folder, one line for each name: type, mode, owner,
// time of modification, extended attributes, content, device, and the first name of
// the same file. The folder itself, and lost+found, are not listed.
func List(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	first := map[fileID]string{}
	walk(t, root, func(path, rel string, st *unix.Stat_t) {
		line, err := describe(path, rel, st, first)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	})
	return out
}

// fileID is a file: each subvolume of btrfs is a device to the kernel.
type fileID struct{ device, inode uint64 }

// walk calls visit for all that is below a folder but lost+found, with a path that
// holds during the call, the path below the folder, which may be longer than
// PATH_MAX, and what lstat says.
func walk(t *testing.T, root string, visit func(path, rel string, st *unix.Stat_t)) {
	t.Helper()
	var folder func(dir, rel string)
	folder = func(dir, rel string) {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		names, err := f.Readdirnames(-1)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		for _, name := range names {
			if rel == "" && name == "lost+found" {
				continue
			}
			path := fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name)
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				t.Fatal(err)
			}
			visit(path, rel+name, &st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				folder(path, rel+name+"/")
			}
		}
	}
	folder(root, "")
}

func describe(path, rel string, st *unix.Stat_t, first map[fileID]string) (string, error) {
	line := fmt.Sprintf("%q %o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := digest(path, st.Size)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d bytes %x", st.Size, sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" → %q", target)
	case unix.S_IFBLK, unix.S_IFCHR:
		line += fmt.Sprintf(" device %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	attrs, err := xattrs(path)
	if err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		id := fileID{st.Dev, st.Ino}
		if first[id] == "" {
			first[id] = rel
		}
		attrs += fmt.Sprintf(" = %q", first[id])
	}
	return line + attrs, nil
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var line string
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %s=%q", name, buf[:n])
	}
	return line, nil
}

// Compare fails the test for each line of two lists that is not in the other.
func Compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing or different: %.800s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("unexpected:           %.800s", g)
		}
	}
}

// Allocated is the bytes that a file takes on disk.
func Allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	const unit = 512
	return st.Blocks * unit
}

// Flags describes the flags of chattr(1) of the files and folders below a folder, one
// line for each that has some of "a", "d" and "i".
func Flags(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	walk(t, root, func(path, rel string, st *unix.Stat_t) {
		const stub = 2 // stands in a snapshot of btrfs for a subvolume, and takes no ioctl
		if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR || st.Ino == stub {
			return
		}
		if flags := ChangeFlags(t, path, 0, 0); flags != 0 {
			out = append(out, fmt.Sprintf("%q has flags %#x", rel, flags))
		}
	})
	return out
}

// The flags, as FS_IOC_SETFLAGS has them (include/uapi/linux/fs.h).
const (
	Immutable = 0x10
	Append    = 0x20
	NoDump    = 0x40
)

// ChangeFlags sets and clears flags, and returns those that there are then.
func ChangeFlags(t *testing.T, path string, set, clear uint32) uint32 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	was, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	now := was&^clear | set
	if now != was {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(now)); err != nil {
			t.Fatal(err)
		}
	}
	return now & (Immutable | Append | NoDump)
}
