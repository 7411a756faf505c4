package fat_test

import (
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// countingImage counts the bytes that are read from it.
type countingImage struct {
	disktest.Image
	bytes int64
}

func (c *countingImage) ReadAt(p []byte, off int64) (int, error) {
	c.bytes += int64(len(p))
	return c.Image.ReadAt(p, off)
}

// TestHuge opens a sparse disk of 16 TiB, the largest that FAT32 can have, and
// counts what that reads.
func TestHuge(t *testing.T) {
	image := makeImage(t, 16<<40-4096, "-F", "32", "-S", "4096", "-s", "128", "-f", "1", "-n", "HUGE")
	s := source{"dir/file": []byte("content"), "other": large(100_000)}
	s.put(t, image)
	counted := &countingImage{Image: disktest.OpenImage(t, image)}
	fs := openFilesystem(t, counted)
	names := 0
	if err := disktest.WalkLeniently(fs, func(string, disktest.Node) { names++ }); err != nil || names != 3 {
		t.Errorf("%d names, %v", names, err)
	}
	if counted.bytes > 256<<10 {
		t.Errorf("%d bytes read for %d names", counted.bytes, names)
	}
	if got := fs.Info(); got.Size < 16<<40-1<<20 || got.BlockSize != 512<<10 {
		t.Errorf("%+v", got)
	}
	t.Logf("%d bytes in use", used(t, fs))
}

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	image := makeImage(b, 1<<30, "-F", "32", "-s", "8")
	s := make(source)
	for i := range 10_000 {
		s[fmt.Sprintf("dir %d/a file with a long name, number %d", i%50, i)] = large(i % 100_000)
	}
	s.put(b, image)
	disktest.BenchmarkReading(b, image, len(s), func(d disk.Sparse) (disk.Filesystem, error) {
		return fat.Open(d, fat.Options{})
	})
}
