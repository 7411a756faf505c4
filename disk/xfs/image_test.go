package xfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// makeImage makes a sparse image of size bytes and a filesystem on it, smaller
// than mkfs.xfs makes one for users.
func makeImage(t testing.TB, size int64, mkfs ...string) string {
	t.Helper()
	return disktest.MakeImage(t, size, "mkfs.xfs", append([]string{"-q", "-f", "--unsupported"}, mkfs...)...)
}

// open is [xfs.Open] with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) { return xfs.Open(d, xfs.Options{}) }

func openFilesystem(t testing.TB, path string) *xfs.Filesystem {
	t.Helper()
	fs, err := xfs.Open(disktest.OpenImage(t, path), xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}
