package disktest

import (
	"errors"
	"fmt"
	"runtime/metrics"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Number is a field.
func Number(name string, off, size int) Field { return Field{Name: name, Offset: off, Size: size} }

// Flags is a field each bit of which means something.
func Flags(name string, off, size int) Field {
	return Field{Name: name, Offset: off, Size: size, Flags: true}
}

// Record is one structure of an image: where it is, and what its fields are.
type Record struct {
	Name   string
	Off    int64
	Fields []Field
	Block  disk.Extent // what is sealed together with it; nothing if its length is 0
}

// SetFields sets each field of structures to 0, 1, the largest number and the one
// below, and the neighbours of what is there, and makes the checksums right again.
// What is read then is checked as [Damage.Try] does.
func (h *Damage) SetFields(t *testing.T, m Image, list []Record) {
	t.Helper()
	for _, s := range list {
		block := s.Block
		if block.Length == 0 {
			block = disk.Extent{Offset: s.Off}
			for _, f := range s.Fields {
				block.Length = max(block.Length, int64(f.Offset+f.Size))
			}
		}
		original := make([]byte, block.Length)
		if _, err := m.ReadAt(original, block.Offset); err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Fields {
			at := int(s.Off-block.Offset) + f.Offset
			f.Size = min(f.Size, 8) // of a longer one the start
			old := h.numberOf(original[at:at+f.Size], &Structure{})
			for _, v := range f.values(old, nil, f.Flags) {
				data := slices.Clone(original)
				copy(data[at:], h.bytesOf(v, f.Size, &Structure{}))
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

// Try reads a damaged image, and checks that this comes to content, or to errors that
// say in which structure they are (and where, and what to do), allocates no more than MaxAlloc,
// reads no more than MaxRead, and does not panic. It must not run beside others.
func (h *Damage) Try(t testing.TB, what string, d disk.Sparse) (got Outcome) {
	t.Helper()
	returned := false
	defer func() {
		if !returned { // a panic, which ends the test
			t.Errorf("%s: panic", what)
		}
	}()
	c := &Counted{Sparse: d}
	before := allocated()
	got = h.Read(c)
	returned = true
	if n := allocated() - before; n > h.MaxAlloc {
		t.Errorf("%s: %d bytes allocated", what, n)
	}
	if n := c.Bytes.Load(); h.MaxRead > 0 && n > h.MaxRead {
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
