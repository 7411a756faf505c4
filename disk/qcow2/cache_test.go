package qcow2_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// counting counts the reads that reach the file, and the bytes of them.
type counting struct {
	r     io.ReaderAt
	reads atomic.Int64
	bytes atomic.Int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	c.bytes.Add(int64(len(p)))
	return c.r.ReadAt(p, off)
}

func (c *counting) reset() { c.reads.Store(0); c.bytes.Store(0) }

// openCounted makes an image of 8 MiB, written from end to end, and opens it.
func openCounted(t *testing.T, args ...string) (*qcow2.Image, *counting) {
	t.Helper()
	dir := t.TempDir()
	source, path := filepath.Join(dir, "source"), filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(source, bytes.Repeat([]byte("drydock "), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...)
	disktest.Run(t, "qemu-img", append(args, source, path)...)
	f, size := disktest.OpenFile(t, path)
	c := &counting{r: f}
	im, err := qcow2.Open(c, size, qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.reset()
	return im, c
}

// TestSmallReadsDecompressOnce: sixteen reads of 4 KiB cost one cluster at most,
// whether it was read ahead or not.
func TestSmallReadsDecompressOnce(t *testing.T) {
	im, c := openCounted(t, "-c")
	buf := make([]byte, 4096)
	for off := int64(0); off < im.Size(); off += 4096 {
		if _, err := im.ReadAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	// One read for each of the 128 clusters at most, and one for the L2 table.
	if n, size := c.reads.Load(), c.bytes.Load(); n > 8<<20>>16+1 || size > 64<<10+128*1024 {
		t.Errorf("%d reads of the file, %d bytes", n, size)
	}
}

// TestLargeReadsAreCoalesced: a read of contiguous clusters is one read of the
// file.
func TestLargeReadsAreCoalesced(t *testing.T) {
	im, c := openCounted(t)
	buf := make([]byte, 8<<20)
	if _, err := im.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if n := c.reads.Load(); n != 2 { // the L2 table, and everything
		t.Errorf("%d reads of the file", n)
	}
	c.reset()
	if _, err := im.ReadAt(buf[:4096], 12345); err != nil {
		t.Fatal(err)
	}
	if n, size := c.reads.Load(), c.bytes.Load(); n != 1 || size != 4096 {
		t.Errorf("a small read became %d reads of %d bytes", n, size)
	}
}

// TestExtentsReadNoData: the extents of an image cost its L2 tables and no more.
func TestExtentsReadNoData(t *testing.T) {
	im, c := openCounted(t, "-c", "-o", "cluster_size=2M")
	for range 3 {
		if err := im.Extents(0, im.Size(), func(disk.Extent) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n, size := c.reads.Load(), c.bytes.Load(); n != 1 || size != 64<<10 {
		t.Errorf("%d reads of %d bytes; want one slice of a table", n, size)
	}
}
