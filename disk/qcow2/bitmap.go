package qcow2

import (
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The limits of bitmaps. All but that of extra data are QEMU's own.
const (
	maxBitmaps = 65535
	// maxBitmapExtra is more extra data than any entry has; none is known yet.
	maxBitmapExtra = 1024
	maxBitmapName  = 1023
	// A bit stands for 512 bytes to 2 GiB.
	minGranularityBits, maxGranularityBits = 9, 31
)

const (
	bitmapExtensionLength = 24
	bitmapEntryFixed      = 24
	bitmapAlignment       = 8
	bitmapTypeDirty       = 1
)

// The flags of a bitmap. The reader knows no others.
const (
	bitmapInUse = 1 << iota
	bitmapAuto
	bitmapExtraCompatible
)

// BitmapState says whether the bits of a [Bitmap] can be believed.
type BitmapState uint8

// The states of a bitmap. Of any but the first, all of the disk must be read.
const (
	// BitmapConsistent has every write that was made while it recorded.
	BitmapConsistent BitmapState = iota
	// BitmapInUse was being recorded in when the image was last written to: QEMU
	// has it open, or died.
	BitmapInUse
	// BitmapInconsistent was left alone by a program that wrote to the image
	// and does not know bitmaps.
	BitmapInconsistent
)

func (s BitmapState) String() string {
	switch s {
	case BitmapInUse:
		return "in use"
	case BitmapInconsistent:
		return "inconsistent"
	}
	return "consistent"
}

// Bitmap is a persistent dirty bitmap of an image: it records which parts of the
// active state's disk were written to.
type Bitmap struct {
	Name        string // hostile bytes
	Granularity int64  // bytes that one bit stands for
	State       BitmapState
	Auto        bool  // QEMU records in it whenever it writes to the image
	TableBytes  int64 // size of its table in the file

	tableOffset uint64
	tableSize   uint32 // entries
	// opaque: it has extra data, and may not be used without understanding it.
	opaque bool
}

// bitmapExtension is the header extension of bitmaps, big-endian
// (docs/interop/qcow2.rst, "Bitmaps extension"):
//
//	offset  size
//	     0     4  nb_bitmaps, 1 to 65535
//	     4     4  reserved, 0
//	     8     8  bitmap_directory_size, bytes
//	    16     8  bitmap_directory_offset
type bitmapExtension struct {
	at       int64 // its offset in the file; 0 where there is none
	length   int
	count    uint32
	reserved uint32
	size     uint64
	offset   uint64
}

// parseBitmapExtension never fails: an image whose bitmaps are damaged is read
// all the same. What is wrong is found when the bitmaps are asked for.
func parseBitmapExtension(data []byte, at int64) bitmapExtension {
	c := ondisk.NewCursor(data, binary.BigEndian)
	return bitmapExtension{
		at: at, length: len(data),
		count: c.U32(), reserved: c.U32(), size: c.U64(), offset: c.U64(),
	}
}

// Bitmaps lists the dirty bitmaps, in the order of the image. Reading the disk
// does not depend on them, so only here is their damage an error.
func (im *Image) Bitmaps() ([]Bitmap, error) {
	x := im.header.bitmaps
	recorded := im.header.autoclear&autoclearBitmaps != 0
	switch {
	case x.at == 0 && recorded:
		return nil, layer.Damaged("header", 88, "there are said to be bitmaps, but their extension is missing")
	case x.at == 0:
		return nil, nil
	}
	if err := x.check(im.header, im.mapping.fileSize); err != nil {
		return nil, err
	}
	t := newTableReader("bitmap directory", "the directory ends", im.r, int64(x.offset), int64(x.size))
	var list []Bitmap
	for i := range x.count {
		b, err := readBitmap(t)
		if err != nil {
			return nil, fmt.Errorf("bitmap %d of %d: %w", i+1, x.count, err)
		}
		if !recorded {
			b.State = BitmapInconsistent
		}
		list = append(list, b)
	}
	if t.done != t.length {
		return nil, layer.Damaged("bitmap directory", t.start, "%d bytes long, but its %d entries end after %d", t.length, x.count, t.done)
	}
	return list, nil
}

func (x *bitmapExtension) check(h *header, fileSize int64) error {
	const name = "bitmaps extension"
	switch {
	case x.length != bitmapExtensionLength:
		return layer.Damaged(name, x.at, "%d bytes long, not %d", x.length, bitmapExtensionLength)
	case x.reserved != 0:
		return layer.Damaged(name, x.at, "reserved bytes are %#x", x.reserved)
	case x.count == 0 || x.count > maxBitmaps:
		return layer.Damaged(name, x.at, "%d bitmaps, only 1 to %d is possible", x.count, maxBitmaps)
	case x.size > maxTable:
		return layer.Beyond(name, x.at, "a directory of %d bytes, at most %d are read", x.size, maxTable)
	case !h.aligned(x.offset) || x.offset < uint64(h.clusterSize()) || !ondisk.WithinU(x.offset, x.size, uint64(fileSize)):
		return layer.Damaged(name, x.at, "the directory, %d bytes at %#x, is not in whole clusters of the file", x.size, x.offset)
	}
	return nil
}

// readBitmap reads an entry of the bitmap directory, all of it big-endian
// (docs/interop/qcow2.rst, "Bitmap directory"):
//
//	offset  size
//	     0     8  bitmap_table_offset
//	     8     4  bitmap_table_size, entries
//	    12     4  flags: bit 0 in_use, 1 auto, 2 extra_data_compatible
//	    16     1  type: 1 dirty tracking
//	    17     1  granularity_bits
//	    18     2  length of the name
//	    20     4  length of the extra data
//	     …        extra data, name, padding to a multiple of 8
func readBitmap(t *tableReader) (Bitmap, error) {
	fixed, at, err := t.take(bitmapEntryFixed)
	if err != nil {
		return Bitmap{}, err
	}
	c := ondisk.NewCursor(fixed, binary.BigEndian)
	b := Bitmap{tableOffset: c.U64(), tableSize: c.U32()}
	b.TableBytes = int64(b.tableSize) * 8
	flags, kind, granularity := c.U32(), c.U8(), c.U8()
	nameSize, extraSize := int64(c.U16()), int64(c.U32())
	switch {
	case flags&^(bitmapInUse|bitmapAuto|bitmapExtraCompatible) != 0:
		return Bitmap{}, layer.Damaged(t.name, at+12, "flags %#x has reserved bits", flags)
	case kind != bitmapTypeDirty:
		return Bitmap{}, layer.Unsupported(t.name, at+16, "", "a bitmap of type %d", kind)
	case granularity < minGranularityBits || granularity > maxGranularityBits:
		return Bitmap{}, layer.Damaged(t.name, at+17, "granularity_bits is %d, only %d to %d is possible", granularity, minGranularityBits, maxGranularityBits)
	case nameSize == 0 || nameSize > maxBitmapName:
		return Bitmap{}, layer.Damaged(t.name, at+18, "a name of %d bytes, only 1 to %d is possible", nameSize, maxBitmapName)
	case extraSize > maxBitmapExtra:
		return Bitmap{}, layer.Beyond(t.name, at+20, "%d bytes of extra data, at most %d are read", extraSize, maxBitmapExtra)
	}
	rest, _, err := t.take(extraSize + nameSize + -(extraSize+nameSize)&(bitmapAlignment-1))
	if err != nil {
		return Bitmap{}, err
	}
	b.Name = string(rest[extraSize : extraSize+nameSize])
	b.Granularity = 1 << granularity
	b.Auto = flags&bitmapAuto != 0
	if flags&bitmapInUse != 0 {
		b.State = BitmapInUse
	}
	b.opaque = extraSize > 0 && flags&bitmapExtraCompatible == 0
	return b, nil
}

// bitmap returns the one bitmap that has this name, if it can be believed.
func (im *Image) bitmap(name string) (Bitmap, error) {
	list, err := im.Bitmaps()
	if err != nil {
		return Bitmap{}, err
	}
	structure := fmt.Sprintf("bitmap %q", name)
	var found []Bitmap
	for _, b := range list {
		if b.Name == name {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return Bitmap{}, layer.Absent(structure, "the image has %d bitmaps, none with this name", len(list))
	}
	const full = "read all of the disk, and then make the bitmap anew with `qemu-img bitmap --remove` and `--add`"
	b := found[0]
	switch {
	case len(found) > 1:
		return Bitmap{}, layer.Damaged(structure, ondisk.Nowhere, "%d bitmaps have this name", len(found))
	case b.State == BitmapInUse:
		return Bitmap{}, layer.Unsupported(structure, ondisk.Nowhere, full, "it is in use, or was when QEMU ended: what was written since is not in it")
	case b.State == BitmapInconsistent:
		return Bitmap{}, layer.Unsupported(structure, ondisk.Nowhere, full, "the image was written to by a program that does not know bitmaps: what it wrote is not in it")
	case b.opaque:
		return Bitmap{}, layer.Unsupported(structure, ondisk.Nowhere, full, "it has extra data, without which it may not be used")
	}
	return b, nil
}
