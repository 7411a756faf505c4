package qcow2

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Entry of a bitmap table: bits 9 to 55 are the offset of a cluster of bits; where
// that is 0, bit 0 says what all of them are. The rest is reserved.
const (
	bitmapOffsetMask   = 0x00ff_ffff_ffff_fe00
	bitmapReservedMask = 0xff00_0000_0000_01fe
	bitmapAllOnes      = 1 << 0
)

// maxBitmapPiece is how much of a bitmap, and of its table, is read and kept at a
// time, in bytes.
const maxBitmapPiece = 64 << 10

// DirtyRanges calls yield for the ranges of the disk that were written to, as the
// bitmap of this name recorded, in ascending order and apart from one another. It
// stops at the first error of yield and returns that. After any other error
// nothing is known, and all of the disk must be read.
//
// Only the active state has bitmaps. One that QEMU did not finish, or that was
// passed over, is refused; see [BitmapState].
func (im *Image) DirtyRanges(name string, yield func(off, length int64) error) error {
	if im.ofSnapshot {
		return layer.Unsupported("bitmap", ondisk.Nowhere, "read the active state", "bitmaps do not record what changed in a snapshot")
	}
	b, err := im.bitmap(name)
	if err != nil {
		return err
	}
	d := &dirty{name: name, im: im, granularity: b.Granularity, bits: ceilDiv(im.size, b.Granularity), yield: yield}
	if err := d.walkTable(b); err != nil {
		return err
	}
	return d.flush()
}

// dirty puts the bits of a bitmap together to ranges.
type dirty struct {
	name        string
	im          *Image
	granularity int64
	bits        int64 // of the disk; those behind them mean nothing
	yield       func(off, length int64) error

	clusters   int64 // that have been read
	start, end int64 // bits that are set and not yet yielded
	buf        [maxBitmapPiece]byte
}

func (d *dirty) table() string { return fmt.Sprintf("table of bitmap %q", d.name) }

// walkTable goes through the table of b, as far as the disk needs it.
func (d *dirty) walkTable(b Bitmap) error {
	m := d.im.mapping
	covers := m.clusterSize() * 8 // bits
	needed := ceilDiv(d.bits, covers)
	if needed > int64(b.tableSize) {
		return layer.Damaged(d.table(), ondisk.Nowhere, "%d entries, but %d bytes of disk need %d", b.tableSize, d.im.size, needed)
	}
	if !d.im.header.aligned(b.tableOffset) || b.tableOffset < uint64(m.clusterSize()) ||
		!ondisk.WithinU(b.tableOffset, uint64(b.TableBytes), uint64(m.fileSize)) {
		return layer.Damaged(d.table(), ondisk.Nowhere, "its %d bytes at %#x are not in whole clusters of the file", b.TableBytes, b.tableOffset)
	}
	table := make([]byte, min(needed*8, maxBitmapPiece))
	for i := int64(0); i < needed; {
		at := int64(b.tableOffset) + i*8
		piece := table[:min((needed-i)*8, maxBitmapPiece)]
		if err := ondisk.ReadFull(m.r, piece, at); err != nil {
			return layer.Unreadable(d.table(), at, err)
		}
		for ; len(piece) > 0; piece, at, i = piece[8:], at+8, i+1 {
			if err := d.walkEntry(binary.BigEndian.Uint64(piece), at, i*covers); err != nil {
				return err
			}
		}
	}
	return nil
}

// walkEntry is for the table entry at offset at of the file, whose first bit is
// number first.
func (d *dirty) walkEntry(entry uint64, at, first int64) error {
	m := d.im.mapping
	last := min(first+m.clusterSize()*8, d.bits)
	offset := int64(entry & bitmapOffsetMask)
	switch {
	case entry&bitmapReservedMask != 0 || offset != 0 && entry&bitmapAllOnes != 0:
		return layer.Damaged(d.table(), at, "entry %#x has reserved bits", entry)
	case offset == 0 && entry&bitmapAllOnes != 0:
		return d.add(first, last)
	case offset == 0:
		return nil
	case offset&(m.clusterSize()-1) != 0 || !ondisk.Within(offset, m.clusterSize(), m.fileSize):
		return layer.Damaged(d.table(), at, "entry %#x points to %#x, not a cluster of the file", entry, offset)
	}
	// Each has its own cluster in a bitmap that is whole; this bounds the work.
	if d.clusters++; d.clusters > m.fileSize/m.clusterSize() {
		return layer.Damaged(d.table(), at, "more clusters than the file has")
	}
	for ; first < last; first += maxBitmapPiece * 8 {
		n := min(maxBitmapPiece, ceilDiv(last-first, 8))
		if err := ondisk.ReadFull(m.r, d.buf[:n], offset); err != nil {
			return layer.Unreadable(fmt.Sprintf("bitmap %q", d.name), offset, err)
		}
		clear(d.buf[n:])
		if err := d.addBits(d.buf[:], first, last); err != nil {
			return err
		}
		offset += maxBitmapPiece
	}
	return nil
}

// addBits adds the bits of piece that are set, of which first is the first, up to
// last.
func (d *dirty) addBits(piece []byte, first, last int64) error {
	for ; len(piece) > 0 && first < last; piece, first = piece[8:], first+64 {
		word := binary.LittleEndian.Uint64(piece)
		for at := int64(0); word != 0; {
			skip := int64(bits.TrailingZeros64(word))
			run := int64(bits.TrailingZeros64(^(word >> skip)))
			at += skip
			if err := d.add(first+at, min(first+at+run, last)); err != nil {
				return err
			}
			word = word >> skip >> run
			at += run
		}
	}
	return nil
}

// add adds the bits [from, to), which come after all others.
func (d *dirty) add(from, to int64) error {
	if from >= to {
		return nil
	}
	if d.end == from {
		d.end = to
		return nil
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.start, d.end = from, to
	return nil
}

// flush yields what has been added, cut to the disk.
func (d *dirty) flush() error {
	if d.start == d.end {
		return nil
	}
	off := d.start * d.granularity
	length := min((d.end-d.start)*d.granularity, d.im.size-off)
	d.start = d.end
	return d.yield(off, length)
}
