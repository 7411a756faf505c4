package xfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	disktest.BenchmarkReading(b, benchdisk.System(b, "xfs"), benchdisk.SystemFiles, func(d disk.Sparse) (disk.Filesystem, error) {
		return xfs.Open(d, xfs.Options{})
	})
}
