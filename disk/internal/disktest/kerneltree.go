package disktest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// KernelTree reads all of a mounted filesystem through the kernel.
func KernelTree(t testing.TB, dir string) Tree {
	t.Helper()
	all := make(Tree)
	// Once a file is in the page cache, SEEK_DATA finds data in extents that
	// were never written: hardlinks are read once.
	first := make(map[fileID]Node)
	var walk func(path string)
	walk = func(path string) {
		n, id := kernelNode(t, filepath.Join(dir, path))
		if IsType(n.Mode, unix.S_IFREG) {
			if known, ok := first[id]; ok {
				n.Content, n.Data = known.Content, known.Data
			} else {
				n.Content, n.Data = kernelContent(t, filepath.Join(dir, path))
				first[id] = n
			}
		}
		all[path] = n
		if !IsType(n.Mode, unix.S_IFDIR) {
			return
		}
		list, err := os.ReadDir(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			walk(path + "/" + e.Name())
		}
	}
	walk("")
	return all
}

// CompareWithKernel compares what the kernel sees of an image of type fstype, which
// was unmounted cleanly, with what a reader does.
func CompareWithKernel(t testing.TB, path, fstype string, fs disk.Filesystem) {
	t.Helper()
	dir, unmount := Mount(t, path, fstype, "ro,noatime")
	want := KernelTree(t, dir)
	unmount()
	CompareTrees(t, want, ReadTree(t, fs))
}

// fileID identifies a file: inode numbers are those of a subvolume of btrfs.
type fileID struct {
	major, minor uint32
	ino          uint64
}

func kernelNode(t testing.TB, path string) (Node, fileID) {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &st); err != nil {
		t.Fatalf("statx %q: %v", path, err)
	}
	n := Node{
		Ino: st.Ino, Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Links: st.Nlink, Size: int64(st.Size),
		Rdev: formatDevice(st.Rdev_major, st.Rdev_minor), Xattrs: kernelXattrs(t, path),
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		st.Btime = unix.StatxTimestamp{}
	}
	for _, at := range []unix.StatxTimestamp{st.Atime, st.Mtime, st.Ctime, st.Btime} {
		n.Times += formatTime(at.Sec, at.Nsec) + " "
	}
	if IsType(n.Mode, unix.S_IFLNK) {
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		n.Target = target
	}
	return n, fileID{st.Dev_major, st.Dev_minor, st.Ino}
}

func kernelXattrs(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 8<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatalf("listxattr %q: %v", path, err)
	}
	names := bytes.Split(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0})
	slices.SortFunc(names, bytes.Compare)
	var out string
	for _, name := range names {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 256)
		n, err := unix.Lgetxattr(path, string(name), value)
		if errors.Is(err, unix.ERANGE) {
			value = make([]byte, 64<<10)
			n, err = unix.Lgetxattr(path, string(name), value)
		}
		if err != nil {
			t.Fatalf("getxattr %q %q: %v", path, name, err)
		}
		out += formatXattr(name, value[:n])
	}
	return out
}

func kernelContent(t testing.TB, path string) (digest, data string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ranges []disk.Extent
	for off := int64(0); ; {
		start, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		ranges = append(ranges, disk.Extent{Offset: start, Length: end - start})
		off = end
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return contentDigest(t, path, f, info.Size(), ranges), formatRanges(ranges)
}
