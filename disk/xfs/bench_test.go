package xfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	path := makeImage(b, 4<<30)
	dir, unmount := disktest.Mount(b, path, "xfs", "rw")
	disktest.WriteBench(b, dir)
	unmount()
	disktest.BenchmarkReading(b, path, disktest.BenchFiles, func(d disk.Sparse) (disk.Filesystem, error) {
		return xfs.Open(d, xfs.Options{})
	})
}
