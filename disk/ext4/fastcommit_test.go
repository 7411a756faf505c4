package ext4_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var crashSeeds = flag.Int("crash-seeds", 1, "how many random sequences of changes are crashed")

// TestFastCommit compares crashed filesystems, whose newest changes are fast
// commits, with what the kernel recovers from them.
func TestFastCommit(t *testing.T) {
	for _, p := range []struct {
		name string
		mkfs []string
	}{
		{"4k", []string{"-b", "4096"}},
		{"1k", []string{"-b", "1024"}},
		{"no-csum", []string{"-b", "4096", "-O", "^metadata_csum"}},
		{"inline", []string{"-b", "1024", "-O", "inline_data"}},
	} {
		for seed := range *crashSeeds {
			t.Run(fmt.Sprintf("%s/%d", p.name, seed), func(t *testing.T) {
				t.Parallel()
				path := makeImage(t, 128<<20, append(p.mkfs, "-t", "ext4", "-O", "fast_commit", "-J", "size=16")...)
				r := rand.New(rand.NewPCG(uint64(seed), 7))
				fast := 0
				for round := range 5 {
					dir, unmount := disktest.Mount(t, path, "ext4", "rw,commit=300")
					w := &fastWriter{CrashWriter: disktest.CrashWriter{T: t, Dir: dir}, rand: r}
					if round == 0 {
						w.Base()
						w.Settle()
					}
					w.work(r.IntN(120))
					disktest.Crash(t, dir)
					unmount()
					fast += compareFast(t, disktest.CopyImage(t, path))
				}
				if fast == 0 {
					t.Error("there was no fast commit")
				}
			})
		}
	}
}

// compareFast compares a crashed image with what the kernel recovers, but for
// what its replay gives to directories: the time of the replay, and a number of
// links that leaves new directories out.
func compareFast(t *testing.T, path string) (fastCommits int) {
	t.Helper()
	fs := openFilesystem(t, path)
	got := disktest.ReadTree(t, fs)
	crashed := disktest.CopyImage(t, path)
	// A read-only mount does not replay changes of directories.
	_, unmount := disktest.Mount(t, path, "ext4", "rw,noatime")
	unmount()
	dir, unmount := disktest.Mount(t, path, "ext4", "ro,noatime")
	want := disktest.KernelTree(t, dir)
	unmount()
	disktest.CompareTrees(t, withoutDirs(want), withoutDirs(got))
	disktest.CheckReadsUsed(t, crashed, openUncached)
	disktest.CheckLocations(t, disktest.OpenImage(t, crashed), fs)
	transactions, fast := fs.Replayed()
	t.Logf("%d transactions, %d fast commits, %d files", transactions, fast, len(got))
	return fast
}

// withoutDirs forgets what fast commits do not keep of directories.
func withoutDirs(all disktest.Tree) disktest.Tree {
	for path, n := range all {
		if disktest.IsType(n.Mode, unix.S_IFDIR) {
			n.Times, n.Size, n.Links = "", 0, 0
			all[path] = n
		}
	}
	return all
}

// fastWriter does what fast commits can tell, and syncs often.
type fastWriter struct {
	disktest.CrashWriter
	rand *rand.Rand
}

func (w *fastWriter) work(steps int) {
	for range steps {
		err := w.step()
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) && !errors.Is(err, unix.EISDIR) &&
			!errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOTDIR) {
			w.T.Fatal(err)
		}
	}
	w.Sync(filepath.Join(w.Dir, "synced"))
}

// name is one of a few, so that names and inodes are used again.
func (w *fastWriter) name() string {
	dir := fmt.Sprintf("base-%d", w.rand.IntN(5))
	if w.rand.IntN(4) == 0 {
		dir = filepath.Join(dir, fmt.Sprintf("sub-%d", w.rand.IntN(3)))
	}
	number := w.rand.IntN(12)
	name := fmt.Sprintf("file-%d", number)
	if number == 0 { // the longest that there is
		name += strings.Repeat("n", 255-len(name))
	}
	return filepath.Join(w.Dir, dir, name)
}

func (w *fastWriter) step() error {
	name := w.name()
	switch w.rand.IntN(16) {
	case 0, 1:
		return os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(w.rand.Uint64()), w.rand.IntN(2000))), 0o640)
	case 2:
		return os.Rename(name, w.name())
	case 3:
		return os.Remove(name)
	case 4:
		return os.Truncate(name, w.rand.Int64N(100_000))
	case 5, 6:
		return os.Link(name, w.name())
	case 7:
		return os.Mkdir(filepath.Join(w.Dir, fmt.Sprintf("base-%d/sub-%d", w.rand.IntN(5), w.rand.IntN(3))), 0o755)
	case 8:
		return os.Chown(name, w.rand.IntN(1<<20), w.rand.IntN(1<<20))
	case 9:
		return os.Chmod(name, os.FileMode(w.rand.IntN(0o1000)))
	default:
		return w.write(name)
	}
}

// write changes a file in one place, and syncs it.
func (w *fastWriter) write(name string) error {
	if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	at, length := w.rand.Int64N(300_000), 1+w.rand.Int64N(50_000)
	switch w.rand.IntN(4) {
	case 0:
		err = unix.Fallocate(int(f.Fd()), 0, at, length)
	case 1:
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, at, length)
	default:
		_, err = f.WriteAt([]byte(strings.Repeat("w", int(length))), at)
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// TestFastCommitOfDirectories removes directories and uses their inodes again.
// There the kernel's replay loses what was synced, so that what it showed before
// is the truth.
func TestFastCommitOfDirectories(t *testing.T) {
	path := makeImage(t, 128<<20, "-t", "ext4", "-b", "4096", "-O", "fast_commit")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw,noatime,commit=300")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Base()
	for i := range 3 {
		must(os.Mkdir(fmt.Sprintf("%s/base-1/dir-%d", dir, i), 0o700))
	}
	w.Settle()
	w.Sync(dir + "/synced")
	for i := range 3 {
		must(os.Remove(fmt.Sprintf("%s/base-1/dir-%d", dir, i)))
	}
	w.Sync(dir + "/synced")
	must(os.MkdirAll(dir+"/base-1/new/deep/deeper", 0o711))
	w.Sync(dir + "/base-1/new/deep/file")
	f, err := os.Create(dir + "/base-1/hole")
	must(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("behind a hole"), 100_000)
	must(err)
	must(f.Sync())
	copied := disktest.CopyImage(t, path)
	want := disktest.KernelTree(t, dir)
	must(f.Close())
	unmount()

	fs := openFilesystem(t, copied)
	if _, fast := fs.Replayed(); fast < 2 {
		t.Fatalf("%d fast commits", fast)
	}
	disktest.CompareTrees(t, withoutDirs(want), withoutDirs(disktest.ReadTree(t, fs)))
}
