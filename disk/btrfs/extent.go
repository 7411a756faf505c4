package btrfs

import (
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// segmentExtents is how many extents of a file are kept at a time: those
	// of two leaves of 16 KiB.
	segmentExtents = 256

	// maxCompressed is the most that is compressed together, before and after.
	maxCompressed = 128 << 10

	// maxFileEnd is where the last extent may end.
	maxFileEnd = math.MaxInt64 - maxNodeSize + 1
)

// extent is a range of a file.
//
// Layout of struct btrfs_file_extent_item, little endian; inline data takes the
// place of what is behind type:
//
//	0x00 8 generation     0x11 1 encryption       0x15 8 disk_bytenr
//	0x08 8 ram_bytes      0x12 2 other_encoding   0x1D 8 disk_num_bytes
//	0x10 1 compression    0x14 1 type             0x25 8 offset
//	                                              0x2D 8 num_bytes
type extent struct {
	start, end  int64 // in the file
	kind        disk.ExtentKind
	compression uint8
	inline      []byte // what is in the item, or nil
	at          int64  // of the item, for errors

	// Where data lies on disk, how much that is once decompressed, and what of
	// that the extent starts with.
	logical, length uint64
	ram             uint64
	offset          uint64
}

const (
	extentItemSize   = 0x35
	extentHeaderSize = 0x15

	extentInline   = 0
	extentRegular  = 1
	extentPrealloc = 2
)

// parseExtent reads and checks the extent at offset start of a file.
func (n *inode) parseExtent(start uint64, v value) (extent, error) {
	raw := v.raw
	sector := uint64(n.volume.sb.sectorSize)
	damaged := func(format string, args ...any) (extent, error) {
		return extent{}, layer.Damaged(fmt.Sprintf("extent at %d of %s", start, n.name()), v.at, format, args...)
	}
	c := newCursor(raw)
	c.Skip(8)
	e := extent{start: int64(start), at: v.at, ram: c.U64(), compression: c.U8()}
	encryption, other, kind := c.U8(), c.U16(), c.U8()
	switch {
	case c.Err() != nil || start%sector != 0 || start > maxFileEnd:
		return damaged("an item of %d bytes", len(raw))
	case encryption != 0 || other != 0 || int(e.compression) >= len(decoders):
		return damaged("compression %d, encryption %d, other encoding %d", e.compression, encryption, other)
	case e.compression != 0 && e.ram > maxCompressed:
		return damaged("%d bytes are compressed together, at most %d can be", e.ram, maxCompressed)
	case kind == extentInline:
		return n.inlineExtent(e, raw[extentHeaderSize:])
	case kind > extentPrealloc || len(raw) != extentItemSize:
		return damaged("an item of type %d with %d bytes", kind, len(raw))
	}
	e.logical, e.length, e.offset = c.U64(), c.U64(), c.U64()
	count := c.U64()
	if (e.logical|e.length|e.offset|count)%sector != 0 || !ondisk.WithinU(start, count, maxFileEnd) || !ondisk.WithinU(e.logical, e.length, 1<<63) {
		return damaged("%d bytes of %d at %#x, from %d on", count, e.length, e.logical, e.offset)
	}
	e.end = int64(start + count)
	switch {
	case e.logical == 0:
		e.kind = disk.ExtentHole
		return e, nil
	case kind == extentPrealloc:
		e.kind = disk.ExtentZero
	}
	whole := e.length
	if e.compression != 0 {
		whole = (e.ram + sector - 1) &^ (sector - 1)
	}
	if !ondisk.WithinU(e.offset, count, whole) || e.compression != 0 && e.length > maxCompressed {
		return damaged("%d bytes from %d of one that has %d on disk and %d of data", count, e.offset, e.length, e.ram)
	}
	return e, nil
}

// inlineExtent checks an extent whose data is in its item.
func (n *inode) inlineExtent(e extent, data []byte) (extent, error) {
	if e.start != 0 || e.compression == 0 && e.ram != uint64(len(data)) || e.ram > maxNodeSize {
		return extent{}, layer.Damaged("inline extent of "+n.name(), e.at, "%d bytes for %d at %d", len(data), e.ram, e.start)
	}
	sector := int64(n.volume.sb.sectorSize)
	e.inline = data
	e.end = (int64(e.ram) + sector - 1) &^ (sector - 1)
	return e, nil
}

// segment is what is known of a part of a file. What lies between its extents
// are holes.
type segment struct {
	first, end int64
	extents    []extent // sorted, without overlap, from first on
}

// at returns what the file holds at off, which is in the segment: an extent, or
// a hole from off on.
func (s *segment) at(off int64) extent {
	i := sort.Search(len(s.extents), func(i int) bool { return s.extents[i].end > off })
	if i == len(s.extents) {
		return extent{start: off, end: s.end, kind: disk.ExtentHole}
	}
	if off < s.extents[i].start {
		return extent{start: off, end: s.extents[i].start, kind: disk.ExtentHole}
	}
	return s.extents[i]
}

// errEnough ends an iteration.
var errEnough = errors.New("enough")

// segment reads the extents from the one on that off lies in or behind.
func (n *inode) segment(off int64) (*segment, error) {
	s := &segment{end: math.MaxInt64}
	if off > 0 {
		start, err := n.volume.before(n.object, kindExtentData, uint64(off))
		if err != nil {
			return nil, err
		}
		s.first = int64(min(start, math.MaxInt64))
	}
	next := s.first
	err := n.volume.items(n.object, kindExtentData, uint64(s.first), func(start uint64, v value) error {
		e, err := n.parseExtent(start, v)
		if err != nil {
			return err
		}
		if e.start < next {
			return layer.Damaged(fmt.Sprintf("extent at %d of %s", start, n.name()), v.at, "the one before it ends at %d", next)
		}
		if len(s.extents) == segmentExtents {
			s.end = e.start
			return errEnough
		}
		next = e.end
		s.extents = append(s.extents, e)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return s, nil
}
