package backupdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backupdisk"
	"github.com/drydock-vm/drydock/internal/definition"
)

// unit is how long each run of data or of zeros is in a [memory], in bytes.
const unit = 512

// memory is a disk that has data and holes in turn.
type memory struct{ *bytes.Reader }

func noise(r *rand.Rand, units int) ([]byte, memory) {
	data := make([]byte, units*unit)
	for i := range data {
		if i/unit%2 == 0 {
			data[i] = byte(r.IntN(255) + 1)
		}
	}
	return data, memory{bytes.NewReader(data)}
}

func (m memory) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || length > m.Size()-off {
		return fmt.Errorf("%d bytes at %d: %w", length, off, io.ErrUnexpectedEOF)
	}
	for end := off + length; off < end; {
		e := disk.Extent{Offset: off, Length: min(end, (off/unit+1)*unit) - off}
		if off/unit%2 == 1 {
			e.Kind = disk.ExtentHole
		}
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

// TestInLayout: wherever one reads, there is what there would be if the pieces of the
// filesystem had been copied into the layout.
func TestInLayout(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	want, layout := noise(r, 40)
	inside, filesystem := noise(r, 20)
	d := &definition.Disk{Name: "a", Size: layout.Size(), Pieces: []definition.Piece{
		{Offset: 1024, At: 12*unit + 1024, Length: 3 * unit}, // behind room for a boot loader
		{Offset: 1024 + 3*unit, At: 700, Length: 333},
		{Offset: 1024 + 3*unit + 333, At: 12*unit + 1024 + 3*unit, Length: unit}, // close behind the first
		{Offset: 1024 + 4*unit + 333, At: 40*unit - (20*unit - 1024 - 4*unit - 333), Length: 20*unit - 1024 - 4*unit - 333},
	}}
	for _, p := range d.Pieces {
		copy(want[p.At:p.At+p.Length], inside[p.Offset:])
	}
	got, err := backupdisk.NewInLayout(layout, filesystem, d)
	if err != nil || got.Size() != int64(len(want)) {
		t.Fatalf("%v, %v", got, err)
	}
	for range 5000 {
		off := r.IntN(len(want))
		p := make([]byte, r.IntN(len(want))/(1+r.IntN(40))+1)
		n, err := got.ReadAt(p, int64(off))
		rest := want[off:]
		if n != min(len(p), len(rest)) || !bytes.Equal(p[:n], rest[:n]) || n < len(p) && !errors.Is(err, io.EOF) || n == len(p) && err != nil && n < len(rest) {
			t.Fatalf("%d bytes at %d: %d, %v", len(p), off, n, err)
		}
		checkExtents(t, got, want, int64(off), int64(n))
	}
	if err := got.Extents(1, got.Size(), func(disk.Extent) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("extents behind the end: %v", err)
	}
	if _, err := got.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("in front of the disk: %v", err)
	}
}

// checkExtents: they cover the range, and all that is not zeros is data.
func checkExtents(t *testing.T, d disk.Sparse, want []byte, off, length int64) {
	t.Helper()
	next, holes := off, 0
	err := d.Extents(off, length, func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 {
			t.Fatalf("%+v, and the last ended at %d", e, next)
		}
		next += e.Length
		if e.Kind == disk.ExtentData {
			return nil
		}
		holes++
		if len(bytes.TrimLeft(want[e.Offset:next], "\x00")) > 0 {
			t.Fatalf("%+v is no hole", e)
		}
		return nil
	})
	if err != nil || next != off+length || length > 4*unit && holes == 0 {
		t.Fatalf("extents of %d bytes at %d end at %d, with %d holes: %v", length, off, next, holes, err)
	}
}

// TestInLayoutThatDoesNotFit: pieces that reach beyond the layout or the filesystem.
func TestInLayoutThatDoesNotFit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	_, layout := noise(r, 8)
	_, filesystem := noise(r, 4)
	for name, d := range map[string]*definition.Disk{
		"a larger disk":       {Size: 9 * unit, Pieces: []definition.Piece{{At: unit, Length: 4 * unit}}},
		"a larger filesystem": {Size: 8 * unit, Pieces: []definition.Piece{{At: unit, Length: 4*unit + 1}}},
	} {
		if _, err := backupdisk.NewInLayout(layout, filesystem, d); !errors.Is(err, definition.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInLayoutOfDamage: what cannot be read is an error where it is, also at the end of
// the filesystem.
func TestInLayoutOfDamage(t *testing.T) {
	_, layout := noise(rand.New(rand.NewPCG(1, 2)), 8)
	d := &definition.Disk{Size: 8 * unit, Pieces: []definition.Piece{{At: 2 * unit, Length: 2 * unit}}}
	got, err := backupdisk.NewInLayout(layout, short{layout}, d)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := got.ReadAt(make([]byte, 8*unit), 0); n != 3*unit || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := got.ReadAt(make([]byte, 4*unit), 4*unit); n != 4*unit {
		t.Errorf("behind it %d bytes, %v", n, err)
	}
}

// short ends a unit in.
type short struct{ memory }

func (s short) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), unit-off))
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
