// Package disktest is the test suite that every [disk.Sparse] must pass, and the
// reference tools that tests compare with.
package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Run runs a reference tool and returns its standard output. A tool that fails,
// or that is not there, fails the test.
func Run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	// mke2fs: images, and not what the disk below them has for sectors.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MKE2FS_DEVICE_SECTSIZE=512")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// OpenFile opens a file for reading, and returns it with its size.
func OpenFile(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

// Check checks that d holds want, and that it keeps the contract of
// [disk.Sparse]: reads of any size and place, at the end and beyond it, many at
// a time; extents that cover what they are asked for, and zeros where they say; and
// that of [disk.Locator], if it is that as well. What it says of its parts is what it
// says of the whole.
func Check(t testing.TB, d disk.Sparse, want []byte) {
	t.Helper()
	if d.Size() != int64(len(want)) {
		t.Fatalf("Size() = %d, want %d", d.Size(), len(want))
	}
	checkReads(t, d, want)
	checkEnds(t, d, want)
	checkExtents(t, d, want, 0, d.Size())
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		off := rng.Int64N(d.Size() + 1)
		checkExtents(t, d, want, off, rng.Int64N(d.Size()-off+1))
	}
	checkKinds(t, d, false)
	if l, ok := d.(disk.Locator); ok {
		checkLocations(t, l, d.Size())
	}
}

// checkReads reads d as a whole, then piece by piece from four goroutines.
func checkReads(t testing.TB, d disk.Sparse, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := d.ReadAt(got, 0); n != len(want) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("ReadAt(%d bytes, 0) = %d, %v", len(want), n, err)
	}
	if err := same(got, want, 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(worker)))
			buf := make([]byte, 256<<10)
			for range 100 {
				off := rng.IntN(len(want) + 1)
				n := min(1+rng.IntN(1<<rng.IntN(19)), len(want)-off)
				for i := range buf[:n] {
					buf[i] = 0xa5 // whatever is not written shows
				}
				if m, err := d.ReadAt(buf[:n], int64(off)); m != n || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("ReadAt(%d bytes, %d) = %d, %v", n, off, m, err)
					return
				}
				if err := same(buf[:n], want[off:off+n], off); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// checkEnds reads around the end of d, and before its start.
func checkEnds(t testing.TB, d disk.Sparse, want []byte) {
	t.Helper()
	size := d.Size()
	tail := min(size, 100)
	buf := make([]byte, tail+50)
	if n, err := d.ReadAt(buf, size-tail); int64(n) != tail || !errors.Is(err, io.EOF) {
		t.Errorf("reading over the end: %d, %v; want %d, io.EOF", n, err, tail)
	}
	if err := same(buf[:tail], want[size-tail:], int(size-tail)); err != nil {
		t.Error(err)
	}
	for _, off := range []int64{size, size + 1, 1<<63 - 1} {
		if n, err := d.ReadAt(buf, off); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("ReadAt at %d, beyond the end: %d, %v; want 0, io.EOF", off, n, err)
		}
	}
	if n, err := d.ReadAt(buf, -1); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at -1: %d, %v; want an error", n, err)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, size + 1}, {size + 1, 0}, {1, 1<<63 - 1}} {
		err := d.Extents(r[0], r[1], func(disk.Extent) error { return nil })
		if err == nil {
			t.Errorf("Extents(%d, %d) of a disk of %d bytes: no error", r[0], r[1], size)
		}
	}
}

// errStop is what a yield returns to end an iteration.
var errStop = errors.New("stop")

func checkExtents(t testing.TB, d disk.Sparse, want []byte, off, length int64) {
	t.Helper()
	next, count := off, 0
	err := d.Extents(off, length, func(e disk.Extent) error {
		count++
		if e.Offset != next || e.Length <= 0 || e.Length > off+length-next {
			return fmt.Errorf("extent %+v, expected one at %d", e, next)
		}
		next += e.Length
		if e.Kind != disk.ExtentData && !isZero(want[e.Offset:next]) {
			return fmt.Errorf("extent %+v, but there is data", e)
		}
		return nil
	})
	if err != nil || next != off+length {
		t.Fatalf("Extents(%d, %d): covered up to %d: %v", off, length, next, err)
	}
	for stop := range min(count, 3) {
		n := 0
		err := d.Extents(off, length, func(disk.Extent) error {
			if n++; n > stop {
				return errStop
			}
			return nil
		})
		if !errors.Is(err, errStop) || n != stop+1 {
			t.Errorf("Extents(%d, %d): yield stopped at call %d, but there were %d: %v", off, length, stop+1, n, err)
		}
	}
}

// extents returns the extents of a range.
func extents(d disk.Sparse, off, length int64) (list []disk.Extent, err error) {
	err = d.Extents(off, length, func(e disk.Extent) error { list = append(list, e); return nil })
	return list, err
}

// ranges calls check for ranges of a disk all over it, the empty one at its end too.
func ranges(size int64, check func(off, length int64)) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		off := r.Int64N(size + 1)
		check(off, r.Int64N(size-off+1))
	}
	check(size, 0)
}

// checkKinds checks that extents are of the same kind whatever range they are asked
// for. Unless that is to be exact, more may be known of a part of what is data.
func checkKinds(t testing.TB, d disk.Sparse, exact bool) {
	t.Helper()
	all, err := extents(d, 0, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	ranges(d.Size(), func(off, length int64) {
		list, err := extents(d, off, length)
		if err != nil {
			t.Fatalf("Extents(%d, %d): %v", off, length, err)
		}
		at := 0
		for _, part := range list {
			for at < len(all) && all[at].Offset+all[at].Length <= part.Offset {
				at++
			}
			for _, e := range all[at:] {
				if e.Offset >= part.Offset+part.Length {
					break
				}
				if e.Kind != part.Kind && (exact || e.Kind != disk.ExtentData) {
					t.Fatalf("extent %+v, as part of the whole %+v", part, e)
				}
			}
		}
	})
}

// locate returns the locations of a range, which they cover.
func locate(d disk.Locator, off, length int64) (list []disk.Location, err error) {
	next := off
	err = d.Locate(off, length, func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 || l.Length > off+length-next {
			return fmt.Errorf("location %+v, where offset %d is due", l, next)
		}
		next += l.Length
		list = append(list, l)
		return nil
	})
	if err == nil && next != off+length {
		err = fmt.Errorf("locations end at %d", next)
	}
	return list, err
}

// checkLocations checks that parts of a disk lie where the whole has them.
func checkLocations(t testing.TB, d disk.Locator, size int64) {
	t.Helper()
	all, err := locate(d, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	ranges(size, func(off, length int64) {
		list, err := locate(d, off, length)
		if err != nil {
			t.Fatalf("Locate(%d, %d): %v", off, length, err)
		}
		at := 0
		for _, part := range list {
			for at < len(all) && all[at].Offset+all[at].Length <= part.Offset {
				at++
			}
			for _, l := range all[at:] {
				if l.Offset >= part.Offset+part.Length {
					break
				}
				if l.Sums != nil && part.Device < 0 {
					continue // not all of a block that has a checksum
				}
				if l.Device != part.Device || l.Device >= 0 && l.At-l.Offset != part.At-part.Offset {
					t.Fatalf("location %+v, as part of the whole %+v", part, l)
				}
			}
		}
	})
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, size + 1}, {size + 1, 0}, {1, 1<<63 - 1}} {
		if err := d.Locate(r[0], r[1], func(disk.Location) error { return nil }); err == nil {
			t.Errorf("Locate(%d, %d) of %d bytes: no error", r[0], r[1], size)
		}
	}
	if err := d.Locate(0, size, func(disk.Location) error { return errStop }); len(all) > 0 && !errors.Is(err, errStop) {
		t.Errorf("the error of yield comes back as %v", err)
	}
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeros [64 << 10]byte

// same returns an error that says where got differs from want, which is at off.
func same(got, want []byte, off int) error {
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			return fmt.Errorf("reading %d bytes at %d: byte %d differs", len(want), off, off+i)
		}
	}
	return errors.New("more bytes than expected")
}

// Mem is a [disk.Sparse] in memory. It is all data.
type Mem []byte

// Size returns the number of bytes.
func (m Mem) Size() int64 { return int64(len(m)) }

// ReadAt reads as [bytes.Reader] does.
func (m Mem) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

// Extents yields one extent.
func (m Mem) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || off > m.Size() || length > m.Size()-off {
		return os.ErrInvalid
	}
	if length == 0 {
		return nil
	}
	return yield(disk.Extent{Offset: off, Length: length})
}
