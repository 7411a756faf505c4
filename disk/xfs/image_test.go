package xfs_test

import (
	"encoding/binary"
	"os"
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

// addFeatures turns on features that need nothing on a new filesystem, which the
// kernel knows and mkfs.xfs of the test's host does not.
func addFeatures(t testing.TB, path string, incompat uint32) {
	t.Helper()
	if incompat == 0 {
		return
	}
	change(t, path, 0, 512, func(sb []byte) { // of sectors of 512 bytes
		binary.BigEndian.PutUint32(sb[216:], binary.BigEndian.Uint32(sb[216:])|incompat)
		seal(sb, 224)
	})
}

// change changes length bytes at off of the file at path.
func change(t testing.TB, path string, off int64, length int, how func([]byte)) {
	t.Helper()
	p := disktest.Patch(t, path, off, length, how).Data
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

const (
	exchangeRange  = 0x40
	parentPointers = 0x80
)

// open is [xfs.Open] with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) { return xfs.Open(d, xfs.Options{}) }

// openUncached is [xfs.Open] with the smallest cache, so that all is read again.
func openUncached(d disk.Sparse) (disk.Filesystem, error) {
	return xfs.Open(d, xfs.Options{CacheSize: 1})
}

func openFilesystem(t testing.TB, path string) *xfs.Filesystem {
	t.Helper()
	fs, err := xfs.Open(disktest.OpenImage(t, path), xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}
