package raw_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

// TestRandomFiles: files written and punched at random hold what a model says,
// and their extents are those of `qemu-img map`.
func TestRandomFiles(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 3))
		size := int64(1+rng.IntN(5000))*512 + rng.Int64N(512)
		var regions []region
		for range rng.IntN(12) {
			off := rng.Int64N(size)
			regions = append(regions, region{off, 1 + rng.Int64N(min(size-off, 1<<rng.IntN(18)))})
		}
		path, want := sparseFile(t, size, regions...)
		f, n := disktest.OpenFile(t, path)
		d, err := raw.Open(f, n)
		if err != nil {
			t.Fatal(err)
		}
		disktest.Check(t, d, append(want, make([]byte, (512-size%512)%512)...))
		if got, want := extents(t, d), qemuMap(t, path); !slices.Equal(got, want) {
			t.Errorf("seed %d: extents\n got %v\nwant %v", seed, got, want)
		}
	}
}

// extents are those of a disk, merged.
func extents(t *testing.T, d disk.Sparse) (list []disk.Extent) {
	t.Helper()
	err := d.Extents(0, d.Size(), func(e disk.Extent) error {
		list = merge(list, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func merge(list []disk.Extent, e disk.Extent) []disk.Extent {
	if n := len(list); n > 0 && list[n-1].Kind == e.Kind {
		list[n-1].Length += e.Length
		return list
	}
	return append(list, e)
}

// qemuMap is what QEMU finds out about a raw file.
func qemuMap(t *testing.T, path string) (list []disk.Extent) {
	t.Helper()
	var ranges []struct {
		Start, Length int64
		Data          bool
	}
	out := disktest.Run(t, "qemu-img", "map", "-f", "raw", "--output=json", path)
	if err := json.Unmarshal(out, &ranges); err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		kind := disk.ExtentHole
		if r.Data {
			kind = disk.ExtentData
		}
		list = merge(list, disk.Extent{Offset: r.Start, Length: r.Length, Kind: kind})
	}
	return list
}

// TestExtentsConcurrently: lseek moves an offset that all share, and nobody minds.
func TestExtentsConcurrently(t *testing.T) {
	path, _ := sparseFile(t, 4<<20, region{0, 4096}, region{1 << 20, 8192}, region{3 << 20, 4096})
	f, size := disktest.OpenFile(t, path)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	other, err := raw.Open(f, size) // of the same descriptor
	if err != nil {
		t.Fatal(err)
	}
	want := extents(t, d)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				var got []disk.Extent
				err := []disk.Sparse{d, other}[i%2].Extents(0, size, func(e disk.Extent) error {
					got = merge(got, e)
					return nil
				})
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%v, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestNoSeek: what has no holes to ask for, a character device here, is data.
func TestNoSeek(t *testing.T) {
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := raw.Open(f, 4096)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, d, make([]byte, 4096))
	if got := dataBytes(t, d); got != 4096 {
		t.Errorf("%d bytes of data", got)
	}
}

// TestClosed: an error of the host is passed on.
func TestClosed(t *testing.T) {
	path, _ := sparseFile(t, 8192, region{0, 8192})
	f, size := disktest.OpenFile(t, path)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := d.ReadAt(make([]byte, 10), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadAt: %v", err)
	}
	if err := d.Extents(0, 10, func(disk.Extent) error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Extents: %v", err)
	}
}

// TestLocate: the bytes are where the disk has them, but for what fills up the
// last sector.
func TestLocate(t *testing.T) {
	d, err := raw.Open(bytes.NewReader(make([]byte, 1300)), 1300)
	if err != nil {
		t.Fatal(err)
	}
	locator := d.(disk.Locator)
	body := disk.Location{Offset: 100, Length: 1200, At: 100}
	padding := disk.Location{Offset: 1300, Length: 236, Device: -1}
	for _, v := range []struct {
		off, length int64
		want        []disk.Location
	}{
		{100, 1436, []disk.Location{body, padding}},
		{100, 1200, []disk.Location{body}},
		{1300, 236, []disk.Location{padding}},
		{100, 0, nil},
		{1536, 0, nil},
	} {
		var got []disk.Location
		err := locator.Locate(v.off, v.length, func(l disk.Location) error { got = append(got, l); return nil })
		if err != nil || !slices.Equal(got, v.want) {
			t.Errorf("Locate(%d, %d): %v, %v; want %v", v.off, v.length, got, err, v.want)
		}
		for stop := range v.want {
			n := 0
			err := locator.Locate(v.off, v.length, func(disk.Location) error {
				if n++; n > stop {
					return io.EOF
				}
				return nil
			})
			if !errors.Is(err, io.EOF) || n != stop+1 {
				t.Errorf("yield failed at call %d of %d: %v", stop+1, n, err)
			}
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 1537}, {1537, 0}, {1, math.MaxInt64}} {
		if err := locator.Locate(r[0], r[1], func(disk.Location) error { return nil }); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("Locate(%d, %d): %v", r[0], r[1], err)
		}
	}
}
