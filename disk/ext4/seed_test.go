package ext4_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seeds are the small images in testdata from which damage and fuzzing start.
// The kernel wrote them.
var seeds = []struct {
	name  string
	size  int64
	dirty bool // has a journal to replay
	mkfs  []string
}{
	{"csum", 512 << 10, false, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-O", "metadata_csum,inline_data,^has_journal,^resize_inode"}},
	{"plain", 512 << 10, false, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-O", "^metadata_csum,64bit,^has_journal,^resize_inode"}},
	{"inline", 512 << 10, false, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-O", "^metadata_csum,uninit_bg,inline_data,^has_journal,^resize_inode"}},
	{"map", 512 << 10, false, []string{"-t", "ext2", "-b", "1024", "-N", "96", "-I", "128"}},
	{"ea-inode", 512 << 10, false, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-O", "ea_inode,^has_journal,^resize_inode"}},
	{"journal-clean", 3 << 20, false, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-J", "size=1", "-O", "^resize_inode"}},
	{"journal-csum", 3 << 20, true, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-J", "size=1", "-O", "^resize_inode"}},
	{"journal-fast", 3 << 20, true, []string{"-t", "ext4", "-b", "1024", "-N", "96", "-J", "size=1", "-O", "^resize_inode,fast_commit"}},
	{"journal-plain", 3 << 20, true, []string{"-t", "ext3", "-b", "1024", "-N", "96", "-J", "size=1", "-O", "^resize_inode"}},
}

// TestSeeds fails if a seed is missing, does not load, or does not hold what
// the tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, s.size, s.dirty, s.mkfs)
			}
			fs, err := ext4.Open(disktest.LoadSeed(t, s.name), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := disktest.ReadTree(t, fs)
			n, fast := fs.Replayed()
			if n > 0 != s.dirty || fast > 0 != (s.name == "journal-fast") {
				t.Errorf("%d transactions, %d fast commits replayed", n, fast)
			}
			for path, want := range map[string]func(disktest.Node) bool{
				"/large":          func(n disktest.Node) bool { return n.Size > 2048 },
				"/large/hardlink": func(n disktest.Node) bool { return n.Links == 41 },
				"/holes":          func(n disktest.Node) bool { return strings.Count(n.Data, "-") >= 6 },
				"/symlink":        func(n disktest.Node) bool { return len(n.Target) == 200 },
				"/xattrs":         func(n disktest.Node) bool { return strings.Count(n.Xattrs, "=") >= 3 },
				"/device":         func(n disktest.Node) bool { return n.Rdev == "300:70000" },
			} {
				if n, ok := all[path]; !ok || !want(n) {
					t.Errorf("%s: %+v", path, n)
				}
			}
		})
	}
}

func writeSeed(t *testing.T, name string, size int64, dirty bool, mkfs []string) {
	path := makeImage(t, size, mkfs...)
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	if dirty {
		unix.Sync()
	}
	writeSeedTree(t, dir)
	if name == "journal-fast" {
		writeFastCommits(t, dir)
		disktest.Crash(t, dir)
	} else if dirty {
		w := &disktest.CrashWriter{T: t, Dir: dir}
		w.Sync(dir + "/gone")
		if err := os.Remove(dir + "/gone"); err != nil {
			t.Fatal(err)
		}
		w.Sync(dir + "/synced")
		disktest.Crash(t, dir)
	}
	unmount()
	disktest.SaveSeed(t, name, path)
}

// holesBlocks are the blocks of the file "holes", each full of one letter, from
// 'a' on. They need all levels of a block map.
var holesBlocks = [...]int64{0, 2, 13, 14, 300, 400, 70_000, 70_002}

// writeSeedTree writes one of each structure, small.
func writeSeedTree(t *testing.T, dir string) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/a/b/c", 0o755))
	must(os.WriteFile(dir+"/a/small", []byte("small"), 0o644))
	must(os.WriteFile(dir+"/a/medium", []byte(strings.Repeat("medium", 500)), 0o644))
	must(os.Mkdir(dir+"/large", 0o755))
	must(os.WriteFile(dir+"/large/hardlink", []byte("many names"), 0o600))
	for i := range 40 { // a hash tree
		must(os.Link(dir+"/large/hardlink", fmt.Sprintf("%s/large/%02d%s", dir, i, strings.Repeat("n", 60))))
	}
	f, err := os.Create(dir + "/holes")
	must(err)
	for i, block := range holesBlocks {
		_, err := f.WriteAt(bytes.Repeat([]byte{'a' + byte(i)}, 1024), block*1024)
		must(err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 500*1024, 4096); err != nil && err != unix.EOPNOTSUPP {
		t.Fatal(err)
	}
	must(f.Sync())
	must(f.Close())
	must(os.Symlink("fast", dir+"/a/fast"))
	must(os.Symlink(strings.Repeat("s", 200), dir+"/symlink"))
	must(unix.Mknod(dir+"/device", unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70_000))))
	g := &disktest.Generator{T: t, Dir: dir}
	path := g.File("xattrs", []byte("x"))
	g.SetXattr(path, "user.small", []byte("v"))
	g.SetXattr(path, "user.large", []byte(strings.Repeat("value", 60)))
	g.SetXattr(path, "trusted.t", []byte("t"))
	g.SetXattr(path, "user.huge", []byte(strings.Repeat("value", 1200))) // where ea_inode has room for it
	g.ACLs()
}

// writeFastCommits makes three fast commits out of all kinds of tags.
func writeFastCommits(t *testing.T, dir string) {
	w := &disktest.CrashWriter{T: t, Dir: dir}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Settle()
	w.Sync(dir + "/synced")
	must(os.Link(dir+"/a/small", dir+"/a/linked"))
	must(os.Rename(dir+"/a/medium", dir+"/a/b/renamed"))
	w.Sync(dir + "/synced")
	must(os.MkdirAll(dir+"/new/deep", 0o700))
	w.Sync(dir + "/new/deep/file")
	f, err := os.OpenFile(dir+"/a/b/renamed", os.O_RDWR, 0)
	must(err)
	defer f.Close()
	must(f.Truncate(1024))
	_, err = f.WriteAt([]byte("behind the end"), 100_000)
	must(err)
	must(f.Sync())
}
