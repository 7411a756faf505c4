package xfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// profiles are the filesystems that the kernel can write and judge.
var profiles = []struct {
	name  string
	block int
	size  int64
	mkfs  []string
	more  uint32 // features
}{
	{"debian", 4096, 320 << 20, nil, 0},
	{"1k", 1024, 320 << 20, []string{"-b", "size=1024"}, 0},
	{"2k-sector-512", 2048, 320 << 20, []string{"-b", "size=2048", "-s", "size=512"}, 0},
	{"sector-4096", 4096, 320 << 20, []string{"-s", "size=4096"}, 0},
	{"dir-64k", 4096, 320 << 20, []string{"-n", "size=65536"}, 0},
	{"1k-dir-8k", 1024, 320 << 20, []string{"-b", "size=1024", "-n", "size=8192"}, 0},
	{"inode-2k", 4096, 320 << 20, []string{"-i", "size=2048"}, 0},
	{"16k", 16384, 512 << 20, []string{"-b", "size=16384", "-m", "rmapbt=1"}, 0},
	{"64k", 65536, 1 << 30, []string{"-b", "size=65536"}, 0},
	{"plain", 4096, 320 << 20, []string{"-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,nrext64=0"}, 0},
	{"rmapbt-nrext64", 4096, 320 << 20, []string{"-m", "rmapbt=1,reflink=1", "-i", "nrext64=1"}, 0},
	{"parent-exchange", 4096, 320 << 20, []string{"-s", "size=512", "-i", "nrext64=1"}, parentPointers | exchangeRange},
}

// TestKernel compares with the kernel all that can be seen of a tree of
// everything, over features and block sizes.
func TestKernel(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for the disk
			path := makeImage(t, p.size, append([]string{"-L", "a label"}, p.mkfs...)...)
			addFeatures(t, path, p.more)
			dir, unmount := disktest.Mount(t, path, "xfs", "rw")
			g := &disktest.Generator{
				T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{1}), BlockSize: p.block, ManyFiles: 6000, BigXattrs: true,
				MaxSymlink: 1023, SmallDevices: true,
			}
			g.WriteAll()
			unmount()

			compareClean(t, path)
			fs := openFilesystem(t, path)
			info := fs.Info()
			if info.Type != "xfs" || string(info.Label) != "a label" || info.BlockSize != int64(p.block) || info.Size > p.size || info.Size < p.size-64<<10 {
				t.Errorf("info is %+v", info)
			}
			if fs.Replayed() != 0 {
				t.Errorf("%d transactions replayed after a clean unmount", fs.Replayed())
			}
			if known, err := xfs.Recognise(disktest.OpenImage(t, path)); !known || err != nil {
				t.Errorf("not recognised: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSparseInodes fragments what is free, so that the kernel has no room for 64
// inodes in one piece.
func TestSparseInodes(t *testing.T) {
	path := makeImage(t, 64<<20, "-d", "agcount=1")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	fragment(t, dir, 16<<10, 64<<10)
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("empty-%d", i)), nil, 0o600); err != nil {
			break
		}
	}
	unmount()
	if tree := disktest.Run(t, "xfs_db", "-c", "agi 0", "-c", "addr root", "-c", "print", path); !strings.Contains(string(tree), ",0xff") {
		t.Errorf("no chunk of inodes is sparse:\n%s", tree)
	}
	compareClean(t, path)
}

// fragment fills a filesystem, and makes holes of a size in each so many bytes of
// that.
func fragment(t *testing.T, dir string, hole, every int64) {
	t.Helper()
	disktest.Run(t, "xfs_io", "-x", "-c", "resblks 0", dir) // all may be used
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for step := int64(1 << 20); step >= 4096; step /= 2 { // until the disk is full
		for unix.Fallocate(int(f.Fd()), 0, size, step) == nil {
			size += step
		}
	}
	for off := int64(0); off < size; off += every {
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, hole); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFragmentedDirectory has blocks of a directory in many pieces, on the disk
// and in the log.
func TestFragmentedDirectory(t *testing.T) {
	path := makeImage(t, 64<<20, "-d", "agcount=1", "-n", "size=65536")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	fragment(t, dir, 4<<10, 8<<10)
	for _, name := range []string{"first", "second"} {
		many := filepath.Join(dir, name)
		if err := os.Mkdir(many, 0o755); err != nil {
			t.Fatal(err)
		}
		g := &disktest.Generator{T: t, Dir: many}
		first := g.File("file", nil)
		for i := range 8000 {
			if err := os.Link(first, filepath.Join(many, fmt.Sprintf("a name of some length, number %d", i))); err != nil {
				t.Fatal(err)
			}
		}
		w := &disktest.CrashWriter{T: t, Dir: dir}
		w.Sync(filepath.Join(dir, "synced"))
		if name == "first" {
			unmount()
			compareClean(t, path)
			pieces := 0
			out := disktest.Run(t, "xfs_db", "-c", "path /first", "-c", "print core.nextents", path)
			if _, err := fmt.Sscanf(string(out), "core.nextents = %d", &pieces); err != nil || pieces < 40 {
				t.Errorf("the directory has %d pieces: %v", pieces, err)
			}
			dir, unmount = disktest.Mount(t, path, "xfs", "noatime")
		}
	}
	// The kernel of the test's host cannot replay this: it takes each piece for a
	// block of its own. What it shows before the crash is the truth.
	want := disktest.KernelTree(t, dir)
	disktest.Crash(t, dir)
	unmount()
	fs := openFilesystem(t, path)
	if fs.Replayed() == 0 {
		t.Error("nothing was replayed")
	}
	disktest.CompareTrees(t, want, disktest.ReadTree(t, fs))
}

// TestManyXattrs gives a file so many attributes that their extents need a
// B+tree.
func TestManyXattrs(t *testing.T) {
	path := makeImage(t, 320<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	g := &disktest.Generator{T: t, Dir: dir}
	a, b := g.File("a", nil), g.File("b", nil)
	for i := range 300 { // by turns, so that their blocks are not together
		g.SetXattr(a, fmt.Sprintf("user.a-%d", i), bytes.Repeat([]byte{byte(i)}, 3000+i))
		g.SetXattr(b, fmt.Sprintf("user.b-%d", i), bytes.Repeat([]byte{byte(i)}, 4000+i))
	}
	unmount()
	if format := disktest.Run(t, "xfs_db", "-c", "path /a", "-c", "print core.aformat", path); !strings.Contains(string(format), "btree") {
		t.Errorf("the attributes' %s", format)
	}
	compareClean(t, path)
}

// compareClean compares a filesystem that was unmounted with what the kernel sees.
func compareClean(t *testing.T, path string) {
	t.Helper()
	fs := openFilesystem(t, path)
	disktest.CompareWithKernel(t, path, "xfs", fs)
	disktest.CheckLocations(t, disktest.OpenImage(t, path), fs)
	disktest.CheckReadsUsed(t, path, openUncached)
}

// TestFlags compares what chattr(1) sets.
func TestFlags(t *testing.T) {
	path := makeImage(t, 64<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	flags := map[string]disk.InodeFlags{"i": disk.FlagImmutable, "a": disk.FlagAppend, "d": disk.FlagNoDump, "A": 0}
	for name := range flags {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "chattr", "+"+name, filepath.Join(dir, name))
	}
	unmount()
	fs := openFilesystem(t, path)
	for name, want := range flags {
		n, err := fs.Inode(disktest.Lookup(t, fs, name))
		if err != nil || n.Flags != want {
			t.Errorf("chattr +%s gives flags %#x, %v", name, n.Flags, err)
		}
	}
}

// TestOldInode reads an inode as the first versions of XFS wrote it: no kernel of
// today does.
func TestOldInode(t *testing.T) {
	m := disktest.LoadSeed(t, "v4-1k")
	ino := disktest.Lookup(t, openSeed(t, "v4-1k", xfs.Options{}), "a/small")
	raw := make([]byte, 512)
	if _, err := m.ReadAt(raw, int64(ino)*512); err != nil {
		t.Fatal(err)
	}
	raw[4] = 1                // version
	copy(raw[6:], "\x00\x07") // links
	clear(raw[16:20])         // where version 2 has them
	fs, err := xfs.Open(disktest.Patched{Image: m, Off: int64(ino) * 512, Data: raw}, xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := fs.Inode(ino); err != nil || n.Links != 7 {
		t.Errorf("%d links, %v", n.Links, err)
	}
}
