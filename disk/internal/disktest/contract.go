package disktest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Lookup returns the inode number of the file at a path.
func Lookup(t testing.TB, fs disk.Filesystem, path string) uint64 {
	t.Helper()
	n, err := disk.Lookup(fs, []byte(path))
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

// CheckFile holds a regular file against the contract of [disk.Sparse], see
// [Check], and checks that its extents are of the same kind whatever range they
// are asked for.
func CheckFile(t testing.TB, fs disk.Filesystem, path string) {
	t.Helper()
	f, err := fs.Open(Lookup(t, fs, path))
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, f.Size())
	if n, err := f.ReadAt(whole, 0); n != len(whole) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("%s: read %d of %d bytes: %v", path, n, len(whole), err)
	}
	Check(t, f, whole)
	checkKinds(t, f)
}

func checkKinds(t testing.TB, f disk.Sparse) {
	t.Helper()
	var all []disk.Extent
	if err := f.Extents(0, f.Size(), func(e disk.Extent) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		off := r.Int64N(f.Size() + 1)
		length := r.Int64N(f.Size() - off + 1)
		at := 0
		err := f.Extents(off, length, func(e disk.Extent) error {
			for end := e.Offset + e.Length; at < len(all) && all[at].Offset < end; at++ {
				if last := all[at].Offset + all[at].Length; last > e.Offset && all[at].Kind != e.Kind {
					return fmt.Errorf("extent %+v, as part of the whole %+v", e, all[at])
				} else if last > end {
					break // the next extent is of it, too
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("Extents(%d, %d): %v", off, length, err)
		}
	}
}

// CheckConcurrent walks one filesystem, which should hold want, from several
// goroutines at once.
func CheckConcurrent(t testing.TB, want Tree, fs disk.Filesystem) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { CompareTrees(t, want, ReadTree(t, fs)) })
	}
	wg.Wait()
}

// CheckWrongType asks of a regular file and of a directory with entries what they
// are not, and checks that ReadDir ends where yield says so.
func CheckWrongType(t testing.TB, fs disk.Filesystem, file, dir uint64) {
	t.Helper()
	if _, err := fs.Open(dir); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("content of a directory: %v", err)
	}
	if _, err := fs.Readlink(file); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("target of a file: %v", err)
	}
	if err := fs.ReadDir(file, nil); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("entries of a file: %v", err)
	}
	stop := errors.New("stop")
	if err := fs.ReadDir(dir, func(disk.DirEntry) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
}
