// Package treetest makes folders that are hard to keep, describes folders so that
// two can be compared, and makes filesystems of lies. It is for tests, which run as
// root.
package treetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Without says what a tree is made without, for programs that cannot keep it.
type Without struct {
	SymlinkXattrs bool
	OddTargets    bool // targets of symlinks that are not UTF-8
	Sockets       bool
	Nanoseconds   bool // times are whole seconds
	LargeMinors   bool // of device numbers, which XFS has 18 bits for
}

// The tree's special places.
const (
	SparseSize = 64 << 20 // bytes of "sparse", of which 4096 are data
	LargeSize  = 5 << 20  // bytes of "etc/deep/er/large"
)

// Make fills a new folder with files of many kinds, and returns its path.
func Make(t *testing.T, w Without) string {
	t.Helper()
	dir := t.TempDir()
	MakeIn(t, dir, w)
	return dir
}

// MakeIn fills a folder that is there.
func MakeIn(t *testing.T, dir string, w Without) {
	t.Helper()
	m := newMaker(t, dir)
	m.files()
	m.specials(w)
	m.attributes(w)
	m.times(w)
}

type maker struct {
	t   *testing.T
	dir string
	rnd *rand.Rand
}

func newMaker(t *testing.T, dir string) maker { return maker{t, dir, rand.New(rand.NewPCG(1, 2))} }

func (m maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m maker) path(name string) string { return filepath.Join(m.dir, name) }

func (m maker) content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rnd.Uint32())
	}
	return b
}

func (m maker) write(name string, data []byte, mode os.FileMode) {
	m.t.Helper()
	m.must(os.WriteFile(m.path(name), data, 0o600))
	m.must(os.Chmod(m.path(name), mode))
}

func (m maker) files() {
	for _, dir := range []string{"etc/deep/er", "var/lib/app", "locked/in", "shared"} {
		m.must(os.MkdirAll(m.path(dir), 0o755))
	}
	m.write("etc/hostname", []byte("web\n"), 0o644)
	m.write("etc/empty", nil, 0o000)
	m.write("etc/one\nline\x1b[31m", []byte("control"), 0o644)
	m.write("etc/not\xffutf8", []byte("odd"), 0o644)
	m.write("etc/ümläut", []byte("utf8"), 0o644)
	m.write("etc/-rf", []byte("an option"), 0o644)
	m.write("etc/"+strings.Repeat("n", 255), []byte("long"), 0o644)
	m.write("etc/deep/er/large", m.content(LargeSize), 0o640)
	m.write("var/lib/app/letter.txt", []byte("Dear all\n"), 0o600)
	m.write("locked/in/file", []byte("x"), 0o400)
	for i := range 40 {
		m.write(fmt.Sprintf("etc/deep/%d", i), m.content(100+i*1000), 0o644)
	}
	f, err := os.Create(m.path("sparse"))
	m.must(err)
	m.must(f.Truncate(SparseSize))
	_, err = f.WriteAt(m.content(4096), 40<<20)
	m.must(err)
	m.must(f.Close())
	m.write("hole", nil, 0o644)
	m.must(os.Truncate(m.path("hole"), 3<<20+1))
}

func (m maker) specials(w Without) {
	m.write("etc/setuid", []byte("x"), 0o755|os.ModeSetuid)
	m.write("etc/setgid", []byte("x"), 0o755|os.ModeSetgid)
	m.must(os.Symlink("../etc/hostname", m.path("etc/link")))
	m.must(os.Symlink("/nowhere/"+strings.Repeat("t", 300), m.path("etc/dangling")))
	if !w.OddTargets {
		m.must(os.Symlink("not\xffutf8", m.path("etc/odd-link")))
	}
	m.must(os.Link(m.path("etc/hostname"), m.path("var/other-name")))
	m.must(os.Link(m.path("etc/hostname"), m.path("etc/a third")))
	m.must(os.Link(m.path("sparse"), m.path("var/sparse-too")))
	m.must(unix.Mknod(m.path("etc/fifo"), unix.S_IFIFO|0o620, 0))
	m.must(unix.Mknod(m.path("etc/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	minor := uint32(1<<18 + 7)
	if w.LargeMinors {
		minor = 7
	}
	m.must(unix.Mknod(m.path("etc/disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, minor))))
	if !w.Sockets {
		m.must(unix.Mknod(m.path("etc/socket"), unix.S_IFSOCK|0o666, 0))
	}
}

func (m maker) attributes(w Without) {
	set := func(name, attr string, value []byte) {
		m.t.Helper()
		m.must(unix.Lsetxattr(m.path(name), attr, value, 0))
	}
	m.must(os.Lchown(m.path("etc/empty"), 1234, 70000))
	m.must(os.Lchown(m.path("etc/link"), 4_000_000, 4_000_001))
	m.must(os.Lchown(m.path("sparse"), 4_000_000, 7))
	m.must(os.Lchown(m.path("var/lib/app"), 33, 33))
	set("etc/hostname", "user.comment", []byte("a \x00 value\n"))
	set("etc/hostname", "trusted.secret", []byte("t"))
	set("etc/hostname", "security.selinux", []byte("system_u:object_r:etc_t:s0\x00"))
	set("sparse", "user.comment", []byte("of a sparse file"))
	set("var/lib/app", "user.comment", []byte("of a folder"))
	if !w.SymlinkXattrs {
		set("etc/link", "trusted.link", []byte("of a symlink"))
	}
	set("etc/deep/1", "security.capability", slices.Concat(le32(0x02000001), le32(1<<10), make([]byte, 12)))
	set("etc/deep/2", "system.posix_acl_access", acl(6))
	set("var/lib", "system.posix_acl_default", acl(7))
	m.must(os.Chmod(m.path("locked/in"), 0o500))
	m.must(os.Chmod(m.path("locked"), 0o000))
	m.must(os.Chmod(m.path("shared"), 0o775|os.ModeSetgid|os.ModeSticky))
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// acl is an ACL that lets user 1234 read, as the kernel's xattr has it.
func acl(owner uint16) []byte {
	b := le32(2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, 1<<32 - 1}, {2, 4, 1234}, {4, 4, 1<<32 - 1}, {16, 4, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = append(b, le32(e.id)...)
	}
	return b
}

// times gives all, folders after what is in them, a time of its own.
func (m maker) times(w Without) {
	var paths []string
	m.must(filepath.WalkDir(m.dir, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	base := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC).Unix()
	for i, path := range slices.Backward(paths) {
		ts := unix.Timespec{Sec: base + int64(i)*3600, Nsec: 987654321}
		if w.Nanoseconds {
			ts.Nsec = 0
		}
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
