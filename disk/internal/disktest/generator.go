package disktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Generator writes a tree of everything that a filesystem can hold.
type Generator struct {
	T    testing.TB
	Dir  string
	Rand *rand.ChaCha8

	BlockSize int  // bytes
	ManyFiles int  // entries of the large directory
	BigXattrs bool // values larger than a block

	MaxSymlink   int  // bytes; 0 means all that Linux allows
	SmallDevices bool // numbers of at most 9 and 18 bits
}

func (g *Generator) path(name string) string { return filepath.Join(g.Dir, name) }

func (g *Generator) must(err error) {
	g.T.Helper()
	if err != nil {
		g.T.Fatal(err)
	}
}

func (g *Generator) bytes(n int) []byte {
	p := make([]byte, n)
	g.Rand.Read(p)
	return p
}

// File writes a file and returns its path.
func (g *Generator) File(name string, content []byte) string {
	g.T.Helper()
	g.must(os.WriteFile(g.path(name), content, 0o644))
	return g.path(name)
}

// WriteAll writes all of it.
func (g *Generator) WriteAll() {
	g.T.Helper()
	g.files()
	g.sparseFiles()
	g.symlinks()
	g.names()
	g.special()
	g.times()
	g.xattrs()
	g.ACLs()
	g.directories()
}

func (g *Generator) files() {
	for _, size := range []int{0, 1, 59, 60, 61, 100, 159, 160, 161, 511, 1023, 1024, 1025, 4095, 4096, 4097, 65536, 300_000, 3_000_000} {
		g.File(fmt.Sprintf("size-%d", size), g.bytes(size))
	}
	g.must(os.Link(g.path("size-100"), g.path("hardlink")))
	g.must(os.Truncate(g.File("shrunk", g.bytes(50_000)), 17))
	g.must(os.Truncate(g.File("extended", g.bytes(30)), 100_000))
	g.must(os.Chmod(g.File("setuid", []byte("#!")), 0o755|os.ModeSetuid|os.ModeSetgid))
	g.must(os.Chown(g.File("owned", nil), 0x12345678, 0x7fedcba9))
	// Pieces of two files by turns: many extents, or a block map full of jumps.
	a, err := os.Create(g.path("fragmented-a"))
	g.must(err)
	defer a.Close()
	b, err := os.Create(g.path("fragmented-b"))
	g.must(err)
	defer b.Close()
	for range 10 {
		for _, f := range []*os.File{a, b} {
			_, err := f.Write(g.bytes(g.BlockSize))
			g.must(err)
			g.must(f.Sync())
		}
	}
}

func (g *Generator) sparseFiles() {
	write := func(name string, size int64, at ...int64) *os.File {
		f, err := os.Create(g.path(name))
		g.must(err)
		for _, off := range at {
			_, err := f.WriteAt(g.bytes(g.BlockSize), off)
			g.must(err)
		}
		g.must(f.Truncate(size))
		return f
	}
	bs := int64(g.BlockSize)
	write("hole-only", 10_000_000).Close()
	write("hole-first", 1_000_000, 100*bs).Close()
	write("hole-last", 5_000_000, 0).Close()
	write("hole-unaligned", 1_234_567, 3, 777_777).Close()
	// Each level of a block map, and past 4 GiB.
	write("holes-far", 6<<30+17, 5*bs, 13*bs, 300*bs, 70_000*bs, 5<<30/bs*bs).Close()
	if f, err := os.Create(g.path("holes-many")); err != nil {
		g.T.Fatal(err)
	} else {
		for i := range int64(1500) { // more extents than one Node holds
			_, err := f.WriteAt(g.bytes(100), i*3*bs)
			g.must(err)
		}
		f.Close()
	}
	f := write("unwritten", 40*bs, 2*bs)
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 10*bs, 20*bs); !errors.Is(err, unix.EOPNOTSUPP) {
		g.must(err)
		_, err := f.WriteAt(g.bytes(int(bs)), 15*bs)
		g.must(err)
		// Preallocated behind the end of the file.
		g.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 50*bs, 5*bs))
	}
}

func (g *Generator) symlinks() {
	for _, n := range []int{1, 58, 59, 60, 61, 100, 150, 160, g.BlockSize - 2, g.BlockSize - 1} {
		n = min(n, 4095) // PATH_MAX
		if g.MaxSymlink > 0 {
			n = min(n, g.MaxSymlink)
		}
		err := os.Symlink(strings.Repeat("t", n-1)+"\xff", g.path(fmt.Sprintf("symlink-%d", n)))
		if !errors.Is(err, os.ErrExist) {
			g.must(err)
		}
	}
}

func (g *Generator) names() {
	g.must(os.Mkdir(g.path("names"), 0o700))
	for _, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("\xff", 255), "\x01\x1b[31m", "not\xff\xfeutf8", " ", "-rf",
		"...", "new\nline", "back\\slash", "ünïcödé", "a",
	} {
		g.File("names/"+name, []byte(name))
	}
}

func (g *Generator) special() {
	for _, dev := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"fifo", unix.S_IFIFO, 0, 0},
		{"socket", unix.S_IFSOCK, 0, 0},
		{"char-small", unix.S_IFCHR, 1, 3},
		{"char-medium", unix.S_IFCHR, 511, 262143},
		{"char-large", unix.S_IFCHR, 4095, 1048575},
		{"block-small", unix.S_IFBLK, 255, 255},
		{"block-minor", unix.S_IFBLK, 8, 256},
		{"block-major", unix.S_IFBLK, 256, 1},
	} {
		if g.SmallDevices && (dev.major >= 1<<9 || dev.minor >= 1<<18) {
			continue
		}
		g.must(unix.Mknod(g.path(dev.name), dev.mode|0o640, int(unix.Mkdev(dev.major, dev.minor))))
	}
}

func (g *Generator) times() {
	for _, at := range []unix.Timespec{
		{Sec: 0, Nsec: 0}, {Sec: -1, Nsec: 999_999_999}, {Sec: -2_147_483_648, Nsec: 1}, {Sec: 2_147_483_647, Nsec: 123_456_789},
		{Sec: 2_147_483_648, Nsec: 5}, {Sec: 4_294_967_296, Nsec: 6}, {Sec: 6_442_450_943, Nsec: 7}, {Sec: 15_032_385_535, Nsec: 8},
	} {
		path := g.File(fmt.Sprintf("time%d", at.Sec), nil)
		g.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// SetXattr sets an attribute, unless there is no room for it.
func (g *Generator) SetXattr(path, name string, value []byte) {
	g.T.Helper()
	err := unix.Lsetxattr(path, name, value, 0)
	if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.E2BIG) && !errors.Is(err, unix.ERANGE) {
		g.T.Fatalf("set %s of %s: %v", name, path, err)
	}
}

func (g *Generator) xattrs() {
	path := g.File("xattrs", []byte("content"))
	g.SetXattr(path, "user.empty", nil)
	g.SetXattr(path, "user.small", []byte("value"))
	g.SetXattr(path, "user.\xff\x01", g.bytes(3))
	g.SetXattr(path, "user."+strings.Repeat("x", 200), g.bytes(50))
	g.SetXattr(path, "trusted.t", g.bytes(20))
	g.SetXattr(path, "security.selinux", []byte("system_u:object_r:etc_t:s0\x00"))
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	g.SetXattr(g.File("capability", []byte("x")), "security.capability", capability)
	for i := range 5 { // equal blocks, which ext4 shares
		path := g.File(fmt.Sprintf("xattrs-shared-%d", i), nil)
		g.SetXattr(path, "user.shared", []byte(strings.Repeat("s", 300)))
		g.SetXattr(path, "user.other", []byte(strings.Repeat("o", 200)))
	}
	dir := g.path("xattrs-dir")
	g.must(os.Mkdir(dir, 0o755))
	g.SetXattr(dir, "trusted.overlay.opaque", []byte("y"))
	for _, n := range []int{1, 70} { // a symlink with attributes, in the inode or not
		link := g.path(fmt.Sprintf("xattrs-symlink-%d", n))
		g.must(os.Symlink(strings.Repeat("l", n), link))
		g.SetXattr(link, "trusted.s", g.bytes(250))
	}
	if g.BigXattrs {
		path := g.File("xattrs-big", nil)
		g.SetXattr(path, "user.big", g.bytes(65_536))
		g.SetXattr(path, "user.medium", g.bytes(3*g.BlockSize))
		again := g.File("xattrs-big-again", nil)
		value := g.bytes(20_000)
		g.SetXattr(path, "user.same", value)
		g.SetXattr(again, "user.same", value)
		g.SetXattr(g.path("symlink-59"), "trusted.big", g.bytes(30_000))
	}
}

// ACLs makes files with ACLs, set ACLs as setxattr(2) takes them.
func (g *Generator) ACLs() {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 5, 1000}, {2, 1, 0xfffffffe}, {4, 5, ^uint32(0)}, {8, 4, 70000}, {0x10, 7, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	g.SetXattr(g.File("acl", nil), "system.posix_acl_access", acl)
	dir := g.path("acl-dir")
	g.must(os.Mkdir(dir, 0o750))
	g.SetXattr(dir, "system.posix_acl_access", acl)
	g.SetXattr(dir, "system.posix_acl_default", acl)
	g.File("acl-dir/inherits", nil)
}

// directories makes an empty one, small ones (which inline_data keeps in the
// inode), deep ones, one that shrank, and one of many entries.
func (g *Generator) directories() {
	g.must(os.MkdirAll(g.path("deep/"+strings.Repeat("d/", 20)), 0o755))
	for _, n := range []int{0, 1, 3, 6, 10, 20} {
		dir := fmt.Sprintf("dir-%d", n)
		g.must(os.Mkdir(g.path(dir), 0o755|os.ModeSticky))
		for i := range n {
			g.File(fmt.Sprintf("%s/entry-%d", dir, i), nil)
		}
	}
	many := g.path("many")
	g.must(os.Mkdir(many, 0o755))
	first := g.File("many/file", []byte("many links"))
	for i := range g.ManyFiles {
		g.must(os.Link(first, filepath.Join(many, fmt.Sprintf("a name of some length, number %d", i))))
	}
	shrank := g.path("shrank")
	g.must(os.Mkdir(shrank, 0o755))
	for i := range 500 {
		g.must(os.Mkdir(filepath.Join(shrank, fmt.Sprintf("directory-%d", i)), 0o711))
	}
	for i := range 500 {
		if i%7 != 0 {
			g.must(os.Remove(filepath.Join(shrank, fmt.Sprintf("directory-%d", i))))
		}
	}
}
