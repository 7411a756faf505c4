package btrfs

import (
	"encoding/binary"
	"slices"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// reservedStart is what Linux allocates nothing in, so that boot loaders can use
// it: the first MiB of each device.
const reservedStart = 1 << 20

// superblockCopies are where a device has copies of its superblock.
var superblockCopies = [...]int64{64 << 20, 256 << 30}

// Used implements [disk.Usage]: the parts of chunks that the extent tree says are
// allocated, what the log holds, the superblocks, and the start. It returns an error
// where that is not as much as the block groups say, since something in use would
// be missing.
func (fs *Filesystem) Used(device int, yield func(off, length int64) error) error {
	if device < 0 || device >= len(fs.devices) {
		return layer.Absent(deviceName(device), "there are %d", len(fs.devices))
	}
	extents, err := fs.openTree(extentTree, "extent tree")
	if err != nil {
		return err
	}
	groups := extents
	if fs.sb.compatRO&roBlockGroupTree != 0 {
		if groups, err = fs.openTree(groupTree, "block group tree"); err != nil {
			return err
		}
	}
	u := &usedRanges{size: fs.devices[device].disk.Size(), copies: superblockCopies[:], yield: yield}
	if err := u.add(0, reservedStart); err != nil {
		return err
	}
	for _, part := range fs.partsOf(device) {
		err := fs.eachExtent(extents, groups, part.chunk, func(off, length uint64) error {
			first, last := part.place(off, length)
			if first >= last {
				return nil
			}
			return u.add(int64(first), int64(last-first))
		})
		if err != nil {
			return err
		}
	}
	return u.finish()
}

// part is what a device has of a chunk.
type part struct {
	chunk *chunk
	index int // of the stripe
}

func (p part) offset() uint64 { return p.chunk.stripes[p.index].offset }

// partsOf returns the parts on a device, by where they lie.
func (fs *Filesystem) partsOf(device int) []part {
	var parts []part
	for _, c := range fs.chunks.chunks {
		for i, s := range c.stripes {
			if s.device == device {
				parts = append(parts, part{c, i})
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return int(min(max(int64(a.offset()-b.offset()), -1), 1)) })
	return parts
}

// place returns the range of the device in which the part has what it has of
// length bytes at off in the chunk. That is in one piece: the rows of a column lie
// one behind the other.
func (p part) place(off, length uint64) (first, last uint64) {
	column, columns := uint64(p.index/p.chunk.copies), uint64(p.chunk.columns)
	if columns == 1 {
		return p.offset() + off, p.offset() + off + length
	}
	return p.offset() + rowStart(off, column, columns), p.offset() + rowStart(off+length, column, columns)
}

// rowStart returns how much a column has of the first off bytes of a chunk.
func rowStart(off, column, columns uint64) uint64 {
	number, within := off/stripeLength, off%stripeLength
	rows := number / columns * stripeLength
	switch at := number % columns; {
	case column < at:
		return rows + stripeLength
	case column == at:
		return rows + within
	}
	return rows
}

// eachExtent calls yield for the allocated ranges of a chunk, by their offset in
// it, in ascending order.
//
// The keys of the extent tree: (address, EXTENT_ITEM, length), or, with
// skinny_metadata, (address, METADATA_ITEM, level) for a tree block. A block group is
// (address, BLOCK_GROUP_ITEM, length), and starts with the bytes that its extents have.
func (fs *Filesystem) eachExtent(extents, groups *tree, c *chunk, yield func(off, length uint64) error) error {
	logged := fs.logUsed.within(c.logical, c.length)
	var w walk
	emit := func(start, length uint64) error {
		if !ondisk.WithinU(start-c.logical, length, c.length) {
			return layer.Damaged("extent tree", w.at(), "%d bytes at %#x reach beyond their chunk", length, start)
		}
		return yield(start-c.logical, length)
	}
	group, err := groups.get(key{c.logical, kindBlockGroup, c.length})
	switch {
	case err != nil:
		return err
	case len(group.raw) < 8:
		return layer.Damaged("block group", group.at, "there is none for the chunk at %#x", c.logical)
	}
	used, found := binary.LittleEndian.Uint64(group.raw), uint64(0)
	err = extents.seek(&w, key{object: c.logical})
	for ; err == nil && w.valid() && w.key().object < c.logical+c.length; err = w.next() {
		k := w.key()
		length := k.offset
		switch k.kind {
		case kindMetadata:
			length = uint64(fs.sb.nodeSize)
		case kindExtent:
		default:
			continue
		}
		for ; len(logged) > 0 && logged[0].start < k.object; logged = logged[1:] {
			if err := emit(logged[0].start, logged[0].length); err != nil {
				return err
			}
		}
		if err := emit(k.object, length); err != nil {
			return err
		}
		found += length
	}
	if err == nil && found != used {
		return layer.Damaged("block group", group.at, "%d bytes of the chunk at %#x are in use, the extent tree has %d", used, c.logical, found)
	}
	for ; err == nil && len(logged) > 0; logged = logged[1:] {
		err = emit(logged[0].start, logged[0].length)
	}
	return err
}

// usedRanges joins ranges that come in ascending order, and adds the copies of
// the superblock between them.
type usedRanges struct {
	size       int64 // of the device
	copies     []int64
	start, end int64 // what is not yielded yet
	yield      func(off, length int64) error
}

func (u *usedRanges) add(off, length int64) error {
	for len(u.copies) > 0 && u.copies[0] <= off {
		at := u.copies[0]
		u.copies = u.copies[1:]
		if err := u.join(at, superblockSize); err != nil {
			return err
		}
	}
	return u.join(off, length)
}

func (u *usedRanges) join(off, length int64) error {
	end := min(off+length, u.size)
	if off = max(off, u.start); off >= end {
		return nil
	}
	if off <= u.end {
		u.end = max(u.end, end)
		return nil
	}
	if err := u.yield(u.start, u.end-u.start); err != nil {
		return err
	}
	u.start, u.end = off, end
	return nil
}

func (u *usedRanges) finish() error {
	for _, at := range u.copies {
		if err := u.join(at, superblockSize); err != nil {
			return err
		}
	}
	return u.yield(u.start, u.end-u.start)
}
