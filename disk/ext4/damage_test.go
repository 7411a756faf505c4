package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damageShare is the share of damages that a test tries, unless it is thorough:
// one of so many.
const damageShare = 10

// maxDamageAlloc is what reading a damaged image may allocate altogether, freed
// or not, with the cache in it.
const maxDamageAlloc = 32 << 20

// outcome is what became of reading an image.
type outcome struct {
	tree string // what was read, as one string; only where err is nil
	err  error
}

// readAll opens an image and reads all that it holds.
func readAll(d disk.Sparse) outcome {
	fs, err := ext4.Open(d, ext4.Options{})
	if err != nil {
		return outcome{err: err}
	}
	var lines []string
	err = walkLeniently(fs, func(path string, n node) { lines = append(lines, fmt.Sprintf("%q %+v", path, n)) })
	if err != nil {
		return outcome{err: err}
	}
	slices.Sort(lines)
	return outcome{tree: fmt.Sprint(lines)}
}

// checkOutcome fails a test where an error is not what package disk promises.
func checkOutcome(t *testing.T, what string, got outcome) {
	t.Helper()
	var detail *disk.Error
	switch {
	case got.err == nil:
	case !errors.As(got.err, &detail) || detail.Layer != "ext4" || detail.Structure == "":
		t.Errorf("%s: not a disk.Error that names a structure: %v", what, got.err)
	}
}

// recorder notes which ranges are read.
type recorder struct {
	image
	mu     sync.Mutex
	ranges []disk.Extent
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges = append(r.ranges, disk.Extent{Offset: off, Length: int64(len(p))})
	return r.image.ReadAt(p, off)
}

// metadataRanges returns where an image has the structures that the reader
// uses: all that it reads for a walk without content. Nothing guards what is in
// data blocks, targets of symlinks among it.
func metadataRanges(t *testing.T, m image) []disk.Extent {
	t.Helper()
	r := &recorder{image: m}
	fs, err := ext4.Open(r, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var walk func(ino uint64) error
	walk = func(ino uint64) error {
		return fs.ReadDir(ino, func(e disk.DirEntry) error {
			n, err := fs.Inode(e.Ino)
			if err != nil {
				return err
			}
			if _, err := fs.Xattrs(e.Ino); err != nil {
				return err
			}
			switch n.Type() {
			case disk.ModeDir:
				return walk(e.Ino)
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
	if err := walk(fs.Info().Root); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.ranges, func(a, b disk.Extent) int { return int(a.Offset - b.Offset) })
	return slices.Compact(r.ranges)
}

// damages are the values that a field of two or four bytes is set to.
func damages(size int, v uint32) []uint32 {
	limit := ^uint32(0) >> (32 - 8*size)
	list := []uint32{0, 1, limit, limit - 1, (v + 1) & limit, (v - 1) & limit, v ^ (limit>>1 + 1)}
	list = slices.DeleteFunc(list, func(d uint32) bool { return d == v })
	slices.Sort(list)
	return slices.Compact(list)
}

// TestDamage sets each field of each structure to the values that break
// readers. With checksums, the result must be the right tree or an error; without
// them, what is read may differ, but must come to an end.
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			m := loadSeed(t, s.name)
			want := readAll(m)
			if want.err != nil {
				t.Fatal(want.err)
			}
			sealed := s.name == "csum" || s.name == "ea-inode" || s.name == "journal-clean"
			raw := make([]byte, m.size)
			if _, err := m.ReadAt(raw, 0); err != nil {
				t.Fatal(err)
			}
			fields, turn := 0, 0
			for _, off := range fieldOffsets(raw, metadataRanges(t, m)) {
				for _, size := range []int{2, 4} {
					if off%int64(size) != 0 {
						continue
					}
					for _, v := range damages(size, field(raw[off:], size)) {
						if turn++; !*thorough && turn%damageShare != 0 {
							continue
						}
						fields++
						what := fmt.Sprintf("%d bytes at %#x = %#x", size, off, v)
						got := readDamaged(t, m, off, size, v)
						checkOutcome(t, what, got)
						if sealed && got.err == nil && got.tree != want.tree {
							t.Errorf("%s: another tree, without an error", what)
						}
					}
				}
			}
			t.Logf("%d fields and values", fields)
		})
	}
}

func field(p []byte, size int) uint32 {
	if size == 2 {
		return uint32(binary.LittleEndian.Uint16(p))
	}
	return binary.LittleEndian.Uint32(p)
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

func readDamaged(t *testing.T, m image, off int64, size int, v uint32) outcome {
	p := patched{image: m, off: off, data: binary.LittleEndian.AppendUint32(nil, v)[:size]}
	var before, after runtime.MemStats
	sample := off%64 == 0 // reading the statistics stops the world
	if sample {
		runtime.ReadMemStats(&before)
	}
	got := readAll(p)
	if sample {
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > maxDamageAlloc*uint64(runtime.GOMAXPROCS(0)) { // so many tests run at once
			t.Errorf("%d bytes at %#x = %#x: %d bytes allocated", size, off, v, n)
		}
	}
	return got
}

// cut is an image that ends early, whatever its size says.
type cut struct {
	image
	end int64
}

func (c cut) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.end {
		return 0, io.EOF
	}
	if off+int64(len(p)) > c.end {
		n, _ := c.image.ReadAt(p[:c.end-off], off)
		return n, io.EOF
	}
	return c.image.ReadAt(p, off)
}

// TestCut cuts images at the start, in the middle and at the end of each
// structure, once honestly and once behind a disk that claims its old size.
func TestCut(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			m := loadSeed(t, s.name)
			want := readAll(m)
			for _, r := range metadataRanges(t, m) {
				for _, end := range []int64{r.Offset, r.Offset + 1, r.Offset + r.Length/2, r.Offset + r.Length - 1} {
					short := m
					short.size = end
					if got := readAll(cut{short, end}); got.err == nil && end < m.size-1024 {
						t.Errorf("cut at %#x: no error", end)
					} else {
						checkOutcome(t, fmt.Sprintf("cut at %#x", end), got)
					}
					got := readAll(cut{m, end})
					checkOutcome(t, fmt.Sprintf("unreadable from %#x", end), got)
					if got.err == nil && got.tree != want.tree {
						t.Errorf("unreadable from %#x: another tree, without an error", end)
					}
				}
			}
		})
	}
}

// TestErrorsName checks that errors say where the damage is.
func TestErrorsName(t *testing.T) {
	m := loadSeed(t, "csum")
	fs, err := ext4.Open(m, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, off := range metadataRanges(t, m) {
		// The last byte of a block is covered by its checksum, or is part of it.
		p := patched{image: m, off: off.Offset + off.Length - 1, data: []byte{0xa5}}
		var detail *disk.Error
		if got := readAll(p); errors.As(got.err, &detail) {
			seen[kindOf(detail.Structure)] = true
		}
	}
	for _, kind := range []string{"superblock", "directory block # of inode #", "extent tree of inode #", "attribute block of inode #"} {
		if !seen[kind] {
			t.Errorf("no error names %q: %v", kind, seen)
		}
	}
	for _, ino := range []uint64{0, 1, 8, 95, 96, 97, 1 << 32, 1<<64 - 1} {
		if _, err := fs.Inode(ino); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("inode %d: %v", ino, err)
		}
	}
}

// kindOf replaces numbers by #.
func kindOf(structure string) string {
	var out []byte
	for _, b := range []byte(structure) {
		if b >= '0' && b <= '9' {
			if len(out) > 0 && out[len(out)-1] == '#' {
				continue
			}
			b = '#'
		}
		out = append(out, b)
	}
	return string(out)
}

// TestUnusedBytes damages bytes that the reader does not use, of structures
// that it does: only the checksum can tell.
func TestUnusedBytes(t *testing.T) {
	m := loadSeed(t, "csum")
	raw := make([]byte, m.size)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	fs := openSeed(t, "csum", ext4.Options{})
	large := binary.LittleEndian.AppendUint32(nil, uint32(lookup(t, fs, "large")))
	root := bytes.Index(raw, append(large, 12, 0, 1, 2, '.', 0)) // block 0 of the directory
	table := int(binary.LittleEndian.Uint32(raw[2048+8:])) * 1024
	for _, d := range []struct {
		at   int
		want string
	}{
		{1024 + 0x2c, "superblock"},                                               // time of the last mount
		{2048 + 0x0c, "group descriptor 0"},                                       // free blocks
		{table + 256 + 0x14, "inode 2"},                                           // deletion time
		{root + 32 + 8, "directory block 0 of inode #"},                           // a hash
		{root + 12 + 12 + 5, "directory block 0 of inode #"},                      // levels of the hash tree
		{bytes.Index(raw, []byte("39nnnn")) + 62, "directory block # of inode #"}, // padding behind a name
	} {
		p := patched{image: m, off: int64(d.at), data: []byte{raw[d.at] ^ 0x40}}
		var detail *disk.Error
		if got := readAll(p); !errors.As(got.err, &detail) || !bytes.Contains([]byte(kindOf(detail.Structure)), []byte(kindOf(d.want))) {
			t.Errorf("byte %#x: %v, want one about %s", d.at, got.err, d.want)
		}
	}
}
