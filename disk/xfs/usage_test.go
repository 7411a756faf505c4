package xfs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// TestUsed keeps only what Used yields: that must be all there is, as xfs_repair
// and a reader see it, and not more than the headers of the groups count.
func TestUsed(t *testing.T) {
	for _, p := range []struct {
		name string
		mkfs []string
	}{
		{"debian", nil},
		{"1k-rmapbt", []string{"-b", "size=1024", "-m", "rmapbt=1", "-d", "agcount=7"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			path := makeImage(t, 320<<20, p.mkfs...)
			dir, unmount := disktest.Mount(t, path, "xfs", "rw")
			g := &disktest.Generator{T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{1}), BlockSize: 4096, ManyFiles: 3000, BigXattrs: true, MaxSymlink: 1023, SmallDevices: true}
			g.WriteAll()
			unmount()
			fs := openFilesystem(t, path)
			want := disktest.ReadTree(t, fs)
			kept := disktest.EmptyImage(t, 320<<20)
			used := copyUsed(t, fs, path, kept)
			disktest.Run(t, "xfs_repair", "-n", kept)
			disktest.CompareTrees(t, want, disktest.ReadTree(t, openFilesystem(t, kept)))
			if want := fs.Info().Size - freeBytes(t, path, fs.Info().BlockSize); used != want {
				t.Errorf("%d bytes are used, by the groups' headers it is %d", used, want)
			}
			if err := fs.Used(1, nil); !errors.Is(err, disk.ErrNotExist) {
				t.Errorf("device 1: %v", err)
			}
		})
	}
}

// TestUsedAfterCrash keeps what is used of a crashed filesystem: the kernel must
// recover the same from that.
func TestUsedAfterCrash(t *testing.T) {
	path := makeImage(t, 96<<20)
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Work(1, 300)
	churn(t, dir, 2)
	w.Settle()
	w.Work(2, 300)
	churn(t, dir, 4)
	w.Sync(dir + "/synced")
	disktest.Crash(t, dir)
	unmount()
	kept := disktest.EmptyImage(t, 96<<20)
	copyUsed(t, openFilesystem(t, path), path, kept)
	compareCrashed(t, kept)
	disktest.CompareTrees(t, disktest.ReadTree(t, openFilesystem(t, path)), disktest.ReadTree(t, openFilesystem(t, kept)))
}

// freeBytes adds up what the headers of the groups say.
func freeBytes(t *testing.T, path string, blockSize int64) int64 {
	t.Helper()
	groups := strings.TrimPrefix(strings.TrimSpace(string(disktest.Run(t, "xfs_db", "-c", "sb 0", "-c", "print agcount", path))), "agcount = ")
	count, err := strconv.Atoi(groups)
	if err != nil {
		t.Fatal(err)
	}
	free := int64(0)
	for i := range count {
		out := strings.TrimSpace(string(disktest.Run(t, "xfs_db", "-c", fmt.Sprintf("agf %d", i), "-c", "print freeblks", path)))
		n, err := strconv.ParseInt(strings.TrimPrefix(out, "freeblks = "), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		free += n * blockSize
	}
	return free
}

// copyUsed copies what is used, and returns how much that is.
func copyUsed(t *testing.T, fs *xfs.Filesystem, from, to string) int64 {
	t.Helper()
	in := disktest.OpenImage(t, from)
	out, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var used, next int64
	err = fs.Used(0, func(off, length int64) error {
		if length <= 0 || off < next || off == next && off > 0 {
			return fmt.Errorf("%d bytes at %d, after %d", length, off, next)
		}
		next = off + length
		used += length
		p := make([]byte, length)
		if _, err := in.ReadAt(p, off); err != nil {
			return err
		}
		_, err := out.WriteAt(p, off)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestLocate reads files from where Locate says that they are.
func TestLocate(t *testing.T) {
	for _, s := range seeds {
		if located, _ := disktest.CheckLocations(t, disktest.LoadSeed(t, s.name), openSeed(t, s.name, xfs.Options{})); located == 0 {
			t.Errorf("%s: nothing is located", s.name)
		}
	}
}
