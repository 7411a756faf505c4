package btrfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	for name, path := range map[string]string{"plain": benchdisk.System(b, "btrfs"), "zstd": benchdisk.Compressed(b)} {
		b.Run(name, func(b *testing.B) {
			disktest.BenchmarkReading(b, path, benchdisk.SystemFiles, func(d disk.Sparse) (disk.Filesystem, error) {
				return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
			})
		})
	}
}
