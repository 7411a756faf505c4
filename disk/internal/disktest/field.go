package disktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Field is a number in an on-disk structure.
type Field struct {
	Name         string
	Offset, Size int // bytes; the size is 1, 2, 4 or 8

	// Shift and Bits tell where in those bytes the number is, from the lowest bit
	// on; without Bits it is all of them.
	Shift, Bits int

	// Flags is a field each bit of which means something.
	Flags bool

	// Ignored is a field that the reader does not use: no value of it changes
	// anything.
	Ignored bool
}

// ParseFields reads a layout as the comments beside the code have it: offset, size
// and name of each field, in bytes. A name that starts with "-" is of a field that
// the reader ignores.
func ParseFields(t testing.TB, layout string) []Field {
	t.Helper()
	words := strings.Fields(layout)
	var list []Field
	for ; len(words) >= 3; words = words[3:] {
		var f Field
		if _, err := fmt.Sscan(words[0]+" "+words[1], &f.Offset, &f.Size); err != nil {
			t.Fatalf("field %q: %v", words[:3], err)
		}
		f.Name, f.Ignored = strings.CutPrefix(words[2], "-")
		list = append(list, f)
	}
	if len(words) > 0 || len(list) == 0 {
		t.Fatalf("layout %q", layout)
	}
	return list
}

// Place tells where in an image byte i of a structure is.
type Place func(i int) int64

// At is the place of a structure that lies in one piece.
func At(off int64) Place { return func(i int) int64 { return off + int64(i) } }

// Structure is a kind of on-disk structure, and where an image has it.
type Structure struct {
	Name   string
	Fields []Field
	Places []Place
	// Values are tried for each field besides: what a pointer to the structure
	// itself, or to others, looks like.
	Values []uint64
	// Swapped is for structures that keep their numbers the other way round than
	// the rest of the filesystem: those of a log.
	Swapped bool
}

// Seal makes the checksums right again of what lies around some bytes that were
// changed.
type Seal func(image []byte, changed []int64)

// EveryField sets each field of each structure to the values that break readers,
// makes the checksums right again, and reads: there is content, or an error that
// says where. It fails where a field that the reader uses can be anything, or one
// that it ignores cannot.
func (h *Damage) EveryField(t *testing.T, m Image, structures []Structure, seal Seal) {
	t.Helper()
	want := h.readFully(m)
	if want.Err != nil {
		t.Fatal(want.Err)
	}
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	tried := 0
	for _, s := range structures {
		if len(s.Places) == 0 {
			t.Errorf("the image has no %s", s.Name)
		}
		for _, f := range s.Fields {
			changed := ""
			for i, at := range s.Places {
				values := h.values(&s, &f, raw, at, i == 0)
				n, what := h.fieldValues(t, m, raw, &s, &f, at, seal, want, values)
				tried += n
				changed += what
			}
			if (changed == "") != f.Ignored && len(s.Places) > 0 {
				t.Errorf("%s, %s: ignored is %v, but the reader notices %q", s.Name, f.Name, f.Ignored, changed)
			}
		}
	}
	t.Logf("%d structures, %d fields and values", len(structures), tried)
}

// values are what a field is set to in one place: in the first of a structure all
// that is worth trying, in others less.
func (h *Damage) values(s *Structure, f *Field, raw []byte, at Place, first bool) []uint64 {
	old := make([]byte, f.Size)
	for i := range old {
		old[i] = raw[at(f.Offset+i)]
	}
	if !first && !h.Thorough {
		return f.values(h.numberOf(old, s), nil, false)
	}
	return f.values(h.numberOf(old, s), s.Values, first && h.Thorough)
}

// fieldValues tries the values for one field, and returns how many and which of
// them make a difference.
func (h *Damage) fieldValues(t *testing.T, m Image, raw []byte, s *Structure, f *Field, at Place, seal Seal, want Outcome, values []uint64) (tried int, changed string) {
	places := make([]int64, f.Size)
	old := make([]byte, f.Size)
	for i := range places {
		places[i] = at(f.Offset + i)
		old[i] = raw[places[i]]
	}
	for _, v := range values {
		for i, b := range h.bytesOf(f.put(h.numberOf(old, s), v), f.Size, s) {
			raw[places[i]] = b
		}
		image, restore := raw, func() {}
		if seal != nil {
			image, restore = sealed(raw, places, seal)
		}
		what := fmt.Sprintf("%s at %#x, %s = %#x", s.Name, places[0], f.Name, v)
		got := h.measured(t, what, Image{ReaderAt: Mem(image), Length: m.Length})
		restore()
		h.Check(t, what, got)
		h.checkPlace(t, what, got)
		tried++
		if got.Err != nil || got.Tree != want.Tree {
			changed += fmt.Sprintf("%#x ", v)
		}
	}
	for i, b := range old {
		raw[places[i]] = b
	}
	return tried, changed
}

// sealed seals an image in place, and returns what undoes it.
func sealed(raw []byte, places []int64, seal Seal) ([]byte, func()) {
	const around = 64 << 10
	from := max(0, slices.Min(places)-around)
	to := min(int64(len(raw)), slices.Max(places)+around)
	before := slices.Clone(raw[from:to])
	seal(raw, places)
	return raw, func() { copy(raw[from:to], before) }
}

func (h *Damage) orderOf(s *Structure) binary.ByteOrder {
	if h.BigEndian != s.Swapped {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (h *Damage) numberOf(p []byte, s *Structure) uint64 {
	wide := make([]byte, 8)
	if h.orderOf(s) == binary.BigEndian {
		copy(wide[8-len(p):], p)
	} else {
		copy(wide, p)
	}
	return h.orderOf(s).Uint64(wide)
}

func (h *Damage) bytesOf(v uint64, size int, s *Structure) []byte {
	wide := make([]byte, 8)
	h.orderOf(s).PutUint64(wide, v)
	if h.orderOf(s) == binary.BigEndian {
		return wide[8-size:]
	}
	return wide[:size]
}

func (f *Field) bits() int {
	if f.Bits > 0 {
		return f.Bits
	}
	return 8 * f.Size
}

func (f *Field) mask() uint64 { return ^uint64(0) >> (64 - f.bits()) }

func (f *Field) put(whole, v uint64) uint64 {
	return whole&^(f.mask()<<f.Shift) | v<<f.Shift
}

// values are the extremes and the neighbours of what a field is in bytes that are
// whole now, and more. With all, each single bit is turned, too.
func (f *Field) values(whole uint64, more []uint64, all bool) []uint64 {
	v, limit := whole>>f.Shift&f.mask(), f.mask()
	list := []uint64{0, 1, limit, limit - 1, limit >> 1, limit>>1 + 1, v + 1, v - 1, v * 2, v / 2}
	for bit := 0; all && bit < f.bits(); bit++ {
		list = append(list, v^1<<bit)
	}
	for _, m := range more {
		if m <= limit {
			list = append(list, m)
		}
	}
	for i := range list {
		list[i] &= limit
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return slices.DeleteFunc(list, func(d uint64) bool { return d == v })
}

// checkPlace fails a test where an error does not say where the damage is: by an
// offset, or by the number of the inode or the block, or since there is only one
// such structure.
func (h *Damage) checkPlace(t testing.TB, what string, got Outcome) {
	t.Helper()
	var detail *disk.Error
	if errors.As(got.Err, &detail) && detail.Offset < 0 && !strings.ContainsAny(detail.Structure, "0123456789") && !slices.Contains(h.Single, detail.Structure) {
		t.Errorf("%s: the error has no place: %v", what, got.Err)
	}
}

// measured is readFully, and fails a test where that takes more reading than it
// may.
func (h *Damage) measured(t testing.TB, what string, m Image) Outcome {
	t.Helper()
	counted := &Counted{Sparse: m}
	got := h.readFully(counted)
	if n := counted.Bytes.Load(); n > h.MaxRead {
		t.Errorf("%s: %d bytes were read in %d reads", what, n, counted.Reads.Load())
	}
	return got
}

// readFully is Read, together with what the filesystem says of itself and which
// parts of the disk it uses.
func (h *Damage) readFully(d disk.Sparse) Outcome {
	got := h.Read(d)
	if got.Err != nil {
		return got
	}
	fs, err := h.Open(d)
	if err != nil {
		return Outcome{Err: err}
	}
	var used maphash.Hash
	used.SetSeed(digestSeed)
	if u, ok := fs.(disk.Usage); ok {
		err = u.Used(0, func(off, length int64) error {
			_, err := fmt.Fprintln(&used, off, length)
			return err
		})
	}
	return Outcome{Tree: fmt.Sprintf("%+v %x %s %q", fs.Info(), used.Sum64(), got.Tree, got.Remarks), Err: err}
}
