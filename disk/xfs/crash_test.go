package xfs_test

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// logs are the forms that a log can have.
var logs = []struct {
	name  string
	mkfs  []string
	mount string
}{
	{"debian", nil, "rw"},
	{"small-1k", []string{"-b", "size=1024"}, "rw"},
	{"large-buffers", []string{"-m", "rmapbt=1"}, "logbsize=256k"},
	{"stripe", []string{"-l", "su=64k"}, "logbufs=8"},
	{"sector-4096", []string{"-s", "size=4096"}, "rw"},
	{"dir-16k", []string{"-n", "size=16384"}, "rw"},
	{"plain", []string{"-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,nrext64=0"}, "rw"},
	{"nrext64", []string{"-i", "nrext64=1,size=1024"}, "rw"},
}

// TestReplay compares what we see of crashed filesystems with what the kernel
// makes of them.
func TestReplay(t *testing.T) {
	for i, l := range logs {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			path := makeImage(t, 96<<20, l.mkfs...)
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
	disktest.CompareTrees(t, want, got)
	t.Logf("%d transactions, %d files", fs.Replayed(), len(got))
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
