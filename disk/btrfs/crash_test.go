package btrfs_test

import (
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// A kernel that mounts torn copies of btrfs has wedged whole machines. The copies
// here are whole, made while nothing writes; all the same, few are mounted unless
// somebody asks for more.
var crashSeeds = flag.Int("crash-seeds", 1, "how many random crashes to compare with the kernel")

// crash is a mounted filesystem that will lose its power.
type crash struct {
	t    *testing.T
	dir  string
	rand *rand.Rand
}

func (c *crash) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crash) path(name string) string { return filepath.Join(c.dir, name) }

// sync syncs one file or directory: that goes to the log.
func (c *crash) sync(name string) {
	c.t.Helper()
	f, err := os.Open(c.path(name))
	c.must(err)
	defer f.Close()
	c.must(f.Sync())
}

func (c *crash) write(name, content string) {
	c.t.Helper()
	c.must(os.WriteFile(c.path(name), []byte(content), 0o644))
}

func (c *crash) writeAt(name, content string, off int64) {
	c.t.Helper()
	f, err := os.OpenFile(c.path(name), os.O_WRONLY, 0)
	c.must(err)
	defer f.Close()
	_, err = f.WriteAt([]byte(content), off)
	c.must(err)
}

func (c *crash) fallocate(name string, mode uint32, off, length int64) {
	c.t.Helper()
	f, err := os.OpenFile(c.path(name), os.O_WRONLY, 0)
	c.must(err)
	defer f.Close()
	c.must(unix.Fallocate(int(f.Fd()), mode, off, length))
}

// form is how a filesystem is made and mounted.
type form struct {
	name, mount string
	mkfs        []string
	devices     int // 0 means 1
}

// compareCrash compares a crash with the kernel's recovery of it. files is how many
// must have been in the log, at least: when the kernel commits all instead of
// logging one is up to the kernel, so that it may take more than one crash.
func compareCrash(t *testing.T, f form, base, work func(*crash), files int) {
	t.Helper()
	replayed := -1
	for range 5 {
		if replayed = crashAndCompare(t, f, base, work); replayed >= files || t.Failed() {
			return
		}
	}
	t.Errorf("%d files were replayed, at least %d should be", replayed, files)
}

// crashAndCompare writes base, commits, does work, and compares what we see of the
// image as it is then with what the kernel makes of it.
func crashAndCompare(t *testing.T, f form, base, work func(*crash)) (replayed int) {
	t.Helper()
	paths := makeImages(t, max(f.devices, 1), 256<<20, f.mkfs...)
	dir, unmount := mount(t, paths, strings.TrimSuffix("commit=300,"+f.mount, ","))
	c := &crash{t: t, dir: dir, rand: rand.New(rand.NewPCG(1, 2))}
	w := &disktest.CrashWriter{T: t, Dir: dir}
	// Whoever allocates a chunk commits: have them allocated now.
	c.write("room", "")
	c.fallocate("room", 0, 0, 60<<20)
	w.Settle()
	c.must(os.Remove(c.path("room")))
	base(c)
	w.Settle()
	work(c)
	var crashed []string
	for _, path := range paths {
		crashed = append(crashed, disktest.CopyImage(t, path))
	}
	unmount() // the kernel keeps two with one UUID apart only if one is gone

	fs := openFilesystem(t, crashed, btrfs.Options{})
	got := withoutSubvolume(disktest.ReadTree(t, fs))
	checkUsage(t, fs, crashed)
	for i, path := range crashed { // what is in use must do for the kernel, too
		keepUsed(t, fs, i, path)
	}
	start := time.Now()
	want := withoutSubvolume(kernelTree(t, crashed, ""))
	withoutClock(want, got, start)
	disktest.CompareTrees(t, want, got)
	t.Logf("%d files replayed, %d in all", fs.Replayed(), len(got))
	return fs.Replayed()
}

// withoutClock forgives times that a replay takes from the kernel's clock: those
// of what lost a name.
func withoutClock(want, got disktest.Tree, start time.Time) {
	for path, k := range want {
		ours, ok := got[path]
		if !ok || k.Times == ours.Times {
			continue
		}
		theirs, mine := strings.Fields(k.Times), strings.Fields(ours.Times)
		for i := range theirs {
			var sec, nsec int64
			if _, err := fmt.Sscanf(theirs[i], "%d.%d", &sec, &nsec); err == nil && !time.Unix(sec, nsec).Before(start.Add(-time.Second)) {
				mine[i] = theirs[i]
			}
		}
		ours.Times = strings.Join(mine, " ") + " "
		got[path] = ours
	}
}

// colliding returns names in pairs of one hash: the entries of a directory and the
// attributes that have them share items.
var colliding = sync.OnceValue(func() []string {
	table := crc32.MakeTable(crc32.Castagnoli)
	// What collides does so behind "user." too: equal sums stay equal whatever
	// the bytes before were, if those were the same.
	seen := make(map[uint32]string)
	var pairs []string
	for i := 0; len(pairs) < 12; i++ {
		name := fmt.Sprintf("%08x", i*2654435761%(1<<32))
		sum := crc32.Checksum([]byte(name), table)
		if other, ok := seen[sum]; ok {
			pairs = append(pairs, other, name)
		}
		seen[sum] = name
	}
	return pairs
})

// TestLog replays one kind of change after the other.
func TestLog(t *testing.T) {
	for _, s := range []struct {
		name       string
		base, work func(*crash)
		files      int
	}{
		{"new file", func(c *crash) {}, func(c *crash) {
			c.write("new", strings.Repeat("new", 50_000))
			c.write("small", "inline")
			c.sync("new")
			c.sync("small")
		}, 2},
		{"overwrite", func(c *crash) {
			c.write("file", strings.Repeat("old!", 100_000))
		}, func(c *crash) {
			c.writeAt("file", strings.Repeat("new!", 5_000), 40_960)
			c.writeAt("file", "unaligned", 123_456)
			c.sync("file")
		}, 1},
		{"grow shrink", func(c *crash) {
			c.write("grow", "little")
			c.write("shrink", strings.Repeat("much", 100_000))
			c.write("nothing", strings.Repeat("gone", 10_000))
		}, func(c *crash) {
			c.writeAt("grow", strings.Repeat("more", 10_000), 6)
			c.must(os.Truncate(c.path("shrink"), 70_001))
			c.must(os.Truncate(c.path("nothing"), 0))
			for _, name := range []string{"grow", "shrink", "nothing"} {
				c.sync(name)
			}
		}, 3},
		{"holes", func(c *crash) {
			c.write("file", strings.Repeat("data", 100_000))
		}, func(c *crash) {
			c.fallocate("file", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 40_960, 81_920)
			c.fallocate("file", unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20)
			c.writeAt("file", "in the middle", 65_536)
			c.sync("file")
		}, 1},
		{"hardlinks", func(c *crash) {
			c.write("file", "many names")
			c.must(os.Mkdir(c.path("dir"), 0o755))
		}, func(c *crash) {
			for i := range 300 {
				c.must(os.Link(c.path("file"), c.path(fmt.Sprintf("dir/%03d%s", i, strings.Repeat("n", 60)))))
			}
			c.sync("file")
			c.must(os.Remove(c.path("dir/000" + strings.Repeat("n", 60))))
			c.sync("dir")
		}, 1},
		{"rename", func(c *crash) {
			c.write("a", "a")
			c.write("b", "b")
			c.must(os.Mkdir(c.path("dir"), 0o755))
			c.write("dir/c", "c")
		}, func(c *crash) {
			c.must(os.Rename(c.path("a"), c.path("dir/a")))
			c.sync("dir/a")
			c.must(os.Rename(c.path("b"), c.path("dir/c")))
			c.sync("dir/c")
		}, 0},
		{"swap", func(c *crash) {
			c.write("a", "a")
			c.write("b", "b")
		}, func(c *crash) {
			c.must(unix.Renameat2(unix.AT_FDCWD, c.path("a"), unix.AT_FDCWD, c.path("b"), unix.RENAME_EXCHANGE))
			c.sync("a")
		}, 0},
		{"directories", func(c *crash) {
			c.must(os.MkdirAll(c.path("dir/sub"), 0o755))
			for i := range 200 {
				c.write(fmt.Sprintf("dir/%d", i), fmt.Sprint(i))
			}
		}, func(c *crash) {
			for i := range 100 {
				c.must(os.Remove(c.path(fmt.Sprintf("dir/%d", i*2))))
				c.write(fmt.Sprintf("dir/new%d", i), fmt.Sprint(i))
			}
			c.must(os.Symlink("target", c.path("dir/link")))
			c.must(os.MkdirAll(c.path("dir/made/deep"), 0o700))
			c.must(unix.Mknod(c.path("dir/fifo"), unix.S_IFIFO|0o600, 0))
			c.sync("dir")
			c.must(os.Remove(c.path("dir/sub")))
			c.sync("dir")
		}, 2},
		{"attributes", func(c *crash) {
			c.write("file", "x")
			for i := range 20 {
				c.must(unix.Lsetxattr(c.path("file"), fmt.Sprintf("user.old%d", i), []byte("old"), 0))
			}
		}, func(c *crash) {
			c.must(unix.Lsetxattr(c.path("file"), "user.new", []byte("new"), 0))
			c.must(unix.Lremovexattr(c.path("file"), "user.old3"))
			c.must(unix.Lsetxattr(c.path("file"), "user.old4", []byte("changed"), 0))
			c.must(os.Chmod(c.path("file"), 0o600))
			c.must(os.Chown(c.path("file"), 1000, 1001))
			c.sync("file")
		}, 1},
		{"subvolumes", func(c *crash) {
			disktest.Run(c.t, "btrfs", "subvolume", "create", c.path("sub"))
			c.write("sub/file", "old")
		}, func(c *crash) {
			c.write("sub/file", strings.Repeat("new", 10_000))
			c.write("top", "top")
			c.sync("sub/file")
			c.sync("top")
		}, 2},
		{"collisions", func(c *crash) {
			c.must(os.Mkdir(c.path("dir"), 0o755))
			for i, name := range colliding() {
				c.write("dir/"+name, name)
				c.must(unix.Lsetxattr(c.path("dir"), "user."+name, []byte{byte(i)}, 0))
			}
		}, func(c *crash) {
			names := colliding()
			for i := range 4 {
				c.must(os.Remove(c.path("dir/" + names[i*2+i%2])))
				c.must(unix.Lremovexattr(c.path("dir"), "user."+names[i*2+i%2]))
			}
			c.must(os.Rename(c.path("dir/"+names[8]), c.path("dir/renamed")))
			c.must(unix.Lsetxattr(c.path("dir"), "user."+names[10], []byte("changed"), 0))
			c.sync("dir")
		}, 1},
		{"unlinked", func(c *crash) {
			c.must(os.MkdirAll(c.path("dir/sub/deeper"), 0o755))
			c.write("dir/sub/deeper/file", "x")
			c.write("keep", "x")
		}, func(c *crash) {
			c.must(os.RemoveAll(c.path("dir/sub")))
			c.sync("dir")
			c.write("keep", "more")
			c.sync("keep")
		}, 1},
	} {
		for _, f := range []form{
			{name: "no-holes"},
			{name: "holes-zstd", mount: "compress-force=zstd", mkfs: []string{"-O", "^no-holes"}},
			{name: "sha256-4k", mkfs: []string{"-n", "4096", "--csum", "sha256"}},
		} {
			t.Run(s.name+"/"+f.name, func(t *testing.T) { compareCrash(t, f, s.base, s.work, s.files) })
		}
	}
}

// TestCrash replays what is in the log after random work.
func TestCrash(t *testing.T) {
	forms := []form{
		{name: "two-devices", mkfs: []string{"-m", "raid1", "-d", "raid0"}, devices: 2},
		{name: "nodatacow-old", mount: "nodatacow", mkfs: []string{"-O", "^no-holes,^extref,^skinny-metadata"}},
		{name: "lzo-4k", mount: "compress=lzo", mkfs: []string{"-n", "4096"}},
		{name: "plain"},
	}
	for seed := range uint64(*crashSeeds) {
		f := forms[seed%uint64(len(forms))]
		t.Run(fmt.Sprintf("%d-%s", seed, f.name), func(t *testing.T) {
			compareCrash(t, f, func(c *crash) {
				c.must(os.Mkdir(c.path("work"), 0o755))
				c.rand = rand.New(rand.NewPCG(seed, 0))
				for range 300 {
					c.step()
				}
			}, func(c *crash) {
				for range 400 {
					c.step()
					if c.rand.IntN(4) == 0 {
						c.syncSome()
					}
				}
				for i := range 2 { // the first may commit
					c.write(fmt.Sprintf("last-%d", i), "last")
					c.sync(fmt.Sprintf("last-%d", i))
				}
			}, 1)
		})
	}
}

// some is the path of something in the working directory, or in one below.
func (c *crash) some() string {
	name := fmt.Sprintf("work/f%d", c.rand.IntN(40))
	if c.rand.IntN(3) == 0 {
		return fmt.Sprintf("work/d%d/f%d", c.rand.IntN(6), c.rand.IntN(10))
	}
	return name
}

// step does one random thing, which may be impossible.
func (c *crash) step() {
	var err error
	switch c.rand.IntN(12) {
	case 0, 1:
		err = os.WriteFile(c.path(c.some()), []byte(strings.Repeat(fmt.Sprint(c.rand.Uint64()), c.rand.IntN(2000))), 0o640)
	case 2:
		err = os.Rename(c.path(c.some()), c.path(c.some()))
	case 3:
		err = os.Remove(c.path(c.some()))
	case 4:
		err = os.Truncate(c.path(c.some()), c.rand.Int64N(100_000))
	case 5:
		err = os.Link(c.path(c.some()), c.path(c.some()))
	case 6:
		err = os.Mkdir(c.path(fmt.Sprintf("work/d%d", c.rand.IntN(6))), 0o700)
	case 7:
		err = unix.Lsetxattr(c.path(c.some()), fmt.Sprintf("user.%d", c.rand.IntN(5)), []byte(strings.Repeat("v", c.rand.IntN(200))), 0)
	case 8:
		err = unix.Lremovexattr(c.path(c.some()), fmt.Sprintf("user.%d", c.rand.IntN(5)))
	case 9:
		err = os.Symlink("somewhere", c.path(c.some()))
	case 10:
		err = os.RemoveAll(c.path(fmt.Sprintf("work/d%d", c.rand.IntN(6))))
	default:
		var f *os.File
		if f, err = os.OpenFile(c.path(c.some()), os.O_WRONLY, 0); err == nil {
			_, err = f.WriteAt([]byte("at some place"), c.rand.Int64N(200_000))
			f.Close()
		}
	}
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		c.t.Error(err)
	}
}

// syncSome syncs a file or a directory, if it is there.
func (c *crash) syncSome() {
	name := c.some()
	switch c.rand.IntN(6) {
	case 0:
		name = "work"
	case 1:
		name = filepath.Dir(name)
	}
	if info, err := os.Lstat(c.path(name)); err == nil && (info.IsDir() || info.Mode().IsRegular()) {
		c.sync(name)
	}
}
