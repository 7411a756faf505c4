package fusefs_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testmount"
	"golang.org/x/sys/unix"
)

// record is all that can be seen of a file, but for its name.
type record struct {
	Ino, Nlink   uint64
	Mode         uint32
	UID, GID     uint32
	Rdev         uint64
	Size         int64
	Atime, Mtime unix.Timespec
	Ctime        unix.Timespec
	Birth        unix.StatxTimestamp
	Target       string
	Xattrs       map[string]string
	SHA256       string
	Holes        []int64 // where data and holes begin, by turns
	FewBlocks    bool    // less than its size
	EntryKind    fs.FileMode
}

// look walks a tree and looks at all of it.
func look(t *testing.T, dir string) map[string]record {
	t.Helper()
	all := make(map[string]record)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if name == "lost+found" {
			return fs.SkipDir
		}
		r, err := lookAt(path)
		r.EntryKind = e.Type()
		all[name] = r
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func lookAt(path string) (record, error) {
	var st unix.Stat_t
	var stx unix.Statx_t
	if err := errors.Join(unix.Lstat(path, &st), unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &stx)); err != nil {
		return record{}, err
	}
	r := record{
		Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: uint64(st.Rdev), Size: st.Size,
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim, Birth: stx.Btime,
		FewBlocks: st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 < st.Size/2,
	}
	var err error
	if r.Xattrs, err = xattrsOf(path); err != nil {
		return r, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		r.Target, err = os.Readlink(path)
	case unix.S_IFREG:
		r.SHA256, r.Holes, err = contentOf(path)
	}
	return r, err
}

func xattrsOf(path string) (map[string]string, error) {
	size, err := unix.Llistxattr(path, nil)
	if err != nil {
		return nil, fmt.Errorf("list xattrs of %q: %w", path, err)
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		size, err := unix.Lgetxattr(path, name, nil)
		if err != nil {
			return nil, fmt.Errorf("xattr %q of %q: %w", name, path, err)
		}
		value := make([]byte, size)
		if _, err := unix.Lgetxattr(path, name, value); err != nil {
			return nil, err
		}
		if size > 1 {
			if _, err := unix.Lgetxattr(path, name, value[:size-1:size-1]); err != unix.ERANGE {
				return nil, fmt.Errorf("xattr %q of %q into too small a buffer: %w", name, path, err)
			}
		}
		found[name] = string(value)
	}
	return found, nil
}

// contentOf digests the data of a file, and lists where its data and holes begin.
func contentOf(path string) (string, []int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	digest := sha256.New()
	var marks []int64
	for at := int64(0); ; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return "", nil, err
		}
		hole, err := f.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return "", nil, err
		}
		part := make([]byte, hole-data)
		if n, err := f.ReadAt(part, data); n != len(part) {
			return "", nil, fmt.Errorf("read %q: %w", path, err)
		}
		digest.Write(part)
		marks = append(marks, data, hole)
		at = hole
	}
	return fmt.Sprintf("%x", digest.Sum(nil)), marks, nil
}

// populate fills a tree with one of everything.
func populate(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	var steps []error
	do := func(err error) { steps = append(steps, err) }
	random := rand.NewChaCha8([32]byte{3})
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	long := strings.Repeat("n", 255)
	do(os.MkdirAll(at("a/b/c"), 0o750))
	do(os.Mkdir(at("empty"), 0o1777))
	do(os.WriteFile(at("a/small"), []byte("hello\n"), 0o600))
	do(os.WriteFile(at("a/nothing"), nil, 0o644))
	do(os.WriteFile(at("a/large"), bytesOf(5<<20+17), 0o4755))
	do(os.WriteFile(at("a/"+long), []byte("long"), 0o644))
	do(os.WriteFile(at("a/\xff\x01\nwild"), []byte("bytes"), 0o644))
	for i := range 2000 {
		do(os.WriteFile(at(fmt.Sprintf("a/b/file-%d", i)), bytesOf(i%40), 0o644))
	}
	do(os.Link(at("a/small"), at("a/b/c/hardlink")))
	do(os.Link(at("a/small"), at("hardlink")))
	for name, target := range map[string]string{"short": "a/small", "dangling": "nowhere/\xfe\xff", "long": strings.Repeat("x/", 1000) + "y", "absolute": "/etc/passwd"} {
		do(os.Symlink(target, at("link-"+name)))
	}
	do(unix.Mknod(at("fifo"), unix.S_IFIFO|0o620, 0))
	do(unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0))
	do(unix.Mknod(at("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	do(unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 0xfedcb))))
	sparse, err := os.Create(at("sparse"))
	do(err)
	for _, off := range []int64{8 << 10, 10 << 20, 3 << 30} {
		_, err := sparse.WriteAt(bytesOf(12<<10), off)
		do(err)
	}
	do(sparse.Truncate(5<<30 + 1))
	do(unix.Fallocate(int(sparse.Fd()), 0, 20<<20, 4<<20)) // preallocated, never written
	do(sparse.Close())
	hole, err := os.Create(at("hole"))
	do(err)
	do(hole.Truncate(1 << 40))
	do(hole.Close())

	for name, value := range map[string][]byte{
		"user.empty": nil, "user.large": bytesOf(3000), "trusted.t": []byte("x"), "security.capability": append([]byte{1, 0, 0, 2}, bytesOf(16)...),
		"user.\xff": []byte("y"),
	} {
		do(unix.Lsetxattr(at("a/small"), name, value, 0))
	}
	do(unix.Lsetxattr(at("a"), "user.dir", []byte("d"), 0))
	do(unix.Lsetxattr(at("link-short"), "trusted.link", []byte("l"), 0))
	do(unix.Lsetxattr(at("a/large"), "system.posix_acl_access", acl(), 0))
	do(unix.Lsetxattr(at("a/b"), "system.posix_acl_default", acl(), 0))
	do(os.Lchown(at("a/large"), 70000, 3))
	do(os.Lchown(at("link-long"), 5, 1<<31))
	do(os.Chtimes(at("a/nothing"), time.Unix(-1000, 999999999), time.Unix(1<<32+5, 1)))
	do(os.Chtimes(at("a/b"), time.Unix(1, 2), time.Unix(3, 123456789)))
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// acl is one with a named user, as the kernel takes it.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{0x01, 6, 0xffffffff}, {0x02, 4, 1234}, {0x04, 0, 0xffffffff}, {0x10, 4, 0xffffffff}, {0x20, 0, 0xffffffff}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// makeImage makes an ext4 image that the kernel has filled.
func makeImage(t *testing.T, fill func(dir string)) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", image)
	dir, unmount := testmount.Image(t, image, "")
	fill(dir)
	unmount()
	return image
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
