package disktest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// EmptyImage makes a sparse file of size bytes.
func EmptyImage(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// MakeImage makes a sparse file of size bytes, and a filesystem on it: mkfs with
// args and the file's path.
func MakeImage(t testing.TB, size int64, mkfs string, args ...string) string {
	t.Helper()
	path := EmptyImage(t, size)
	Run(t, mkfs, append(args[:len(args):len(args)], path)...)
	return path
}

// RequireRoot fails a test that needs loop mounts where they cannot be had.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts images: run it as root")
	}
}

// Mount mounts path in a folder of its own until the test ends or unmount
// is called. The kernel may write to it, also with ro, to recover a journal.
func Mount(t testing.TB, path, fstype, options string) (dir string, unmount func()) {
	t.Helper()
	RequireRoot(t)
	dir = t.TempDir()
	device := testmount.Loop(t, path, 0, 0)
	leave := testmount.At(t, device, dir, "-t", fstype, "-o", options)
	var once sync.Once
	return dir, func() {
		once.Do(func() {
			leave()
			testmount.Detach(t, device)
		})
	}
}

// CopyImage copies an image, keeping its holes.
func CopyImage(t testing.TB, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.img")
	Run(t, "cp", "--sparse=always", path, to)
	return to
}

// Image is a file as a [disk.Sparse] all of whose bytes are data.
type Image struct {
	io.ReaderAt
	Length int64 // bytes
}

// Size returns Length.
func (m Image) Size() int64 { return m.Length }

// Extents yields one extent.
func (m Image) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, m.Length) {
		return errors.New("extents out of range")
	}
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentData})
}

// OpenImage opens a file until the test ends.
func OpenImage(t testing.TB, path string) Image {
	t.Helper()
	f, size := OpenFile(t, path)
	return Image{ReaderAt: f, Length: size}
}

// Counted is an image that counts what is read from it.
type Counted struct {
	disk.Sparse
	Bytes, Reads atomic.Int64
}

// ReadAt counts, and reads.
func (c *Counted) ReadAt(p []byte, off int64) (int, error) {
	c.Bytes.Add(int64(len(p)))
	c.Reads.Add(1)
	return c.Sparse.ReadAt(p, off)
}
