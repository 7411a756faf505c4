package ext4_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// makeImage makes a sparse image of size bytes and a filesystem on it.
func makeImage(t testing.TB, size int64, mkfs ...string) string {
	t.Helper()
	return disktest.MakeImage(t, size, "mke2fs", append([]string{"-q", "-F"}, mkfs...)...)
}

// open is [ext4.Open] with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) { return ext4.Open(d, ext4.Options{}) }

// openUncached is [ext4.Open] with the smallest cache, so that all is read again.
func openUncached(d disk.Sparse) (disk.Filesystem, error) {
	return ext4.Open(d, ext4.Options{CacheSize: 1})
}

func openFilesystem(t testing.TB, path string) *ext4.Filesystem {
	t.Helper()
	fs, err := ext4.Open(disktest.OpenImage(t, path), ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}
