package disktest

import (
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// UsedRanges returns what Used yields, and checks its order.
func UsedRanges(t testing.TB, fs disk.Usage) (list []disk.Extent) {
	t.Helper()
	end := int64(-1)
	err := fs.Used(0, func(off, length int64) error {
		if off <= end || length <= 0 {
			t.Fatalf("%d bytes at %d, behind %d", length, off, end)
		}
		end = off + length
		list = append(list, disk.Extent{Offset: off, Length: length})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// watchedImage fails a test that reads what is not used.
type watchedImage struct {
	Image
	t    testing.TB
	used []disk.Extent // nil: anything may be read

	mu    sync.Mutex // guards count
	count int
}

func (w *watchedImage) ReadAt(p []byte, off int64) (int, error) {
	if w.used != nil {
		i, _ := slices.BinarySearchFunc(w.used, off, func(r disk.Extent, off int64) int {
			if r.Offset+r.Length <= off {
				return -1
			}
			return 1
		})
		if i == len(w.used) || off < w.used[i].Offset || off+int64(len(p)) > w.used[i].Offset+w.used[i].Length {
			w.t.Errorf("%d bytes at %d are read, which are not in use", len(p), off)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.count++
	}
	return w.Image.ReadAt(p, off)
}

// CheckReadsUsed reads all of a disk, and nothing that is not in use.
func CheckReadsUsed(t testing.TB, path string, open func(disk.Sparse) (disk.Filesystem, error)) {
	t.Helper()
	w := &watchedImage{Image: OpenImage(t, path), t: t}
	fs, err := open(w)
	if err != nil {
		t.Fatal(err)
	}
	w.used = UsedRanges(t, fs.(disk.Usage))
	ReadTree(t, fs)
	if w.count == 0 {
		t.Error("nothing was read")
	}
}

// CheckLocations compares each file's content with what lies where Locate says.
// Data that lies nowhere is counted.
func CheckLocations(t testing.TB, image io.ReaderAt, fs disk.Filesystem) (located, nowhere int64) {
	t.Helper()
	err := WalkLeniently(fs, func(path string, n Node) {
		if n.Content == "" {
			return
		}
		f, err := fs.Open(n.Ino)
		if err != nil {
			t.Fatal(err)
		}
		next := int64(0)
		err = f.(disk.Locator).Locate(0, f.Size(), func(l disk.Location) error {
			if l.Offset != next || l.Length <= 0 {
				t.Fatalf("%q: location %+v, where offset %d is due", path, l, next)
			}
			next += l.Length
			if l.Device < 0 {
				return f.Extents(l.Offset, l.Length, func(e disk.Extent) error {
					if e.Kind == disk.ExtentData {
						nowhere += e.Length
					}
					return nil
				})
			}
			located += l.Length
			sample := min(l.Length, 64<<10)
			got, want := make([]byte, sample), make([]byte, sample)
			if _, err := f.ReadAt(want, l.Offset); err != nil && err != io.EOF {
				return err
			}
			if _, err := image.ReadAt(got, l.At); err != nil && err != io.EOF {
				return err
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q: other content at %+v", path, l)
			}
			return nil
		})
		if err != nil || next != f.Size() {
			t.Errorf("%q: locations end at %d of %d: %v", path, next, f.Size(), err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return located, nowhere
}
