package btrfs_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seedSize is that of the images in testdata: what mkfs.btrfs asks for at least,
// and what a place in a fuzz input can reach.
const seedSize = 16 << 20

// seeds are the small images in testdata from which damage and fuzzing start.
// The kernel wrote them.
var seeds = []struct {
	name  string
	dirty bool // has a log to replay
	mkfs  []string
}{
	{"mixed", false, []string{"-M", "-n", "4096", "-m", "single", "-d", "single"}},
	{"xxhash", false, []string{"-M", "-n", "4096", "-m", "single", "-d", "single", "--csum", "xxhash", "-O", "^no-holes"}},
	{"log", true, []string{"-M", "-n", "4096", "-m", "single", "-d", "single", "-O", "^no-holes"}},
}

// TestSeeds fails if a seed is missing, does not load, or does not hold what
// the tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, s.dirty, s.mkfs, "")
			}
			fs := openSeed(t, s.name, btrfs.Options{})
			all := disktest.ReadTree(t, fs)
			if dirty := fs.Replayed() > 0; dirty != s.dirty {
				t.Errorf("%d files replayed", fs.Replayed())
			}
			for path, want := range map[string]func(disktest.Node) bool{
				"/large":          func(n disktest.Node) bool { return n.Size > 2048 },
				"/large/hardlink": func(n disktest.Node) bool { return n.Links == 41 },
				"/holes":          func(n disktest.Node) bool { return strings.Count(n.Data, "-") == len(holesBlocks) },
				"/symlink":        func(n disktest.Node) bool { return len(n.Target) == 200 },
				"/xattrs":         func(n disktest.Node) bool { return strings.Count(n.Xattrs, "=") >= 3 },
				"/device":         func(n disktest.Node) bool { return n.Rdev == "300:70000" },
				"/sub/file":       func(n disktest.Node) bool { return n.Size == 13 },
				"/snapshot/file":  func(n disktest.Node) bool { return n.Size == 13 },
				"/snapshot/below": func(n disktest.Node) bool { return n.Mode == unix.S_IFDIR|0o755 },
				"/zlib":           func(n disktest.Node) bool { return n.Size == 20_000 },
				"/lzo":            func(n disktest.Node) bool { return n.Size == 20_000 },
				"/zstd":           func(n disktest.Node) bool { return n.Size == 20_000 },
			} {
				if n, ok := all[path]; !ok || !want(n) {
					t.Errorf("%s: %+v", path, n)
				}
			}
			if _, renamed := all["/a/renamed"]; renamed != s.dirty {
				t.Error("the log says nothing of the renamed file")
			}
		})
	}
}

func openSeed(t testing.TB, name string, opts btrfs.Options) *btrfs.Filesystem {
	t.Helper()
	fs, err := btrfs.Open(openMany(disktest.LoadSeed(t, name)), opts)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// writeSeed makes a seed. With tune, btrfstune is run with that in the end.
func writeSeed(t *testing.T, name string, dirty bool, mkfs []string, tune string) {
	paths := makeImages(t, 1, seedSize, mkfs...)
	dir, unmount := mount(t, paths, "max_inline=2048,commit=300,nodiscard")
	writeSeedTree(t, dir)
	image := paths[0]
	if dirty {
		c := &crash{t: t, dir: dir}
		w := &disktest.CrashWriter{T: t, Dir: dir}
		w.Settle()
		c.write("a/new", strings.Repeat("new", 3000))
		c.writeAt("holes", "log", 4*4096+7)
		c.must(os.Rename(c.path("a/small"), c.path("a/renamed")))
		c.must(os.Remove(c.path("a/gone")))
		c.must(unix.Lsetxattr(c.path("xattrs"), "user.log", []byte("v"), 0))
		for _, name := range []string{"a/new", "holes", "xattrs", "a"} {
			c.sync(name)
		}
		image = disktest.CopyImage(t, image)
	}
	unmount()
	if tune != "" {
		disktest.Run(t, "btrfstune", tune, image)
	}
	disktest.SaveSeed(t, name, image)
}

// holesBlocks are the blocks of the file "holes", each full of one letter, from
// 'a' on.
var holesBlocks = [...]int64{0, 2, 4, 14, 70_000, 70_002}

// writeSeedTree writes one of each structure, small.
func writeSeedTree(t *testing.T, dir string) {
	c := &crash{t: t, dir: dir}
	c.must(os.MkdirAll(dir+"/a/b/c", 0o755))
	c.write("a/small", "small")
	c.write("a/gone", "soon")
	c.write("a/medium", strings.Repeat("medium", 500))
	c.must(os.Mkdir(dir+"/large", 0o755))
	c.write("large/hardlink", "many names")
	for i := range 40 {
		c.must(os.Link(dir+"/large/hardlink", fmt.Sprintf("%s/large/%02d%s", dir, i, strings.Repeat("n", 60))))
	}
	c.write("holes", "")
	for i, block := range holesBlocks {
		c.writeAt("holes", string(bytes.Repeat([]byte{'a' + byte(i)}, 4096)), block*4096)
	}
	c.fallocate("holes", 0, 500*4096, 4096)
	c.sync("holes")
	c.must(os.Symlink(strings.Repeat("s", 200), dir+"/symlink"))
	c.must(unix.Mknod(dir+"/device", unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70_000))))
	g := &disktest.Generator{T: t, Dir: dir}
	path := g.File("xattrs", []byte("x"))
	g.SetXattr(path, "user.small", []byte("v"))
	g.SetXattr(path, "user.large", []byte(strings.Repeat("value", 60)))
	g.SetXattr(path, "trusted.t", []byte("t"))
	g.ACLs()
	for _, name := range []string{"zlib", "lzo", "zstd"} {
		c.write(name, "")
		disktest.Run(t, "btrfs", "property", "set", dir+"/"+name, "compression", name)
		c.writeAt(name, strings.Repeat("text", 5000), 0)
		c.sync(name)
		inline := name + "-inline"
		c.write(inline, "")
		disktest.Run(t, "btrfs", "property", "set", dir+"/"+inline, "compression", name)
		c.writeAt(inline, strings.Repeat("i", 1000), 0)
	}
	disktest.Run(t, "btrfs", "subvolume", "create", dir+"/sub")
	c.write("sub/file", "in subvolume\n")
	disktest.Run(t, "btrfs", "subvolume", "create", dir+"/sub/below")
	disktest.Run(t, "btrfs", "subvolume", "snapshot", "-r", dir+"/sub", dir+"/snapshot")
}
