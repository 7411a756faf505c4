package ext4_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	path := makeImage(b, 4<<30, "-t", "ext4", "-b", "4096")
	dir, unmount := disktest.Mount(b, path, "ext4", "rw")
	disktest.WriteBench(b, dir)
	unmount()
	disktest.BenchmarkReading(b, path, disktest.BenchFiles, open)
}
