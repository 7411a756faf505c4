package xfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// logs are the forms that a log can have.
var logs = []struct {
	name  string
	mkfs  []string
	mount string
	more  uint32 // features
}{
	{"debian", nil, "rw", 0},
	{"small-1k", []string{"-b", "size=1024"}, "rw", 0},
	{"large-buffers", []string{"-m", "rmapbt=1"}, "logbsize=256k", 0},
	{"stripe", []string{"-l", "su=64k"}, "logbufs=8", 0},
	{"sector-4096", []string{"-s", "size=4096"}, "rw", 0},
	{"dir-16k", []string{"-n", "size=16384"}, "rw", 0},
	{"plain", []string{"-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,nrext64=0"}, "rw", 0},
	{"nrext64", []string{"-i", "nrext64=1,size=1024"}, "rw", 0},
	{"64k", []string{"-b", "size=65536", "-l", "size=64m"}, "rw", 0},
	{"parent", []string{"-s", "size=512", "-l", "size=8m"}, "rw", parentPointers},
}

// TestReplay compares what we see of crashed filesystems with what the kernel
// makes of them.
func TestReplay(t *testing.T) {
	for i, l := range logs {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			size := int64(96 << 20)
			if l.name == "64k" {
				size = 640 << 20
			}
			path := makeImage(t, size, l.mkfs...)
			addFeatures(t, path, l.more)
			dir, unmount := disktest.Mount(t, path, "xfs", l.mount)
			w := &disktest.CrashWriter{T: t, Dir: dir}
			w.Base()
			w.Settle()
			w.Work(uint64(i), 400)
			w.Revoke()
			w.Work(uint64(i)+1000, 150)
			disktest.Crash(t, dir)
			unmount()
			compareCrashed(t, path)
		})
	}
}

// TestGrown crashes a filesystem after it grew: the log has a new superblock, and
// what lies behind the old end.
func TestGrown(t *testing.T) {
	path := makeImage(t, 400<<20, "-d", "size=96m")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Settle()
	disktest.Run(t, "xfs_growfs", dir)
	for i := range uint64(20) { // in all groups
		w.Work(i, 40)
	}
	disktest.Crash(t, dir)
	unmount()
	compareCrashed(t, path)
	if size := openFilesystem(t, path).Info().Size; size != 400<<20 {
		t.Errorf("the size is %d", size)
	}
}

// TestShutdown is for a guest that wrote its log before it stopped.
func TestShutdown(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Work(3, 300)
	shutdown(t, dir, 1)
	unmount()
	compareCrashed(t, path)
}

// shutdown stops a mounted filesystem: with flag 1 after its log is written, with
// flag 2 at once.
func shutdown(t *testing.T, dir string, flag uint32) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		t.Fatal(errno)
	}
}

// compareCrashed compares a crashed image with what the kernel recovers.
func compareCrashed(t *testing.T, path string) {
	t.Helper()
	recovered := disktest.CopyImage(t, path)
	// Reading must not change times, but a read-only mount would not recover.
	dir, unmount := disktest.Mount(t, recovered, "xfs", "rw,noatime")
	want := disktest.KernelTree(t, dir)
	unmount()
	fs := openFilesystem(t, path)
	if fs.Replayed() == 0 {
		t.Error("nothing was replayed")
	}
	got := disktest.ReadTree(t, fs)
	if len(fs.Info().Remarks) > 1 {
		// What the kernel ends now that was begun, of a parent pointer, it dates now.
		withoutChange(want)
		withoutChange(got)
	}
	disktest.CompareTrees(t, want, got)
	disktest.CheckLocations(t, disktest.OpenImage(t, path), fs)
	disktest.CheckReadsUsed(t, path, openUncached)
	t.Logf("%d transactions, %d files", fs.Replayed(), len(got))
}

// withoutChange forgets when inodes were changed last.
func withoutChange(all disktest.Tree) {
	for path, n := range all {
		times := strings.Fields(n.Times)
		n.Times = fmt.Sprint(times[0], times[1], times[3])
		all[path] = n
	}
}

// TestCopyOfRunning reads copies of an image that are made while it is written to:
// none is of one moment.
func TestCopyOfRunning(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Settle()
	w.Work(7, 200)
	w.Sync(filepath.Join(dir, "synced"))
	copied := disktest.CopyImage(t, path)
	unmount()
	compareCrashed(t, copied)
}

// TestSnapshots reads copies that are each of one moment, of an image that is
// written to meanwhile: as if the power had failed just then. The log is small,
// and goes round many times.
func TestSnapshots(t *testing.T) {
	outer := makeImage(t, 4<<30)
	host, _ := disktest.Mount(t, outer, "xfs", "rw")
	for _, profile := range []struct {
		mkfs []string
		more uint32
	}{
		{nil, 0},
		{[]string{"-b", "size=1024", "-m", "rmapbt=1"}, parentPointers | exchangeRange},
		{[]string{"-l", "su=128k", "-i", "sparse=0"}, 0},
	} {
		path := filepath.Join(host, "guest.img")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 96<<20); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "mkfs.xfs", append([]string{"-q", "-f", "--unsupported", path}, profile.mkfs...)...)
		addFeatures(t, path, profile.more)
		dir, unmount := disktest.Mount(t, path, "xfs", "rw")
		w := &disktest.CrashWriter{T: t, Dir: dir}
		w.Base()
		w.Work(0, 50) // so that the log holds something, however slow the machine
		var writers sync.WaitGroup
		var stop atomic.Bool
		writers.Go(func() {
			for seed := uint64(1); !stop.Load(); seed++ {
				w.Work(seed, 150)
				churn(t, dir, seed)
			}
		})
		var copies []string
		for i := range snapshots() {
			time.Sleep(300 * time.Millisecond)
			copied := filepath.Join(host, fmt.Sprintf("copy-%d", i))
			disktest.Run(t, "cp", "--reflink=always", path, copied)
			copies = append(copies, copied)
		}
		stop.Store(true)
		writers.Wait()
		unmount()
		for _, c := range copies {
			t.Run(filepath.Base(c), func(t *testing.T) { compareCrashed(t, c) })
		}
	}
}

func snapshots() int {
	if *thorough {
		return 10
	}
	return 3
}

// churn makes and removes directories and attributes, and shares blocks, so that
// blocks of metadata are freed and become something else.
func churn(t *testing.T, dir string, seed uint64) {
	for g := range 3 {
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("work-%d-%d", seed-1, g))); err != nil {
			t.Error(err)
		}
	}
	large := filepath.Join(dir, fmt.Sprintf("large-%d", seed%2))
	if err := os.RemoveAll(large); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(large, 0o755); err != nil {
		t.Error(err)
	}
	first := filepath.Join(large, "first")
	if err := os.WriteFile(first, []byte(strings.Repeat("shared", 30_000)), 0o644); err != nil {
		t.Error(err)
		return
	}
	for i := range 300 {
		name := filepath.Join(large, fmt.Sprintf("a name of some length, number %d", i))
		var err error
		switch i % 4 {
		case 0:
			err = os.Symlink(strings.Repeat("target", 1+i/2), name)
		case 1:
			if err = os.WriteFile(name, nil, 0o600); err == nil {
				err = unix.Lsetxattr(name, "user.large", []byte(strings.Repeat("v", i*20)), 0)
			}
		default:
			err = os.Link(first, name)
		}
		if err != nil {
			t.Errorf("%.50q: %v", name, err)
			return
		}
	}
	exec.Command("cp", "--reflink=always", first, first+"-shared").Run() // where the filesystem can
	exchange(first, filepath.Join(large, "a name of some length, number 1"))
}

// exchange exchanges the first blocks of two files, where the filesystem can.
func exchange(a, b string) {
	const request = 0x40285881 // XFS_IOC_EXCHANGE_RANGE
	from, err := os.OpenFile(a, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer from.Close()
	to, err := os.OpenFile(b, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer to.Close()
	const length = 64 << 10
	if to.Truncate(length) != nil {
		return
	}
	args := [5]uint64{uint64(from.Fd()), 0, 0, length, 0}
	unix.Syscall(unix.SYS_IOCTL, to.Fd(), request, uintptr(unsafe.Pointer(&args)))
}

// TestRepaired reads a filesystem whose log xfs_repair threw away, and wrote anew
// for a later cycle.
func TestRepaired(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	unmount() // so that more than the log has it
	w.Dir, unmount = disktest.Mount(t, path, "xfs", "rw")
	w.Work(5, 100)
	disktest.Crash(t, w.Dir)
	unmount()
	disktest.Run(t, "xfs_repair", "-L", path)
	if fs := openFilesystem(t, path); fs.Replayed() != 0 {
		t.Errorf("%d transactions replayed", fs.Replayed())
	}
	compareClean(t, path)
}

// TestFrozen reads a filesystem that fsfreeze(8) stopped, as hypervisors do for a
// snapshot.
func TestFrozen(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "noatime")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Work(6, 100)
	disktest.Run(t, "xfs_io", "-x", "-c", "freeze", dir)
	copied := disktest.CopyImage(t, path)
	disktest.Run(t, "xfs_io", "-x", "-c", "thaw", dir)
	want := disktest.KernelTree(t, dir)
	unmount()
	disktest.CompareTrees(t, want, disktest.ReadTree(t, openFilesystem(t, copied)))
}

// TestNewUUID gives a filesystem another UUID: its structures keep the old one.
func TestNewUUID(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	unmount()
	disktest.Run(t, "xfs_admin", "-U", "11223344-5566-7788-99aa-bbccddeeff00", path)
	if uuid := openFilesystem(t, path).Info().UUID; uuid[0] != 0x11 || uuid[15] != 0 {
		t.Errorf("the UUID is %x", uuid)
	}
	compareClean(t, path)
	dir, unmount = disktest.Mount(t, path, "xfs", "rw")
	w.Dir = dir
	w.Work(1, 200)
	disktest.Crash(t, dir)
	unmount()
	compareCrashed(t, path)
}
