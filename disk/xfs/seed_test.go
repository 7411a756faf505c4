package xfs_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seeds are the small images in testdata from which damage and fuzzing start.
// The kernel wrote those of version 5, mkfs.xfs and xfs_db those of version 4.
var seeds = []struct {
	name    string
	version int
	dirty   bool // has a log to replay
	mkfs    []string
}{
	{"v5-1k", 5, false, []string{"-b", "size=1024"}},
	{"v5-4k", 5, false, []string{"-b", "size=4096", "-m", "rmapbt=1", "-i", "nrext64=1"}},
	{"v5-dirty", 5, true, []string{"-b", "size=1024"}},
	{"v4-1k", 4, false, []string{"-m", "crc=0", "-b", "size=1024", "-i", "size=512"}},
}

const seedSize = 16 << 20 // the least that mkfs.xfs makes

// TestSeeds fails if a seed is missing, does not load, or does not hold what
// the tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				if s.version == 4 {
					writeSeed4(t, s.name, s.mkfs)
				} else {
					writeSeed5(t, s.name, s.dirty, s.mkfs)
				}
			}
			fs, err := xfs.Open(disktest.LoadSeed(t, s.name), xfs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := disktest.ReadTree(t, fs)
			if dirty := fs.Replayed() > 0; dirty != s.dirty {
				t.Errorf("%d transactions replayed", fs.Replayed())
			}
			for path, want := range map[string]func(disktest.Node) bool{
				"/large":         func(n disktest.Node) bool { return n.Size >= 4096 },
				"/large/first":   func(n disktest.Node) bool { return s.dirty || n.Size > 0 },
				"/holes":         func(n disktest.Node) bool { return s.version == 4 || strings.Count(n.Data, "-") >= 8 },
				"/symlink":       func(n disktest.Node) bool { return len(n.Target) == 900 },
				"/a/short":       func(n disktest.Node) bool { return n.Target == "short" },
				"/xattrs":        func(n disktest.Node) bool { return strings.Count(n.Xattrs, "=") >= 4 },
				"/xattrs-many":   func(n disktest.Node) bool { return s.version == 4 || strings.Count(n.Xattrs, "=") >= 30 },
				"/xattrs-remote": func(n disktest.Node) bool { return strings.Contains(n.Xattrs, "bytes") },
				"/device":        func(n disktest.Node) bool { return n.Rdev == "300:70000" },
			} {
				if n, ok := all[path]; !ok || !want(n) {
					t.Errorf("%s: %+v", path, n)
				}
			}
		})
	}
}

func writeSeed5(t *testing.T, name string, dirty bool, mkfs []string) {
	path := makeImage(t, seedSize, append([]string{"-d", "agcount=1"}, mkfs...)...)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	if dirty {
		unix.Sync()
	}
	writeSeedTree(t, dir)
	if dirty {
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
	must(os.Mkdir(dir+"/block", 0o755))
	must(os.Mkdir(dir+"/large", 0o755))
	must(os.WriteFile(dir+"/large/first", []byte("many names"), 0o600))
	for i := range 60 { // several blocks
		must(os.Link(dir+"/large/first", fmt.Sprintf("%s/large/%02d%s", dir, i, strings.Repeat("n", 100))))
		if i%5 == 0 {
			must(os.Link(dir+"/large/first", fmt.Sprintf("%s/block/%02d%s", dir, i, strings.Repeat("n", 100))))
		}
	}
	f, err := os.Create(dir + "/holes")
	must(err)
	for i := range int64(40) { // a B+tree
		_, err := f.WriteAt(bytes.Repeat([]byte{'a' + byte(i)}, 100), i*8192)
		must(err)
		if i%10 == 0 {
			must(f.Sync())
		}
	}
	must(unix.Fallocate(int(f.Fd()), 0, 500*1024, 8192))
	must(f.Sync())
	must(f.Close())
	must(os.Symlink("short", dir+"/a/short"))
	must(os.Symlink(strings.Repeat("s", 900), dir+"/symlink"))
	must(unix.Mknod(dir+"/device", unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70_000))))
	g := &disktest.Generator{T: t, Dir: dir}
	path := g.File("xattrs", []byte("x"))
	g.SetXattr(path, "user.small", []byte("v"))
	g.SetXattr(path, "user.other", []byte(strings.Repeat("value", 10)))
	g.SetXattr(path, "trusted.t", []byte("t"))
	g.SetXattr(path, "security.s", []byte("s"))
	path = g.File("xattrs-many", nil)
	for i := range 50 { // several leaves
		g.SetXattr(path, fmt.Sprintf("user.number-%d", i), []byte(strings.Repeat("v", 100+i)))
	}
	g.SetXattr(g.File("xattrs-remote", nil), "user.remote", []byte(strings.Repeat("value", 2000)))
	g.ACLs()
}

// writeSeed4 lets mkfs.xfs write the files, and xfs_db their attributes: no kernel
// of today mounts version 4.
func writeSeed4(t *testing.T, name string, mkfs []string) {
	small := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(small, []byte(strings.Repeat("content", 300)), 0o644); err != nil {
		t.Fatal(err)
	}
	var p strings.Builder
	fmt.Fprintf(&p, "/boot\n0 0\nd--755 0 0\na d--755 1 2\nsmall ---644 3 4 %s\nshort l--777 0 0 short\n$\n", small)
	fmt.Fprintf(&p, "symlink l--777 0 0 %s\ndevice b--600 0 0 300 70000\nholes ---600 0 0 %s\n", strings.Repeat("s", 900), small)
	fmt.Fprintf(&p, "xattrs ---600 0 0 %s\nxattrs-many ---600 0 0 %[1]s\nxattrs-remote ---600 0 0 %[1]s\n", small)
	for _, dir := range []struct {
		name  string
		files int
	}{{"block", 12}, {"large", 60}} {
		fmt.Fprintf(&p, "%s d--755 0 0\nfirst ---600 0 0 %s\n", dir.name, small)
		for i := range dir.files {
			fmt.Fprintf(&p, "%02d%s p--600 0 0\n", i, strings.Repeat("n", 100))
		}
		p.WriteString("$\n")
	}
	p.WriteString("$\n")
	proto := filepath.Join(t.TempDir(), "proto")
	if err := os.WriteFile(proto, []byte(p.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	path := makeImage(t, seedSize, append([]string{"-d", "agcount=1", "-p", proto}, mkfs...)...)
	fs := openFilesystem(t, path)
	set := func(file string, args ...string) {
		ino := disktest.Lookup(t, fs, file)
		disktest.Run(t, "xfs_db", "-x", "-c", fmt.Sprintf("inode %d", ino), "-c", "attr_set "+strings.Join(args, " "), path)
	}
	set("xattrs", "-u", "-v", "1", "small")
	set("xattrs", "-u", "-v", "60", "other")
	set("xattrs", "-r", "-v", "1", "t")
	set("xattrs", "-s", "-v", "1", "s")
	for i := range 20 {
		set("xattrs-many", "-u", "-v", "100", fmt.Sprintf("number-%d", i))
	}
	set("xattrs-remote", "-u", "-v", "3000", "remote")
	disktest.SaveSeed(t, name, path)
}
