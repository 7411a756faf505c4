package btrfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// keptOnly is a device of which what is not in use reads as 0xdb.
type keptOnly struct {
	disktest.Image
	used []disk.Extent
}

func (k keptOnly) ReadAt(p []byte, off int64) (int, error) {
	n, err := k.Image.ReadAt(p, off)
	out := bytes.Repeat([]byte{0xdb}, n)
	for _, u := range k.used {
		if from, to := max(off, u.Offset), min(off+int64(n), u.Offset+u.Length); from < to {
			copy(out[from-off:to-off], p[from-off:])
		}
	}
	copy(p, out)
	return n, err
}

// checkUsage checks that everything can be read from the parts in use alone, and
// returns how much that is.
func checkUsage(t *testing.T, fs *btrfs.Filesystem, paths []string) int64 {
	t.Helper()
	var devices []disk.Sparse
	total := int64(0)
	for i, path := range paths {
		k := keptOnly{Image: disktest.OpenImage(t, path)}
		end := int64(-1)
		err := fs.Used(i, func(off, length int64) error {
			if off <= end || length <= 0 || off+length > k.Length {
				return fmt.Errorf("a range of %d bytes at %d, behind one that ends at %d", length, off, end)
			}
			end = off + length
			total += length
			k.used = append(k.used, disk.Extent{Offset: off, Length: length})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, k)
	}
	kept, err := btrfs.Open(devices, btrfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disktest.CompareTrees(t, disktest.ReadTree(t, fs), disktest.ReadTree(t, kept))
	return total
}

// locateAll reads a file through what Locate says, and returns how much of it
// could be.
func locateAll(t *testing.T, f disk.Sparse, devices []disk.Sparse) int64 {
	t.Helper()
	located := int64(0)
	next := int64(0)
	err := f.(disk.Locator).Locate(0, f.Size(), func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 {
			return fmt.Errorf("location %+v, where %d is due", l, next)
		}
		next += l.Length
		if l.Device < 0 {
			return nil
		}
		located += l.Length
		want, got := make([]byte, l.Length), make([]byte, l.Length)
		if n, err := f.ReadAt(want, l.Offset); n < len(want) {
			return err
		}
		if n, err := devices[l.Device].ReadAt(got, l.At); n < len(got) && err != io.EOF {
			return err
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("location %+v has other content", l)
		}
		if l.Sums == nil {
			return nil
		}
		blocks := (l.Length + l.Sums.Block - 1) / l.Sums.Block
		whole := make([]byte, blocks*l.Sums.Block)
		if n, err := devices[l.Device].ReadAt(whole, l.At); n < len(whole) {
			return err
		}
		if int64(len(l.Sums.CRC32C)) != 4*blocks {
			return fmt.Errorf("location %+v has %d checksums", l, len(l.Sums.CRC32C)/4)
		}
		for i := range blocks {
			sum := crc32.Checksum(whole[i*l.Sums.Block:][:l.Sums.Block], crc32.MakeTable(crc32.Castagnoli))
			if sum != binary.LittleEndian.Uint32(l.Sums.CRC32C[4*i:]) {
				return fmt.Errorf("location %+v has another checksum in block %d", l, i)
			}
		}
		return nil
	})
	if err != nil || next != f.Size() {
		t.Errorf("located up to %d of %d: %v", next, f.Size(), err)
	}
	return located
}
