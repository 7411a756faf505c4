package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	bootSectorSize = 512 // what is used of it, whatever the sector size

	minSectorSize = 512
	maxSectorSize = 4096 // of Linux and of the specification

	// maxFAT12, maxFAT16 and maxFAT32 are the most clusters of each kind: the
	// numbers above are marks.
	maxFAT12 = 0xff4
	maxFAT16 = 0xfff4
	maxFAT32 = 0x0ffffff4

	firstCluster = 2 // the first two entries of the table are marks

	entrySize = 32
)

// geometry is what the boot sector says of a filesystem, checked: all places are
// in bytes and lie within the disk.
//
// Layout (FAT File System Specification, "Boot Sector and BPB"), little endian:
//
//	0x00B 2 bytes per sector        0x013 2 sectors, if less than 2^16
//	0x00D 1 sectors per cluster     0x015 1 media
//	0x00E 2 reserved sectors        0x016 2 sectors per FAT; 0: FAT32
//	0x010 1 number of FATs          0x020 4 sectors, otherwise
//	0x011 2 entries of the root     0x1FE 2 55 AA
//
// then, of FAT12 and FAT16, or of FAT32:
//
//	                                0x024 4 sectors per FAT
//	                                0x028 2 0x80: only FAT number 0 to 15 is in use
//	                                0x02A 2 version, 0
//	                                0x02C 4 first cluster of the root
//	0x025 1 state, 1: dirty         0x041 1
//	0x026 1 0x29: what follows, 0x28: the serial number alone, is valid
//	0x027 4 serial number           0x043 4
//	0x02B 11 label                  0x047 11
//	0x036 8 "FAT12   ", "FAT16   "  0x052 8 "FAT32   "
type geometry struct {
	bits        uint  // of a table entry: 12, 16 or 32
	size        int64 // of the filesystem
	clusterSize int64

	table       int64 // the FAT that is in use
	tableNumber int
	rootStart   int64 // of FAT12 and FAT16
	rootSize    int64
	rootCluster uint32 // of FAT32
	data        int64  // cluster 2
	clusters    uint32 // numbers 2 to clusters+1

	dirty  bool
	serial uint32 // 0 where there is none
}

// sectors are the counts of a boot sector that the places follow from.
type sectors struct {
	bytes, perCluster, reserved, fats, perFAT, rootEntries, total uint64
}

// parseGeometry reads and checks the boot sector of a disk of diskSize bytes.
func parseGeometry(raw []byte, diskSize int64) (*geometry, error) {
	g := new(geometry)
	s, err := g.decode(raw)
	if err != nil {
		return nil, err
	}
	if err := g.place(s); err != nil {
		return nil, err
	}
	if g.size > diskSize {
		return nil, &disk.Error{
			Layer: layer.Name, Structure: "boot sector", Offset: 0, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("the filesystem has %d bytes, but the disk only %d", g.size, diskSize),
			Hint:   "the image is cut short, or this is the wrong partition",
		}
	}
	return g, nil
}

func bootDamaged(format string, args ...any) error {
	return layer.Damaged("boot sector", 0, format, args...)
}

// decode takes the fields, and checks each for itself.
func (g *geometry) decode(raw []byte) (*sectors, error) {
	c := ondisk.NewCursor(raw, binary.LittleEndian)
	c.Seek(0x0b)
	s := &sectors{bytes: uint64(c.U16()), perCluster: uint64(c.U8()), reserved: uint64(c.U16()), fats: uint64(c.U8())}
	s.rootEntries, s.total = uint64(c.U16()), uint64(c.U16())
	media := c.U8()
	s.perFAT = uint64(c.U16())
	c.Seek(0x20)
	large := uint64(c.U32())
	if s.total == 0 {
		s.total = large
	}
	extension := 0x24
	if s.perFAT == 0 {
		g.bits = 32
		s.perFAT = uint64(c.U32())
		if err := g.decodeFAT32(c, s); err != nil {
			return nil, err
		}
		extension = 0x40
	}
	c.Seek(extension + 1)
	g.dirty = c.U8()&1 != 0
	if signature := c.U8(); signature == 0x28 || signature == 0x29 {
		g.serial = c.U32()
	}
	if c.Err() != nil {
		return nil, bootDamaged("%v", c.Err())
	}
	return s, s.check(media)
}

// decodeFAT32 takes the fields that only FAT32 has.
func (g *geometry) decodeFAT32(c *ondisk.Cursor, s *sectors) error {
	flags, version := c.U16(), c.U16()
	g.rootCluster = c.U32()
	if version != 0 {
		return layer.Unsupported("boot sector", 0, "back this disk up as an image", "FAT32 of version %d.%d", version>>8, version&0xff)
	}
	if flags&0x80 != 0 {
		g.tableNumber = int(flags & 0xf)
		if uint64(g.tableNumber) >= s.fats {
			return bootDamaged("FAT number %d is said to be in use, but there are %d", g.tableNumber, s.fats)
		}
	}
	return nil
}

func (s *sectors) check(media uint8) error {
	switch {
	case s.bytes < minSectorSize || bits.OnesCount64(s.bytes) != 1:
		return bootDamaged("sectors of %d bytes", s.bytes)
	case s.bytes > maxSectorSize:
		return layer.Unsupported("boot sector", 0, "back this disk up as an image", "sectors of %d bytes, at most %d are supported", s.bytes, maxSectorSize)
	case bits.OnesCount64(s.perCluster) != 1:
		return bootDamaged("%d sectors per cluster", s.perCluster)
	case s.reserved == 0:
		return bootDamaged("no reserved sectors")
	case s.fats == 0 || s.perFAT == 0:
		return bootDamaged("%d FATs of %d sectors", s.fats, s.perFAT)
	case media != 0xf0 && media < 0xf8:
		return bootDamaged("media %#02x", media)
	}
	return nil
}

// place computes where everything lies. No count has more than 32 bits, and a
// sector at most 12: nothing here overflows.
func (g *geometry) place(s *sectors) error {
	root := s.reserved + s.fats*s.perFAT
	data := root + (s.rootEntries*entrySize+s.bytes-1)/s.bytes
	if data >= s.total {
		return bootDamaged("the tables take %d sectors of %d", data, s.total)
	}
	count := (s.total - data) / s.perCluster
	limit := uint64(maxFAT32)
	if g.bits == 0 {
		g.bits, limit = 12, maxFAT12
		if count > maxFAT12 {
			g.bits, limit = 16, maxFAT16
		}
	}
	// A table that is too small leaves the clusters behind it unused, as in Linux.
	entries := s.perFAT * s.bytes * 8 / uint64(g.bits)
	if entries <= firstCluster || count == 0 {
		return bootDamaged("there are no clusters")
	}
	count = min(count, entries-firstCluster)
	if count > limit {
		return bootDamaged("%d clusters, FAT%d has at most %d", count, g.bits, limit)
	}
	g.clusters = uint32(count)
	g.clusterSize = int64(s.perCluster * s.bytes)
	g.size = int64(s.total * s.bytes)
	g.table = int64((s.reserved + uint64(g.tableNumber)*s.perFAT) * s.bytes)
	g.rootStart, g.rootSize = int64(root*s.bytes), int64(s.rootEntries*entrySize)
	g.data = int64(data * s.bytes)
	if g.bits == 32 && !g.valid(g.rootCluster) {
		return bootDamaged("the root is said to start at cluster %d, there are 2 to %d", g.rootCluster, g.clusters+1)
	}
	return nil
}

// valid reports whether a cluster number is that of a cluster.
func (g *geometry) valid(cluster uint32) bool {
	return cluster >= firstCluster && cluster-firstCluster < g.clusters
}

// offset is where a valid cluster lies.
func (g *geometry) offset(cluster uint32) int64 {
	return g.data + int64(cluster-firstCluster)*g.clusterSize
}

// looksLikeFAT reports whether a sector is marked as the boot sector of FAT, in
// one of the two ways that every formatter leaves at least one of.
func looksLikeFAT(raw []byte) bool {
	if bytes.HasPrefix(raw[0x36:], []byte("FAT")) || bytes.HasPrefix(raw[0x52:], []byte("FAT32")) {
		return true
	}
	jump := raw[0] == 0xe9 || raw[0] == 0xeb && raw[2] == 0x90
	return jump && raw[510] == 0x55 && raw[511] == 0xaa
}
