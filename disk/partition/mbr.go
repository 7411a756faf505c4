package partition

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// mbrLayer makes the errors of an MBR.
var mbrLayer = ondisk.Layer{Name: "mbr", Repair: "let fdisk in the guest put the table right"}

const (
	mbrSize     = 512 // whatever the sector size
	mbrEntries  = 4
	mbrMagic    = 0xaa55
	firstLogic  = 5    // number of the first logical partition
	typeGPT     = 0xee // the protective entry of a GPT
	activeEntry = 0x80

	// maxLogical is the number of extended boot records that are followed.
	// Linux gives a disk at most 255 partitions.
	maxLogical = 255
)

// errNotMBR: the sector has no MBR, though it is marked like one.
var errNotMBR = errors.New("not a partition table")

func isExtended(kind uint8) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

// reader reads the tables of one disk.
type reader struct {
	d          disk.Sparse
	sectorSize int64
	sectors    uint64 // whole ones
}

// mbr is the first sector of a disk, or an extended boot record, little-endian:
//
//	offset  size
//	     0   440  code, or the boot sector of a filesystem
//	   440     4  disk signature
//	   446    64  4 entries
//	   510     2  55 AA
type mbr struct {
	signature uint32
	entries   [mbrEntries]mbrEntry
	isVolume  bool // it starts as the boot sector of a filesystem does
}

// mbrEntry is an entry of an MBR:
//
//	offset  size
//	     0     1  80 active, 00 not
//	     1     3  cylinder, head, sector of the first; not used
//	     4     1  type, 0: unused
//	     5     3  cylinder, head, sector of the last; not used
//	     8     4  first sector
//	    12     4  number of sectors
type mbrEntry struct {
	boot, kind   uint8
	start, count uint32
}

func (e mbrEntry) used() bool { return e.kind != 0 && e.count != 0 }

// mbr reads the first sector, and returns nil if it is not marked as an MBR.
func (r *reader) mbr() (*mbr, error) {
	if r.d.Size() < mbrSize {
		return nil, nil
	}
	return r.mbrAt(0)
}

// mbrAt reads the MBR or extended boot record at a sector, and returns nil if
// the sector is not marked as one.
func (r *reader) mbrAt(sector uint64) (*mbr, error) {
	off := int64(sector) * r.sectorSize
	buf := make([]byte, mbrSize)
	if err := ondisk.ReadFull(r.d, buf, off); err != nil {
		return nil, mbrLayer.Unreadable("boot record", off, err)
	}
	c := ondisk.NewCursor(buf, binary.LittleEndian)
	c.Seek(440)
	m := &mbr{signature: c.U32(), isVolume: isVolume(buf)}
	c.Skip(2)
	for i := range m.entries {
		e := &m.entries[i]
		e.boot = c.U8()
		c.Skip(3)
		e.kind = c.U8()
		c.Skip(3)
		e.start, e.count = c.U32(), c.U32()
	}
	magic := c.U16()
	if err := c.Err(); err != nil {
		return nil, mbrLayer.Damaged("boot record", off, "%v", err)
	}
	if magic != mbrMagic {
		return nil, nil
	}
	return m, nil
}

// isVolume reports whether a sector starts as the boot sector of FAT, exFAT or
// NTFS: a jump over the parameters, and parameters that are possible.
func isVolume(sector []byte) bool {
	c := ondisk.NewCursor(sector, binary.LittleEndian)
	jump := c.Bytes(3)
	name := string(c.Bytes(8))
	sectorSize, perCluster := c.U16(), c.U8()
	reserved, fats := c.U16(), c.U8()
	c.Skip(4)
	media := c.U8()
	if c.Err() != nil || jump[0] != 0xe9 && (jump[0] != 0xeb || jump[2] != 0x90) {
		return false
	}
	if name == "EXFAT   " || name == "NTFS    " {
		return true
	}
	return sectorSize >= 512 && sectorSize <= 4096 && bits.OnesCount16(sectorSize) == 1 &&
		bits.OnesCount8(perCluster) == 1 && reserved != 0 && (fats == 1 || fats == 2) && (media == 0xf0 || media >= 0xf8)
}

// protective reports whether m stands in front of a GPT.
func (m *mbr) protective() bool {
	for _, e := range m.entries {
		if e.kind == typeGPT && e.start == 1 {
			return true
		}
	}
	return false
}

// dos returns the table of an MBR, by the rules of the package comment.
func (r *reader) dos(m *mbr) (*Table, error) {
	t := &Table{Kind: MBR, SectorSize: r.sectorSize, Signature: m.signature}
	err := r.primary(t, m)
	if errors.Is(err, errNotMBR) || err != nil && m.isVolume {
		return &Table{Kind: None, SectorSize: r.sectorSize}, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range mbrEntries {
		if e := m.entries[i]; e.used() && isExtended(e.kind) {
			if err := r.logical(t, e); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// primary adds the primary partitions, and the containers, to t.
func (r *reader) primary(t *Table, m *mbr) error {
	for i, e := range m.entries {
		if e.boot != 0 && e.boot != activeEntry {
			return errNotMBR
		}
		if !e.used() {
			continue
		}
		if e.kind == typeGPT {
			return mbrLayer.Damaged("boot record", 0, "entry %d announces a GPT, but not at sector 1", i+1)
		}
		if e.start == 0 || !ondisk.WithinU(uint64(e.start), uint64(e.count), r.sectors) {
			return mbrLayer.Damaged("boot record", 0, "partition %d, %d sectors from sector %d, is not within the disk of %d sectors", i+1, e.count, e.start, r.sectors)
		}
		t.Partitions = append(t.Partitions, r.partition(i+1, uint64(e.start), e))
	}
	if len(t.Partitions) == 0 {
		return errNotMBR
	}
	return checkOverlap(mbrLayer, t.Partitions)
}

// partition is that of an entry whose first sector is start.
func (r *reader) partition(number int, start uint64, e mbrEntry) Partition {
	return Partition{
		Number: number,
		Offset: int64(start) * r.sectorSize,
		Length: int64(e.count) * r.sectorSize,
		Type:   e.kind,
		Active: e.boot == activeEntry,
	}
}

// logical adds the logical partitions within the extended partition of entry
// container. Each is described by an extended boot record in front of it: its
// first entry counts from the record, and its second, which leads to the next
// record, from the container.
func (r *reader) logical(t *Table, container mbrEntry) error {
	first, size := uint64(container.start), uint64(container.count)
	var found []Partition
	number := max(firstLogic, t.Partitions[len(t.Partitions)-1].Number+1)
	record := first
	for hops := 0; ; hops++ {
		off := int64(record) * r.sectorSize
		if hops == maxLogical {
			return mbrLayer.Beyond("extended boot record", off, "more than %d records; do they lead in a circle?", maxLogical)
		}
		m, err := r.mbrAt(record)
		if err != nil {
			return err
		}
		if m == nil && hops == 0 {
			break // a container that was never filled
		}
		if m == nil {
			return mbrLayer.Damaged("extended boot record", off, "it is not marked as one")
		}
		if m.entries[2].used() || m.entries[3].used() {
			return mbrLayer.Damaged("extended boot record", off, "it has more than a partition and a link")
		}
		if e := m.entries[0]; e.used() {
			if !ondisk.WithinU(uint64(e.start), uint64(e.count), first+size-record) || e.start == 0 {
				return mbrLayer.Damaged("extended boot record", off, "logical partition %d, %d sectors %d behind its record, is not within its extended partition", number, e.count, e.start)
			}
			found = append(found, r.partition(number, record+uint64(e.start), e))
			number++
		}
		link := m.entries[1]
		if !link.used() {
			break
		}
		if !isExtended(link.kind) || uint64(link.start) >= size {
			return mbrLayer.Damaged("extended boot record", off, "the link to the next extended boot record is of type %#02x to sector %d of %d", link.kind, link.start, size)
		}
		record = first + uint64(link.start)
	}
	t.Partitions = append(t.Partitions, found...)
	return checkOverlap(mbrLayer, found)
}
