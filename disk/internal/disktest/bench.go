package disktest

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// BenchmarkReading opens an image and reads all of it, again and again: at least so
// many files, with their attributes.
func BenchmarkReading(b *testing.B, path string, files int, open func(disk.Sparse) (disk.Filesystem, error)) {
	b.Helper()
	m := OpenImage(b, path)
	b.ReportAllocs()
	for b.Loop() {
		fs, err := open(m)
		if err != nil {
			b.Fatal(err)
		}
		n, size, err := benchdisk.Read(fs, false)
		if err != nil || n < files {
			b.Fatalf("%d files: %v", n, err)
		}
		b.SetBytes(size)
	}
}
