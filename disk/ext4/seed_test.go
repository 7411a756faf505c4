package ext4_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/ext4"
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
	{"journal-plain", 3 << 20, true, []string{"-t", "ext3", "-b", "1024", "-N", "96", "-J", "size=1", "-O", "^resize_inode"}},
}

// loadSeed reads a seed of testdata.
func loadSeed(t testing.TB, name string) image {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".img.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return image{ReaderAt: bytes.NewReader(data), size: int64(len(data))}
}

// TestSeeds fails if a seed is missing, does not load, or does not hold what
// the tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, s.size, s.dirty, s.mkfs)
			}
			fs, err := ext4.Open(loadSeed(t, s.name), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := ourTree(t, fs)
			if dirty := fs.Replayed() > 0; dirty != s.dirty {
				t.Errorf("%d transactions replayed", fs.Replayed())
			}
			for path, want := range map[string]func(node) bool{
				"/large":          func(n node) bool { return n.Size > 2048 },
				"/large/hardlink": func(n node) bool { return n.Links == 41 },
				"/holes":          func(n node) bool { return strings.Count(n.Data, "-") >= 6 },
				"/symlink":        func(n node) bool { return len(n.Target) == 200 },
				"/xattrs":         func(n node) bool { return strings.Count(n.Xattrs, "=") >= 3 },
				"/device":         func(n node) bool { return n.Rdev == "300:70000" },
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
	dir, unmount := mountImage(t, path, "rw")
	if dirty {
		unix.Sync()
	}
	writeSeedTree(t, dir)
	if dirty {
		w := &crashWriter{t: t, dir: dir}
		w.sync(dir + "/gone")
		if err := os.Remove(dir + "/gone"); err != nil {
			t.Fatal(err)
		}
		w.sync(dir + "/synced")
		crash(t, dir)
	}
	unmount()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".img.gz"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
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
	g := &generator{t: t, dir: dir}
	path := g.file("xattrs", []byte("x"))
	g.setXattr(path, "user.small", []byte("v"))
	g.setXattr(path, "user.large", []byte(strings.Repeat("value", 60)))
	g.setXattr(path, "trusted.t", []byte("t"))
	g.setXattr(path, "user.huge", []byte(strings.Repeat("value", 1200))) // where ea_inode has room for it
	g.acls()
}
