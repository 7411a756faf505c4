package disktest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Damage does harm to images of one kind of filesystem, and checks that reading
// them gives what package disk promises.
type Damage struct {
	Layer string // what every error must name
	Open  func(disk.Sparse) (disk.Filesystem, error)

	// BigEndian says how the filesystem keeps its numbers.
	BigEndian bool
	// Share is the part of all damages that is tried: one of so many.
	Share int
	// MaxAlloc is what reading one damaged image may allocate altogether, freed
	// or not, in bytes.
	MaxAlloc uint64
	// Strict says that [Damage.Try] wants a place and a way out in each error, but
	// for those of what is not there.
	Strict bool
	// Seal makes the checksum of a block right; nil where there is none.
	Seal func(block []byte)
	// More, if it is not nil, reads what a walk through the tree does not, and
	// calls failed for each error.
	More func(fs disk.Filesystem, failed func(error))
	// Thorough has each bit of each field turned, too.
	Thorough bool
	// MaxRead is how many bytes of one damaged image may be read until all of it is,
	// which stands for the time that this takes; 0 means that [Damage.Try] does not
	// look.
	MaxRead int64
	// Single are the names of structures of which a disk has one: they are place
	// enough.
	Single []string
	// Optional is the number of bytes at the end of an image that may be cut
	// off without an error.
	Optional int64
}

// Outcome is what became of reading an image.
type Outcome struct {
	Tree string // what was read, as one string; only where Err is nil
	Err  error  // the first
	Errs []error

	Remarks []string // of the filesystem, after all was read
}

// Read opens an image and reads all that it holds.
func (h *Damage) Read(d disk.Sparse) Outcome {
	fs, err := h.Open(d)
	if err != nil {
		return Outcome{Err: err, Errs: []error{err}}
	}
	var lines []string
	var errs []error
	failed := func(err error) { errs = append(errs, err) }
	walkLeniently(fs, func(path string, n Node) { lines = append(lines, fmt.Sprintf("%q %+v", path, n)) }, failed)
	if h.More != nil {
		h.More(fs, failed)
	}
	if len(errs) > 0 {
		return Outcome{Err: errs[0], Errs: errs}
	}
	slices.Sort(lines)
	return Outcome{Tree: fmt.Sprint(lines), Remarks: fs.Info().Remarks}
}

// Check fails a test where an error is not what package disk promises.
func (h *Damage) Check(t testing.TB, what string, got Outcome) {
	t.Helper()
	var detail *disk.Error
	if got.Err != nil && (!errors.As(got.Err, &detail) || detail.Layer != h.Layer || detail.Structure == "") {
		t.Errorf("%s: not a disk.Error that names a structure of %s: %v", what, h.Layer, got.Err)
	}
}

// KindOf replaces the numbers in the name of a structure by "#".
func KindOf(structure string) string {
	var out strings.Builder
	digits := false
	for _, r := range structure {
		digit := r >= '0' && r <= '9'
		if digit && !digits {
			out.WriteByte('#')
		} else if !digit {
			out.WriteRune(r)
		}
		digits = digit
	}
	return out.String()
}

// Recorder notes which ranges of an image are read.
type Recorder struct {
	Image
	mu     sync.Mutex
	ranges []disk.Extent
}

// Ranges returns the ranges, sorted, each once.
func (r *Recorder) Ranges() []disk.Extent {
	slices.SortFunc(r.ranges, func(a, b disk.Extent) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	return slices.Compact(r.ranges)
}

// ReadAt notes the range, and reads.
func (r *Recorder) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges = append(r.ranges, disk.Extent{Offset: off, Length: int64(len(p))})
	return r.Image.ReadAt(p, off)
}

// Structures returns where an image has the structures that the reader uses: all
// that it reads for a walk without content, each range once.
func (h *Damage) Structures(t testing.TB, m Image) []disk.Extent {
	t.Helper()
	r := &Recorder{Image: m}
	fs, err := h.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := walkStructures(fs, fs.Info().Root); err != nil {
		t.Fatal(err)
	}
	return r.Ranges()
}

func walkStructures(fs disk.Filesystem, dir uint64) error {
	return fs.ReadDir(dir, func(e disk.DirEntry) error {
		n, err := fs.Inode(e.Ino)
		if err != nil {
			return err
		}
		if _, err := fs.Xattrs(e.Ino); err != nil {
			return err
		}
		switch n.Type() {
		case disk.ModeDir:
			return walkStructures(fs, e.Ino)
		case disk.ModeRegular:
			f, err := fs.Open(e.Ino)
			if err != nil {
				return err
			}
			return f.Extents(0, f.Size(), func(disk.Extent) error { return nil })
		}
		return nil
	})
}

// Fields sets each field of two and of four bytes of each structure to the
// values that break readers. Where the structures are sealed by checksums the
// result must be the right tree or an error; without them what is read may
// differ, but must come to an end.
func (h *Damage) Fields(t *testing.T, m Image, sealed bool) {
	t.Helper()
	want := h.Read(m)
	if want.Err != nil {
		t.Fatal(want.Err)
	}
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	fields, turn := 0, 0
	for _, off := range fieldOffsets(raw, h.Structures(t, m)) {
		for _, size := range []int{2, 4} {
			if off%int64(size) != 0 {
				continue
			}
			for _, v := range damages(size, h.number(raw[off:], size)) {
				if turn++; turn%h.Share != 0 {
					continue
				}
				fields++
				what := fmt.Sprintf("%d bytes at %#x = %#x", size, off, v)
				got := h.readDamaged(t, m, off, size, v)
				h.Check(t, what, got)
				if sealed && got.Err == nil && got.Tree != want.Tree {
					t.Errorf("%s: another tree, without an error", what)
				}
			}
		}
	}
	if fields == 0 {
		t.Error("no field was damaged")
	}
	t.Logf("%d fields and values", fields)
}

// damages are the values that a field of two or four bytes is set to.
func damages(size int, v uint32) []uint32 {
	limit := ^uint32(0) >> (32 - 8*size)
	list := []uint32{0, 1, limit, limit - 1, (v + 1) & limit, (v - 1) & limit, v ^ (limit>>1 + 1)}
	list = slices.DeleteFunc(list, func(d uint32) bool { return d == v })
	slices.Sort(list)
	return slices.Compact(list)
}

func (h *Damage) order() interface {
	binary.ByteOrder
	binary.AppendByteOrder
} {
	if h.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (h *Damage) number(p []byte, size int) uint32 {
	if size == 2 {
		return uint32(h.order().Uint16(p))
	}
	return h.order().Uint32(p)
}

// fieldOffsets returns the offsets of the fields worth damaging: one of each
// run of equal 16 bytes.
func fieldOffsets(raw []byte, ranges []disk.Extent) []int64 {
	const line = 16
	var list []int64
	var end int64
	for _, r := range ranges {
		for off := max(r.Offset, end); off+line <= r.Offset+r.Length; off += line {
			end = off + line
			if off >= line && bytes.Equal(raw[off:off+line], raw[off-line:off]) {
				continue
			}
			for i := int64(0); i < line; i += 2 {
				list = append(list, off+i)
			}
		}
	}
	return list
}

func (h *Damage) readDamaged(t testing.TB, m Image, off int64, size int, v uint32) Outcome {
	t.Helper()
	data := h.order().AppendUint32(nil, v)
	if size == 2 {
		data = h.order().AppendUint16(nil, uint16(v))
	}
	p := Patched{Image: m, Off: off, Data: data}
	var before, after runtime.MemStats
	sample := off%64 == 0 // reading the statistics stops the world
	if sample {
		runtime.ReadMemStats(&before)
	}
	got := h.Read(p)
	if sample {
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > h.MaxAlloc*uint64(runtime.GOMAXPROCS(0)) { // so many tests run at once
			t.Errorf("%d bytes at %#x = %#x: %d bytes allocated", size, off, v, n)
		}
	}
	return got
}

// cut is an image that ends early, whatever its size says.
type cut struct {
	Image
	end int64
}

func (c cut) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.end {
		return 0, io.EOF
	}
	if off+int64(len(p)) > c.end {
		n, _ := c.Image.ReadAt(p[:c.end-off], off)
		return n, io.EOF
	}
	return c.Image.ReadAt(p, off)
}

// Cuts cuts an image at the start, in the middle and at the end of each
// structure, once honestly and once behind a disk that claims its old size.
func (h *Damage) Cuts(t *testing.T, m Image) {
	t.Helper()
	want := h.Read(m)
	if want.Err != nil {
		t.Fatal(want.Err)
	}
	for _, r := range h.Structures(t, m) {
		for _, end := range []int64{r.Offset, r.Offset + 1, r.Offset + r.Length/2, r.Offset + r.Length - 1} {
			short := m
			short.Length = end
			got := h.Read(cut{short, end})
			if got.Err == nil && end < m.Length-h.Optional {
				t.Errorf("cut at %#x: no error", end)
			}
			h.Check(t, fmt.Sprintf("cut at %#x", end), got)
			got = h.Read(cut{m, end})
			h.Check(t, fmt.Sprintf("unreadable from %#x", end), got)
			if got.Err == nil && got.Tree != want.Tree {
				t.Errorf("unreadable from %#x: another tree, without an error", end)
			}
		}
	}
}

// ErrBadSector is what a [BadSector] fails with.
var ErrBadSector = errors.New("bad sector")

// BadSector is an image of which some bytes cannot be read.
type BadSector struct {
	Image
	Bad disk.Extent
}

// ReadAt reads what does not touch those bytes.
func (b BadSector) ReadAt(p []byte, off int64) (int, error) {
	if off < b.Bad.Offset+b.Bad.Length && b.Bad.Offset < off+int64(len(p)) {
		return 0, ErrBadSector
	}
	return b.Image.ReadAt(p, off)
}

// BadSectors has the disk fail wherever the reader reads, in one place after the other.
// What cannot be read is no damage that a repair in the guest would mend: each error
// passes on the disk's own, and where there is none all is as it was, or a remark says
// what is not.
func (h *Damage) BadSectors(t *testing.T, m Image) {
	t.Helper()
	r := &Recorder{Image: m}
	want := h.Read(r)
	if want.Err != nil {
		t.Fatal(want.Err)
	}
	errs := 0
	for _, bad := range r.Ranges() {
		got := h.Read(BadSector{m, bad})
		what := fmt.Sprintf("%d bytes at %#x cannot be read", bad.Length, bad.Offset)
		for _, err := range got.Errs {
			h.Check(t, what, Outcome{Err: err})
			if !errors.Is(err, ErrBadSector) || errors.Is(err, disk.ErrCorrupt) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got.Err == nil && got.Tree != want.Tree && slices.Equal(got.Remarks, want.Remarks) {
			t.Errorf("%s: another tree, without an error or a remark", what)
		}
		errs += len(got.Errs)
	}
	if errs == 0 {
		t.Error("no bad sector makes a difference")
	}
}

// maxMutations bounds the work of one fuzz input.
const maxMutations = 32

// Mutate returns an image that a fuzz input has changed: 7 bytes each, three for
// a place, four for its new content.
func Mutate(m Image, input []byte) disk.Sparse {
	p := mutated{Image: m, bytes: make(map[int64]byte)}
	for _, at := range MutatedPlaces(m, input) {
		for i, v := range input[3:7] {
			p.bytes[at+int64(i)] = v
		}
		input = input[7:]
	}
	return p
}

// MutatedPlaces returns where [Mutate] changes an image.
func MutatedPlaces(m Image, input []byte) (places []int64) {
	for ; len(input) >= 7 && len(places) < maxMutations; input = input[7:] {
		places = append(places, int64(binary.BigEndian.Uint32(append([]byte{0}, input[:3]...)))%(m.Length-4))
	}
	return places
}

type mutated struct {
	Image
	bytes map[int64]byte
}

func (p mutated) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Image.ReadAt(b, off)
	for at, v := range p.bytes {
		if at >= off && at < off+int64(n) {
			b[at-off] = v
		}
	}
	return n, err
}

// Fuzz reads a mutated image twice, and checks that both reads come to an end
// and agree.
func (h *Damage) Fuzz(t *testing.T, m Image, input []byte) {
	t.Helper()
	h.ReadTwice(t, Mutate(m, input))
}

// ReadTwice reads an image twice, and checks that both reads come to an end and
// agree.
func (h *Damage) ReadTwice(t *testing.T, d disk.Sparse) {
	t.Helper()
	first, second := h.Read(d), h.Read(d)
	h.Check(t, "fuzzed", first)
	if first.Tree != second.Tree || (first.Err == nil) != (second.Err == nil) {
		t.Errorf("two reads differ: %v, %v", first.Err, second.Err)
	}
}
