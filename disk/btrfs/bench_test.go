package btrfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	for _, options := range []string{"rw", "compress=zstd"} {
		b.Run(options, func(b *testing.B) {
			path := makeImages(b, 1, 4<<30)[0]
			dir, unmount := disktest.Mount(b, path, "btrfs", options)
			disktest.WriteBench(b, dir)
			unmount()
			disktest.BenchmarkReading(b, path, disktest.BenchFiles, func(d disk.Sparse) (disk.Filesystem, error) {
				return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
			})
		})
	}
}
