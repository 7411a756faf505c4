package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf16"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// gptLayer makes the errors of a GPT.
var gptLayer = ondisk.Layer{Name: "gpt", Repair: "let gdisk in the guest rebuild the table"}

const (
	gptMagic      = "EFI PART"
	gptPrimary    = 1 // sector
	minGPTHeader  = 92
	minGPTEntry   = 128
	maxGPTEntry   = 4096
	gptNameLength = 72

	// maxGPTArray is the bytes that all entries take together: 8192 entries of
	// the usual size, where tools make 128 and Linux takes 256.
	maxGPTArray = 1 << 20
)

// gptHeader is the header of a GPT, little-endian (UEFI specification 2.10,
// section 5.3.2):
//
//	offset  size
//	     0     8  "EFI PART"
//	     8     4  revision, 1.0
//	    12     4  header size, 92 to a sector
//	    16     4  CRC-32 of the header, with this field as 0
//	    20     4  reserved
//	    24     8  sector of this header
//	    32     8  sector of the other header
//	    40     8  first usable sector
//	    48     8  last usable sector
//	    56    16  disk GUID
//	    72     8  first sector of the entries
//	    80     4  number of entries
//	    84     4  size of an entry, 128·2ⁿ
//	    88     4  CRC-32 of the entries
type gptHeader struct {
	self, other  uint64
	first, last  uint64
	diskID       GUID
	entries      uint64
	count, size  uint32
	entriesCheck uint32
}

// gpt returns the primary GPT, or the backup if the primary is damaged.
func (r *reader) gpt() (*Table, error) {
	h, entries, damage := r.gptAt(gptPrimary)
	if damage != nil {
		if !isDamage(damage) {
			return nil, damage
		}
		var err error
		if h, entries, err = r.gptAt(max(r.sectors, 1) - 1); err != nil {
			if !isDamage(err) {
				return nil, err
			}
			return nil, fmt.Errorf("%w; and the backup: %w", damage, err)
		}
	}
	t := &Table{Kind: GPT, SectorSize: r.sectorSize, DiskID: h.diskID, Damage: damage}
	for i := range int(h.count) {
		p, err := r.gptPartition(h, i, entries[i*int(h.size):])
		if err != nil {
			return nil, err
		}
		if p.TypeID != (GUID{}) {
			t.Partitions = append(t.Partitions, p)
		}
	}
	if damage == nil {
		t.Remarks = r.backupRemarks(h)
	}
	if err := checkOverlap(gptLayer, t.Partitions); err != nil {
		return nil, err
	}
	return t, nil
}

// backupRemarks looks at the backup of a good primary table h. Whatever is wrong
// with it does not matter until the primary is lost, but then it does.
func (r *reader) backupRemarks(h *gptHeader) (remarks []string) {
	if h.other <= h.last {
		return []string{fmt.Sprintf("there is no backup GPT: it is said to be at sector %d, where partitions can be", h.other)}
	}
	if end := r.sectors - 1; h.other < end {
		remarks = append(remarks, fmt.Sprintf("the disk has grown since it was partitioned: it ends with sector %d, and the backup GPT is at sector %d", end, h.other))
	}
	backup, _, err := r.gptAt(h.other)
	switch {
	case err != nil:
		remarks = append(remarks, fmt.Sprintf("there is no good backup GPT: %v", err))
	case !backup.describesAs(h):
		remarks = append(remarks, "the backup GPT describes another disk or other partitions than the primary, which is used")
	}
	return remarks
}

// describesAs reports whether two headers stand for the same table.
func (h *gptHeader) describesAs(other *gptHeader) bool {
	return h.diskID == other.diskID && h.first == other.first && h.last == other.last &&
		h.count == other.count && h.size == other.size && h.entriesCheck == other.entriesCheck
}

// isDamage tells a table that is wrong from one that could not be read.
func isDamage(err error) bool {
	return errors.Is(err, disk.ErrCorrupt) || errors.Is(err, disk.ErrLimit) || errors.Is(err, disk.ErrUnsupported)
}

// gptAt reads and checks the header at a sector, and the entries it points to.
func (r *reader) gptAt(sector uint64) (*gptHeader, []byte, error) {
	off := int64(sector) * r.sectorSize
	if sector < gptPrimary || sector >= r.sectors {
		return nil, nil, gptLayer.Damaged("header", off, "the disk of %d sectors has no room for it", r.sectors)
	}
	buf := make([]byte, r.sectorSize)
	if err := ondisk.ReadFull(r.d, buf, off); err != nil {
		return nil, nil, gptLayer.Unreadable("header", off, err)
	}
	h, err := parseGPT(buf, off)
	if err != nil {
		return nil, nil, err
	}
	if err := r.checkGPT(h, sector, off); err != nil {
		return nil, nil, err
	}
	entries := make([]byte, int64(h.count)*int64(h.size)) // at most maxGPTArray
	at := int64(h.entries) * r.sectorSize
	if err := ondisk.ReadFull(r.d, entries, at); err != nil {
		return nil, nil, gptLayer.Unreadable("entries", at, err)
	}
	if sum := crc32.ChecksumIEEE(entries); sum != h.entriesCheck {
		return nil, nil, gptLayer.Damaged("header", off, "the checksum of the entries is %#x, should be %#x", sum, h.entriesCheck)
	}
	return h, entries, nil
}

// parseGPT takes the header from its sector, and checks its checksum.
func parseGPT(buf []byte, off int64) (*gptHeader, error) {
	c := ondisk.NewCursor(buf, binary.LittleEndian)
	if string(c.Bytes(len(gptMagic))) != gptMagic {
		return nil, gptLayer.Damaged("header", off, "it does not start with %q", gptMagic)
	}
	revision, size, check := c.U32(), c.U32(), c.U32()
	if size < minGPTHeader || int64(size) > int64(len(buf)) {
		return nil, gptLayer.Damaged("header", off, "its size is %d, only %d to %d is possible", size, minGPTHeader, len(buf))
	}
	clear(buf[16:20])
	if sum := crc32.ChecksumIEEE(buf[:size]); sum != check {
		return nil, gptLayer.Damaged("header", off, "its checksum is %#x, should be %#x", sum, check)
	}
	if revision>>16 != 1 {
		return nil, gptLayer.Unsupported("header", off, "", "revision %d.%d", revision>>16, revision&0xffff)
	}
	c.Skip(4)
	h := &gptHeader{self: c.U64(), other: c.U64()}
	h.first, h.last = c.U64(), c.U64()
	copy(h.diskID[:], c.Bytes(16))
	h.entries = c.U64()
	h.count, h.size, h.entriesCheck = c.U32(), c.U32(), c.U32()
	if err := c.Err(); err != nil {
		return nil, gptLayer.Damaged("header", off, "%v", err)
	}
	return h, nil
}

// checkGPT checks what the header at a sector says about places and sizes.
func (r *reader) checkGPT(h *gptHeader, sector uint64, off int64) error {
	if h.self != sector {
		return gptLayer.Damaged("header", off, "it says that it is at sector %d, not %d", h.self, sector)
	}
	if h.last >= r.sectors {
		return &disk.Error{Layer: gptLayer.Name, Structure: "header", Offset: off, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("the last usable sector is %d, but the disk has %d", h.last, r.sectors),
			Hint:   "the disk is smaller than when it was partitioned: was the image cut, or is its sector size another?"}
	}
	if h.first <= gptPrimary || h.first > h.last {
		return gptLayer.Damaged("header", off, "sectors %d to %d are said to be usable", h.first, h.last)
	}
	if h.size < minGPTEntry || h.size > maxGPTEntry || h.size&(h.size-1) != 0 {
		return gptLayer.Damaged("header", off, "an entry has %d bytes", h.size)
	}
	length := uint64(h.count) * uint64(h.size)
	if length > maxGPTArray {
		return gptLayer.Beyond("header", off, "%d entries of %d bytes, together more than %d bytes", h.count, h.size, maxGPTArray)
	}
	sectors := (length + uint64(r.sectorSize) - 1) / uint64(r.sectorSize)
	if h.entries <= gptPrimary || !ondisk.WithinU(h.entries, sectors, r.sectors) {
		return gptLayer.Damaged("header", off, "its %d entries at sector %d are not within the disk", h.count, h.entries)
	}
	return nil
}

// gptPartition decodes entry i (UEFI specification 2.10, section 5.3.3):
//
//	offset  size
//	     0    16  type GUID, 0: unused
//	    16    16  the partition's own GUID
//	    32     8  first sector
//	    40     8  last sector
//	    48     8  attributes
//	    56    72  name, UTF-16, ends at the first 0
func (r *reader) gptPartition(h *gptHeader, i int, entry []byte) (Partition, error) {
	c := ondisk.NewCursor(entry, binary.LittleEndian)
	p := Partition{Number: i + 1}
	copy(p.TypeID[:], c.Bytes(16))
	if p.TypeID == (GUID{}) {
		return p, nil
	}
	copy(p.ID[:], c.Bytes(16))
	first, last := c.U64(), c.U64()
	p.Attributes = c.U64()
	var name []uint16
	for range gptNameLength / 2 {
		u := c.U16()
		if u == 0 {
			break
		}
		name = append(name, u)
	}
	off := int64(h.entries)*r.sectorSize + int64(i)*int64(h.size)
	if err := c.Err(); err != nil {
		return p, gptLayer.Damaged("entries", off, "%v", err)
	}
	if first < h.first || last > h.last || first > last {
		return p, gptLayer.Damaged("entries", off, "partition %d, sectors %d to %d, is not within the usable sectors %d to %d", p.Number, first, last, h.first, h.last)
	}
	p.Name = []byte(string(utf16.Decode(name)))
	p.Offset = int64(first) * r.sectorSize // the disk's size is an int64
	p.Length = int64(last-first+1) * r.sectorSize
	return p, nil
}
