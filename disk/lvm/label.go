package lvm

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	sectorSize   = 512 // of LVM's units, whatever the disk has
	labelSectors = 4   // a label is in one of the first four
	labelMagic   = "LABELONE"
	labelType    = "LVM2 001"
	checkFrom    = 20 // the checksum of a label covers the sector from here

	uuidLength = 32

	// maxAreas is the number of metadata areas that a physical volume can have:
	// pvcreate makes two at most.
	maxAreas = 2

	// checksumStart is what LVM begins its CRC-32 with.
	checksumStart = 0xf597a6cf
)

// checksum is LVM's: CRC-32 as in Ethernet, without the two inversions.
func checksum(p []byte) uint32 {
	return ^crc32.Update(^uint32(checksumStart), crc32.IEEETable, p)
}

// label is a sector that marks a physical volume, little-endian (LVM2,
// lib/label/label.h and lib/format_text/layout.h):
//
//	offset  size
//	     0     8  "LABELONE"
//	     8     8  number of this sector
//	    16     4  checksum from offset 20 to the end of the sector
//	    20     4  offset of the header of the physical volume, in the sector
//	    24     8  "LVM2 001"
//
// The header of the physical volume:
//
//	offset  size
//	     0    32  UUID, without its dashes
//	    32     8  size of the device in bytes
//	    40   16n  data areas: offset and size in bytes, until an offset of 0
//	         16n  metadata areas: the same
//
// An extension follows, which says nothing that is needed here.
type label struct {
	off   int64 // of the sector
	uuid  string
	areas []area // of metadata
}

// area is a range of a physical volume, in bytes.
type area struct{ off, size uint64 }

// readLabel returns the first good label of d. Its error wraps
// [disk.ErrNotExist] where there is nothing like a label, and
// [disk.ErrCorrupt] where what is there is damaged.
func readLabel(d disk.Sparse) (*label, error) {
	var buf [labelSectors * sectorSize]byte
	sectors := buf[:min(int64(len(buf)), max(0, d.Size())/sectorSize*sectorSize)]
	switch err := ondisk.ReadFull(d, sectors, 0); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, layer.Absent("label", "the device is shorter than it says")
	case err != nil:
		return nil, layer.Unreadable("label", 0, err)
	}
	var damage error
	for off := 0; off < len(sectors); off += sectorSize {
		sector := sectors[off : off+sectorSize]
		if string(sector[:8]) != labelMagic || string(sector[24:32]) != labelType {
			continue
		}
		l, err := parseLabel(sector, int64(off))
		if err == nil {
			return l, nil
		}
		if damage == nil {
			damage = err
		}
	}
	if damage != nil {
		return nil, damage
	}
	return nil, layer.Absent("label", "none of the first %d sectors is one", labelSectors)
}

func parseLabel(sector []byte, off int64) (*label, error) {
	c := ondisk.NewCursor(sector, binary.LittleEndian)
	c.Skip(len(labelMagic))
	number, check, header := c.U64(), c.U32(), c.U32()
	if number != uint64(off/sectorSize) {
		return nil, layer.Damaged("label", off, "it says that it is in sector %d", number)
	}
	if sum := checksum(sector[checkFrom:]); sum != check {
		return nil, layer.Damaged("label", off, "its checksum is %#x, should be %#x", sum, check)
	}
	if header > sectorSize {
		return nil, layer.Damaged("label", off, "the header is at offset %d of its sector", header)
	}
	c.Seek(int(header))
	l := &label{off: off, uuid: string(c.Bytes(uuidLength))}
	c.Skip(8)
	takeAreas(c)
	l.areas = takeAreas(c)
	if err := c.Err(); err != nil {
		return nil, layer.Damaged("label", off, "the lists of areas do not end: %v", err)
	}
	if len(l.areas) > maxAreas {
		return nil, layer.Beyond("label", off, "%d metadata areas, at most %d are possible", len(l.areas), maxAreas)
	}
	if !isUUID(l.uuid) {
		return nil, layer.Damaged("label", off, "%.40q is not a UUID of LVM", l.uuid)
	}
	return l, nil
}

// takeAreas reads a list that an offset of 0 ends. The sector bounds it.
func takeAreas(c *ondisk.Cursor) []area {
	var list []area
	for {
		a := area{off: c.U64(), size: c.U64()}
		if a.off == 0 || c.Err() != nil {
			return list
		}
		list = append(list, a)
	}
}

// isUUID reports whether s is a UUID as labels keep it: letters and digits.
func isUUID(s string) bool {
	if len(s) != uuidLength {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '!' && s[i] != '#' { // LVM 2.00 used these two as well
			return false
		}
	}
	return true
}

func isAlphanumeric(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// uuidGroups are the letters between the dashes when people read a UUID.
var uuidGroups = [...]int{6, 4, 4, 4, 4, 4, 6}

// formatUUID puts the dashes into a UUID of a label.
func formatUUID(s string) string {
	out := make([]byte, 0, uuidLength+len(uuidGroups)-1)
	for i, n := range uuidGroups {
		if i > 0 {
			out = append(out, '-')
		}
		out = append(out, s[:n]...)
		s = s[n:]
	}
	return string(out)
}

// parseUUID is the reverse of [formatUUID], for what the text holds.
func parseUUID(s string) (string, bool) {
	out := make([]byte, 0, uuidLength)
	for i := range min(len(s), uuidLength+len(uuidGroups)) {
		if s[i] != '-' {
			out = append(out, s[i])
		}
	}
	plain := string(out)
	return plain, isUUID(plain) && formatUUID(plain) == s
}
