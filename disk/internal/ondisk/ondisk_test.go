package ondisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

func TestWithin(t *testing.T) {
	for _, v := range []struct {
		off, length, size int64
		want              bool
	}{
		{0, 0, 0, true},
		{0, 1, 0, false},
		{0, 10, 10, true},
		{10, 0, 10, true},
		{10, 1, 10, false},
		{11, 0, 10, false},
		{-1, 1, 10, false},
		{1, -1, 10, false},
		{0, 0, -1, false},
		{1, math.MaxInt64, math.MaxInt64, false}, // the sum overflows
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, false},
		{math.MaxInt64, 0, math.MaxInt64, true},
		{math.MinInt64, math.MaxInt64, 10, false},
	} {
		if got := ondisk.Within(v.off, v.length, v.size); got != v.want {
			t.Errorf("Within(%d, %d, %d) = %v", v.off, v.length, v.size, got)
		}
	}
}

func TestWithinU(t *testing.T) {
	for _, v := range []struct {
		off, length, size uint64
		want              bool
	}{
		{0, 0, 0, true},
		{0, 10, 10, true},
		{10, 0, 10, true},
		{1, 10, 10, false},
		{11, 0, 10, false},
		{1, math.MaxUint64, 10, false},
		{1, math.MaxUint64, math.MaxUint64, false},
		{math.MaxUint64, 1, math.MaxUint64, false},
		{math.MaxUint64 - 1, 1, math.MaxUint64, true},
	} {
		if got := ondisk.WithinU(v.off, v.length, v.size); got != v.want {
			t.Errorf("WithinU(%d, %d, %d) = %v", v.off, v.length, v.size, got)
		}
	}
}

func TestCursor(t *testing.T) {
	buf := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	c := ondisk.NewCursor(buf, binary.BigEndian)
	if a, b, d := c.U8(), c.U16(), c.U32(); a != 1 || b != 0x0203 || d != 0x04050607 {
		t.Errorf("got %#x %#x %#x", a, b, d)
	}
	if q := c.U64(); q != 0x08090a0b0c0d0e0f || c.Offset() != 15 {
		t.Errorf("got %#x, at %d", q, c.Offset())
	}
	c.Seek(2)
	if b := c.Bytes(2); !bytes.Equal(b, []byte{3, 4}) || cap(b) != 2 {
		t.Errorf("got %v with room for %d", b, cap(b))
	}
	if c.Err() != nil {
		t.Errorf("an error: %v", c.Err())
	}
	if got := ondisk.NewCursor(buf, binary.LittleEndian).U32(); got != 0x04030201 {
		t.Errorf("little-endian: %#x", got)
	}
}

// TestCursorSticks: the first read that does not fit is the last that does
// anything.
func TestCursorSticks(t *testing.T) {
	for name, fail := range map[string]func(*ondisk.Cursor){
		"U8":         func(c *ondisk.Cursor) { c.Seek(4); c.U8() },
		"U16":        func(c *ondisk.Cursor) { c.Seek(3); c.U16() },
		"U32":        func(c *ondisk.Cursor) { c.Seek(1); c.U32() },
		"U64":        func(c *ondisk.Cursor) { c.U64() },
		"Bytes":      func(c *ondisk.Cursor) { c.Bytes(5) },
		"Bytes(-1)":  func(c *ondisk.Cursor) { c.Bytes(-1) },
		"Bytes(max)": func(c *ondisk.Cursor) { c.Skip(1); c.Bytes(math.MaxInt) },
		"Skip":       func(c *ondisk.Cursor) { c.Skip(5) },
		"Seek":       func(c *ondisk.Cursor) { c.Seek(5) },
		"Seek(-1)":   func(c *ondisk.Cursor) { c.Seek(-1) },
	} {
		c := ondisk.NewCursor([]byte{1, 2, 3, 4}, binary.BigEndian)
		fail(c)
		first := c.Err()
		if first == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if b, u, w, q := c.U8(), c.U16(), c.U32(), c.U64(); b != 0 || u != 0 || w != 0 || q != 0 || c.Bytes(1) != nil {
			t.Errorf("%s: reads go on", name)
		}
		if c.Err() != first {
			t.Errorf("%s: the error became %v", name, c.Err())
		}
	}
}

// shortReader returns n bytes and err, whatever it is asked for.
type shortReader struct {
	n   int
	err error
}

func (r shortReader) ReadAt(p []byte, _ int64) (int, error) { return min(r.n, len(p)), r.err }

func TestReadFull(t *testing.T) {
	broken := errors.New("broken")
	for name, v := range map[string]struct {
		r    io.ReaderAt
		want error
	}{
		"all":             {shortReader{8, nil}, nil},
		"all with EOF":    {shortReader{8, io.EOF}, nil},
		"short with EOF":  {shortReader{7, io.EOF}, io.ErrUnexpectedEOF},
		"nothing":         {shortReader{0, io.EOF}, io.ErrUnexpectedEOF},
		"short, no error": {shortReader{7, nil}, io.ErrNoProgress},
		"error":           {shortReader{7, broken}, broken},
		"timeout":         {shortReader{0, iotest.ErrTimeout}, iotest.ErrTimeout},
	} {
		if err := ondisk.ReadFull(v.r, make([]byte, 8), 0); !errors.Is(err, v.want) || (err == nil) != (v.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, v.want)
		}
	}
	if err := ondisk.ReadFull(shortReader{0, io.EOF}, nil, 100); err != nil {
		t.Errorf("nothing asked for: %v", err)
	}
}

// TestReadPieces reads content that comes three bytes at a time.
func TestReadPieces(t *testing.T) {
	content := []byte("0123456789")
	broken := errors.New("broken")
	some := func(p []byte, off int64) (int, error) {
		if off >= 8 {
			return 0, broken
		}
		return copy(p, content[off:min(off+3, 8)]), nil
	}
	for _, v := range []struct {
		off, size int64
		length    int
		want      string
		err       error
	}{
		{0, 8, 8, "01234567", nil},
		{1, 8, 4, "1234", nil},
		{5, 8, 9, "567", io.EOF},
		{8, 8, 1, "", io.EOF},
		{9, 8, 1, "", io.EOF},
		{math.MaxInt64, 8, 1, "", io.EOF},
		{8, 8, 0, "", io.EOF},
		{3, 8, 0, "", nil},
		{2, 10, 8, "234567", broken},
		{-1, 8, 1, "", ondisk.ErrRange},
		{math.MinInt64, 8, 1, "", ondisk.ErrRange},
	} {
		p := make([]byte, v.length)
		n, err := ondisk.ReadPieces(p, v.off, v.size, some)
		if string(p[:n]) != v.want || !errors.Is(err, v.err) || v.err == nil && err != nil {
			t.Errorf("%d bytes at %d of %d: %q, %v", v.length, v.off, v.size, p[:n], err)
		}
	}
}

func TestCheckRange(t *testing.T) {
	for _, v := range [][3]int64{{0, 0, 0}, {0, 8, 8}, {8, 0, 8}, {3, 2, 8}} {
		if err := ondisk.CheckRange(v[0], v[1], v[2]); err != nil {
			t.Errorf("%v: %v", v, err)
		}
	}
	for _, v := range [][3]int64{{0, 9, 8}, {9, 0, 8}, {-1, 2, 8}, {2, -1, 8}, {1, math.MaxInt64, 8}} {
		if err := ondisk.CheckRange(v[0], v[1], v[2]); !errors.Is(err, ondisk.ErrRange) {
			t.Errorf("%v: %v", v, err)
		}
	}
}

func TestPieces(t *testing.T) {
	for name, v := range map[string]struct {
		add   [][2]uint64
		block uint64
		twice bool
	}{
		"nothing":            {nil, 0, false},
		"one":                {[][2]uint64{{5, 10}}, 0, false},
		"one after another":  {[][2]uint64{{5, 10}, {15, 1}, {0, 5}}, 0, false},
		"apart":              {[][2]uint64{{50, 10}, {5, 10}, {30, 20}}, 0, false},
		"the same":           {[][2]uint64{{5, 1}, {9, 1}, {5, 1}}, 5, true},
		"overlapping":        {[][2]uint64{{50, 10}, {5, 10}, {45, 6}}, 50, true},
		"within":             {[][2]uint64{{5, 10}, {8, 1}}, 8, true},
		"joined, then again": {[][2]uint64{{5, 5}, {10, 5}, {9, 1}}, 9, true},
	} {
		var p ondisk.Pieces
		for _, a := range v.add {
			if !p.Add(a[0], a[1]) {
				t.Errorf("%s: too many", name)
			}
		}
		if block, twice := p.Twice(); block != v.block || twice != v.twice {
			t.Errorf("%s: %d, %v", name, block, twice)
		}
	}
	var p ondisk.Pieces
	n := uint64(0)
	for p.Add(2*n, 1) {
		n++
	}
	if n != 1<<20 || !p.Add(2*n-1, 1) {
		t.Errorf("%d pieces are kept", n)
	}
}

func TestFeatureNames(t *testing.T) {
	type feature uint64
	names := map[feature]string{1: "compression", 1 << 40: "late"}
	if got := ondisk.FeatureNames(1<<40|0x80000001, names, "incompat"); got != "compression, incompat bit 0x80000000, late" {
		t.Error(got)
	}
}

// TestLayer: an error says which layer, which structure, where, what is wrong and what to
// do, and wraps what kind of error it is.
func TestLayer(t *testing.T) {
	l := ondisk.Layer{Name: "ext4", Repair: "run e2fsck"}
	broken := errors.New("broken")
	for _, v := range []struct {
		err, kind error
		text      string
	}{
		{l.Damaged("inode 12", 4096, "mode %#o", 7), disk.ErrCorrupt, "ext4: inode 12 at offset 0x1000: damaged: mode 07 (run e2fsck)"},
		{l.Damaged("inode 12", 0, "mode"), disk.ErrCorrupt, "ext4: inode 12 at offset 0x0: damaged: mode (run e2fsck)"},
		{l.Damaged("inode 12", ondisk.Nowhere, "mode"), disk.ErrCorrupt, "ext4: inode 12: damaged: mode (run e2fsck)"},
		{l.Unsupported("superblock", 1024, "shut down", "feature %s", "x"), disk.ErrUnsupported, "ext4: superblock at offset 0x400: not supported: feature x (shut down)"},
		{l.Beyond("inode 12", ondisk.Nowhere, "%d extents", 9), disk.ErrLimit, "ext4: inode 12: beyond a limit: 9 extents (back this disk up as an image)"},
		{l.Absent("inode 13", "it is free"), disk.ErrNotExist, "ext4: inode 13: does not exist: it is free"},
		{l.Unreadable("inode 12", 4096, broken), broken, "ext4: inode 12 at offset 0x1000: broken"},
		{l.Unreadable("inode 12", 4096, io.ErrUnexpectedEOF), io.ErrUnexpectedEOF,
			"ext4: inode 12 at offset 0x1000: unexpected EOF (the disk ends before: the image is cut short, or this is the wrong partition)"},
	} {
		var detail *disk.Error
		if !errors.Is(v.err, v.kind) || v.err.Error() != v.text || !errors.As(v.err, &detail) || detail.Layer != "ext4" {
			t.Errorf("%v, want %s", v.err, v.text)
		}
	}
}

// TestOwners: a unit belongs to the directory that claims it first, and there are as many
// as the limit says.
func TestOwners(t *testing.T) {
	o := &ondisk.Owners{Layer: ondisk.Layer{Name: "fat"}, Unit: "cluster", Limit: 3}
	for _, c := range []struct {
		unit, ino uint64
		want      error
		text      string
	}{
		{5, 1, nil, ""},
		{6, 1, nil, ""},
		{5, 1, nil, ""}, // read again
		{5, 2, disk.ErrCorrupt, "fat: directory 2 at offset 0x200: damaged: its cluster 5 is one of directory 1 as well"},
		{7, 2, nil, ""},
		{8, 2, disk.ErrLimit, "fat: directory 2 at offset 0x200: beyond a limit: the directories that were read have more than 3 clusters"},
		{7, 2, nil, ""},
		{7, 3, disk.ErrCorrupt, "its cluster 7 is one of directory 2 as well"},
	} {
		err := o.Claim(c.unit, c.ino, 512)
		if !errors.Is(err, c.want) || c.want == nil && err != nil || c.want != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("unit %d for %d: %v, want %v that says %q", c.unit, c.ino, err, c.want, c.text)
		}
	}
}

// counted is a disk that counts its reads, and fails from some byte on.
type counted struct {
	disktest.Mem
	bad   int64
	reads int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	if off+int64(len(p)) > c.bad {
		return 0, iotest.ErrTimeout
	}
	return c.Mem.ReadAt(p, off)
}

// TestPages: a page is read once while there is room for it, one that cannot be read
// again each time, and the last one ends with the disk.
func TestPages(t *testing.T) {
	content := make(disktest.Mem, 100)
	for i := range content {
		content[i] = byte(i)
	}
	d := &counted{Mem: content, bad: 1000}
	p := ondisk.NewPages(d, 32, 1<<20)
	for _, off := range []int64{0, 1, 31, 32, 63, 95, 96, 99, 96, 0} {
		data, at, err := p.Page(off)
		want := int64(32)
		if off >= 96 {
			want = 4
		}
		if err != nil || int64(len(data)) != want || data[at] != byte(off) {
			t.Errorf("byte %d is at %d of %v: %v", off, at, data, err)
		}
	}
	if d.reads != 4 {
		t.Errorf("%d reads for 4 pages", d.reads)
	}
	if data, at, err := p.Page(100); err != nil || at != len(data) {
		t.Errorf("behind the end of the disk: %d of %v, %v", at, data, err)
	}

	d = &counted{Mem: content, bad: 64}
	p = ondisk.NewPages(d, 32, 1<<20)
	for range 2 {
		if _, _, err := p.Page(70); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("what cannot be read: %v", err)
		}
	}
	if d.reads != 2 {
		t.Errorf("%d reads of what cannot be read", d.reads)
	}

	d = &counted{Mem: content, bad: 1000}
	p = ondisk.NewPages(d, 32, 0) // no room
	for range 2 {
		if data, _, err := p.Page(40); err != nil || data[0] != 32 {
			t.Errorf("without room: %v, %v", data, err)
		}
	}
	if d.reads != 2 {
		t.Errorf("%d reads without room", d.reads)
	}
}
