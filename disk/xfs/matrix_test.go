package xfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// choices are what mkfs.xfs lets one choose, apart from the size of blocks.
var choices = [][]string{
	{"-s size=512", "-s size=1024", "-s size=4096"},
	{"-i size=512", "-i size=1024", "-i size=2048"},
	{"-i nrext64=0", "-i nrext64=1"},
	{"-i sparse=0", "-i sparse=1"},
	{"-i align=0,sparse=0", ""},
	{"-i maxpct=0", "-i maxpct=90", ""},
	{"-m bigtime=0", "-m bigtime=1"},
	{"-m finobt=0,inobtcount=0", "-m finobt=1,inobtcount=0", "-m finobt=1,inobtcount=1"},
	{"-m reflink=0", "-m reflink=1"},
	{"-m rmapbt=0", "-m rmapbt=1"},
	{"-n size=4096", "-n size=16384", "-n size=65536"},
	{"-d agcount=1", "-d agcount=2", "-d agcount=3"},
	{"-d su=64k,sw=4", "-d noalign", ""},
	{"-l lazy-count=1", "-l su=256k", "-l sunit=8"},
	{"-l size=32m", "-l size=40m"}, // in a smaller one, Linux can wait for room forever
	{"-l agnum=0", "-l internal=1"},
}

// TestMatrix compares with the kernel a tree of everything over combinations of
// what mkfs.xfs can do: always the same few, or many with -thorough. Those that
// mkfs.xfs refuses do not count.
func TestMatrix(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	count := 6
	if *thorough {
		count = 150
	}
	for made := 0; made < count; {
		block := 1024 << random.IntN(3)
		options := []string{"-b", fmt.Sprintf("size=%d", block)}
		for _, c := range choices {
			options = append(options, strings.Fields(c[random.IntN(len(c))])...)
		}
		path := disktest.EmptyImage(t, 160<<20)
		if err := exec.Command("mkfs.xfs", append(append([]string{"-q", "-f", "--unsupported"}, options...), path)...).Run(); err != nil {
			continue
		}
		made++
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			dir, unmount := disktest.Mount(t, path, "xfs", "rw")
			g := &disktest.Generator{
				T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{byte(made)}), BlockSize: block, ManyFiles: 700, BigXattrs: true,
				MaxSymlink: 1023, SmallDevices: true,
			}
			g.WriteAll()
			unmount()
			compareClean(t, path)
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLengths has symlinks of all lengths, directories of all small sizes, and
// attributes with names and values around what fits where: in the inode, in a block,
// in several.
func TestLengths(t *testing.T) {
	for _, options := range [][]string{{"-b", "size=1024", "-n", "size=4096"}, {"-i", "size=2048"}} {
		path := makeImage(t, 160<<20, options...)
		dir, unmount := disktest.Mount(t, path, "xfs", "rw")
		for n := 1; n <= 1023; n++ {
			if err := os.Symlink(strings.Repeat("t", n), fmt.Sprintf("%s/symlink-%d", dir, n)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 70 {
			sub := fmt.Sprintf("%s/directory-%d", dir, n)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if err := os.Mkdir(fmt.Sprintf("%s/%d", sub, i), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		g := &disktest.Generator{T: t, Dir: dir}
		for n := range 130 {
			file := g.File(fmt.Sprintf("xattr-%d", n), nil)
			g.SetXattr(file, "user."+strings.Repeat("n", 1+n), bytes.Repeat([]byte("v"), n*n))
			g.SetXattr(file, "trusted.second", bytes.Repeat([]byte("w"), 2*n))
		}
		unmount()
		compareClean(t, path)
	}
}

// TestLargeDirectory has directories whose index has levels, of blocks as small as
// they can be, with and without what was removed in between.
func TestLargeDirectory(t *testing.T) {
	path := makeImage(t, 160<<20, "-b", "size=1024", "-n", "size=4096")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	for _, name := range []string{"full", "thin"} {
		many := filepath.Join(dir, name)
		if err := os.Mkdir(many, 0o755); err != nil {
			t.Fatal(err)
		}
		g := &disktest.Generator{T: t, Dir: many}
		first := g.File("file", nil)
		const count = 20_000
		for i := range count {
			if err := os.Link(first, fmt.Sprintf("%s/%d-%s", many, i, strings.Repeat("n", i%30))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range count {
			if name == "thin" && i%250 != 0 { // whole blocks become holes
				if err := os.Remove(fmt.Sprintf("%s/%d-%s", many, i, strings.Repeat("n", i%30))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	unmount()
	compareClean(t, path)
}

// TestSparseFile has files of a tebibyte and more with little in them.
func TestSparseFile(t *testing.T) {
	path := makeImage(t, 160<<20, "-b", "size=1024")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	for name, places := range map[string][]int64{
		"empty": {}, "first": {0}, "middle": {1 << 39}, "last": {1<<40 - 5}, "several": {4096, 1 << 33, 1<<40 + 1<<20, 1 << 42},
		"behind": {1<<62 - 1024},
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 40); err != nil {
			t.Fatal(err)
		}
		for _, at := range places {
			if _, err := f.WriteAt([]byte("data"), at); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	unmount()
	compareClean(t, path)
}

// TestRealtimeDevice has a realtime device that is not there: an administrator is
// told, and its bitmap and summary are no files. (The kernel of the test's host has no
// such devices, so that no file lies on it: see [TestRealtime].)
func TestRealtimeDevice(t *testing.T) {
	source := t.TempDir()
	proto := writePrototype(t, source, 1, 150)
	path, realtime := disktest.EmptyImage(t, 300<<20), disktest.EmptyImage(t, 64<<20)
	disktest.Run(t, "mkfs.xfs", "-q", "-f", "--unsupported", "-m", "reflink=0,rmapbt=0", "-r", "rtdev="+realtime, "-p", proto, path)
	fs := openFilesystem(t, path)
	want := disktest.WithoutPlace(disktest.KernelTree(t, source))
	disktest.CompareTrees(t, want, disktest.WithoutPlace(disktest.ReadTree(t, fs)))
	if remarks := strings.Join(fs.Info().Remarks, " "); !strings.Contains(remarks, "realtime device") {
		t.Errorf("the remarks are %q", remarks)
	}
	for _, field := range []string{"rbmino", "rsumino"} {
		var ino uint64
		out := disktest.Run(t, "xfs_db", "-c", "sb 0", "-c", "print "+field, path)
		if _, err := fmt.Sscanf(string(out), field+" = %d", &ino); err != nil || ino == 0 {
			t.Fatalf("%s: %v", out, err)
		}
		if _, err := fs.Inode(ino); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := fs.Used(0, func(int64, int64) error { return nil }); err != nil {
		t.Error(err)
	}
}
