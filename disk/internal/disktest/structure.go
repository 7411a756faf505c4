package disktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Field is a number in a structure. Of one that is longer than 8 bytes only the
// first 8 are damaged.
type Field struct {
	Name      string
	Off, Size int  // bytes, from the start of the structure
	Flags     bool // each bit means something
}

// Number is a field.
func Number(name string, off, size int) Field { return Field{Name: name, Off: off, Size: size} }

// Flags is a field each bit of which means something.
func Flags(name string, off, size int) Field {
	return Field{Name: name, Off: off, Size: size, Flags: true}
}

// Structure is where an image has a structure, and what its fields are.
type Structure struct {
	Name   string
	Off    int64
	Fields []Field
	Block  disk.Extent // what is sealed together with it; nothing if its length is 0
}

// SetFields sets each field of structures to 0, 1, the largest number and the one
// below, and the neighbours of what is there, and makes the checksums right again.
// What is read then is checked as [Damage.Try] does.
func (h *Damage) SetFields(t *testing.T, m Image, list []Structure) {
	t.Helper()
	for _, s := range list {
		block := s.Block
		if block.Length == 0 {
			block = disk.Extent{Offset: s.Off}
			for _, f := range s.Fields {
				block.Length = max(block.Length, int64(f.Off+f.Size))
			}
		}
		original := make([]byte, block.Length)
		if _, err := m.ReadAt(original, block.Offset); err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Fields {
			at := int(s.Off-block.Offset) + f.Off
			for _, v := range h.fieldValues(original[at:], f) {
				data := slices.Clone(original)
				h.putNumber(data[at:], f, v)
				h.Try(t, fmt.Sprintf("%s at %#x: %s = %#x", s.Name, s.Off, f.Name, v), h.Sealed(m, block.Offset, data))
			}
		}
	}
}

// Sealed is an image whose block at off was replaced by data, which it seals.
func (h *Damage) Sealed(m Image, off int64, data []byte) disk.Sparse {
	if h.Seal != nil {
		h.Seal(data)
	}
	return Patched{Image: m, Off: off, Data: data}
}

// fieldValues are what a field is set to, whose content is at the start of p.
func (h *Damage) fieldValues(p []byte, f Field) []uint64 {
	size := min(f.Size, 8)
	limit := ^uint64(0) >> (64 - 8*size)
	v := h.fieldNumber(p, size)
	list := []uint64{0, 1, limit, limit - 1, v + 1, v - 1, limit>>1 + 1, limit >> 1, v << 1, v >> 1}
	for bit := 0; f.Flags && bit < 8*size; bit++ {
		list = append(list, v^1<<bit)
	}
	for i := range list {
		list[i] &= limit
	}
	list = slices.DeleteFunc(list, func(d uint64) bool { return d == v })
	slices.Sort(list)
	return slices.Compact(list)
}

// fieldNumber is the number in the first size bytes of p, at most 8.
func (h *Damage) fieldNumber(p []byte, size int) (v uint64) {
	for i := range size {
		b := p[i]
		if !h.BigEndian {
			b = p[size-1-i]
		}
		v = v<<8 | uint64(b)
	}
	return v
}

func (h *Damage) putNumber(p []byte, f Field, v uint64) {
	size := min(f.Size, 8)
	var b [8]byte
	if h.BigEndian {
		binary.BigEndian.PutUint64(b[:], v)
		copy(p[:size], b[8-size:])
		return
	}
	binary.LittleEndian.PutUint64(b[:], v)
	copy(p[:size], b[:])
}

// counter counts what is read.
type counter struct {
	disk.Sparse
	bytes atomic.Int64
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.Sparse.ReadAt(p, off)
}

// Try reads a damaged image, and checks that this comes to content, or to errors that
// say in which structure they are (and where, and what to do), allocates no more than MaxAlloc,
// reads no more than MaxRead, and does not panic. It must not run beside others.
func (h *Damage) Try(t testing.TB, what string, d disk.Sparse) (got Outcome) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: panic: %v\n%s", what, r, debug.Stack())
		}
	}()
	c := &counter{Sparse: d}
	before := allocated()
	got = h.Read(c)
	if n := allocated() - before; n > h.MaxAlloc {
		t.Errorf("%s: %d bytes allocated", what, n)
	}
	if n := c.bytes.Load(); h.MaxRead > 0 && n > h.MaxRead {
		t.Errorf("%s: %d bytes read", what, n)
	}
	for _, err := range got.Errs {
		var detail *disk.Error
		h.Check(t, what, Outcome{Err: err})
		if h.Strict && errors.As(err, &detail) && (detail.Offset < 0 || detail.Hint == "") && !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("%s: the error does not say where, or what to do: %v", what, err)
		}
	}
	return got
}

// allocated is how many bytes the process has allocated so far, freed or not.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
