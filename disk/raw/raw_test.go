package raw_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/raw"
)

// region is a part of a test file that is written.
type region struct{ off, length int64 }

// sparseFile makes a file with holes, and returns its path and content.
func sparseFile(t *testing.T, size int64, regions ...region) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	for _, r := range regions {
		rng.Read(want[r.off : r.off+r.length])
		if _, err := f.WriteAt(want[r.off:r.off+r.length], r.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestFile(t *testing.T) {
	const mib = 1 << 20
	for name, v := range map[string]struct {
		size    int64
		regions []region
		data    int64 // bytes in data extents, on a filesystem of 4 KiB blocks
	}{
		"hole only":      {4 * mib, nil, 0},
		"data only":      {mib, []region{{0, mib}}, mib},
		"data, hole":     {4 * mib, []region{{0, mib}}, mib},
		"hole, data":     {4 * mib, []region{{3 * mib, mib}}, mib},
		"hole in middle": {4 * mib, []region{{0, 4096}, {3 * mib, 8192}}, 12288},
		"within a block": {mib, []region{{10_000, 5}}, 4096},
		"odd, data":      {mib + 700, []region{{mib, 700}}, 1024},
		"odd, hole":      {mib + 700, []region{{0, 4096}}, 4096},
		"one byte":       {1, []region{{0, 1}}, 512},
		"empty":          {0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path, want := sparseFile(t, v.size, v.regions...)
			f, size := disktest.OpenFile(t, path)
			d, err := raw.Open(f, size)
			if err != nil {
				t.Fatal(err)
			}
			padded := append(want, make([]byte, (512-v.size%512)%512)...)
			disktest.Check(t, d, padded)
			if got := dataBytes(t, d); got != v.data {
				t.Errorf("%d bytes in data extents, want %d", got, v.data)
			}

			// The same through a reader that does not know holes.
			d, err = raw.Open(bytes.NewReader(want), v.size)
			if err != nil {
				t.Fatal(err)
			}
			disktest.Check(t, d, padded)
			if got := dataBytes(t, d); got != d.Size() {
				t.Errorf("no file: %d bytes in data extents, want all %d", got, d.Size())
			}
		})
	}
}

func dataBytes(t *testing.T, d disk.Sparse) int64 {
	t.Helper()
	var n int64
	err := d.Extents(0, d.Size(), func(e disk.Extent) error {
		if e.Kind == disk.ExtentData {
			n += e.Length
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSizeIsQEMUs: QEMU shows a guest the same size, and the same bytes.
func TestSizeIsQEMUs(t *testing.T) {
	for _, size := range []int64{512, 513, 1023, 1<<20 + 1, 1<<20 + 511} {
		path, _ := sparseFile(t, size, region{0, size})
		out := filepath.Join(t.TempDir(), "out")
		disktest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, out)
		back := filepath.Join(t.TempDir(), "back")
		disktest.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", out, back)
		want, err := os.ReadFile(back)
		if err != nil {
			t.Fatal(err)
		}
		f, n := disktest.OpenFile(t, path)
		d, err := raw.Open(f, n)
		if err != nil {
			t.Fatal(err)
		}
		disktest.Check(t, d, want)
	}
}

// TestCutFile: what is gone is an error, and not zeros.
func TestCutFile(t *testing.T) {
	path, _ := sparseFile(t, 1<<20, region{0, 1 << 20})
	f, size := disktest.OpenFile(t, path)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if n, err := d.ReadAt(make([]byte, 8192), 0); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	err = d.Extents(0, d.Size(), func(disk.Extent) error { return nil })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Extents: %v", err)
	}
	var e *disk.Error
	if !errors.As(err, &e) || e.Layer != "raw" || e.Hint == "" {
		t.Errorf("the error is %#v", err)
	}
}

func TestOpenRefusesSizes(t *testing.T) {
	for _, size := range []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 511} {
		if _, err := raw.Open(bytes.NewReader(nil), size); !errors.Is(err, disk.ErrLimit) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

// TestContentIsNotLookedAt: a guest that writes the header of another format has
// a disk with that header on it.
func TestContentIsNotLookedAt(t *testing.T) {
	want := make([]byte, 4096)
	copy(want, "QFI\xfb\x00\x00\x00\x03")
	d, err := raw.Open(bytes.NewReader(want), 4096)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, d, want)
}
