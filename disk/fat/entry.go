package fat

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The attributes of a directory entry.
const (
	attrReadOnly  = 0x01
	attrVolume    = 0x08
	attrDirectory = 0x10
	attrMask      = 0x3f // the others are reserved
	attrLong      = 0x0f // a part of a long name
)

const (
	nameDeleted = 0xe5 // as the first byte of an entry's name
	nameEnd     = 0x00 // this entry and all behind it are unused
	nameE5      = 0x05 // stands for 0xe5

	// The byte of Windows: which parts of the name are in lower case, and that
	// the content is encrypted (Windows 10, EFS).
	lowerBase      = 0x08
	lowerExtension = 0x10
	encrypted      = 0x01

	shortNameSize = 11 // 8 of the name, 3 of the extension, filled up with blanks
)

var (
	dotName    = []byte(".          ")
	dotDotName = []byte("..         ")
)

// entry is a directory entry of a file, a directory or a label.
//
// Layout (FAT File System Specification, "FAT 32 Byte Directory Entry
// Structure"), little endian:
//
//	0x00 11 name                      0x14 2 first cluster, bits 16 to 31; FAT32
//	0x0B  1 attributes                0x16 2 time of the last write
//	0x0C  1 flags of Windows          0x18 2 date of the last write
//	0x0D  1 creation, 10 ms each      0x1A 2 first cluster, bits 0 to 15
//	0x0E  2 time of creation          0x1C 4 size in bytes, 0 of directories
//	0x10  2 date of creation
//	0x12  2 date of the last access
type entry struct {
	name       []byte // shortNameSize bytes
	attributes uint8
	windows    uint8
	created    stamp
	accessed   stamp
	written    stamp
	cluster    uint32 // the first; 0 where there is none
	size       uint32
}

// parseEntry takes the fields of an entry of entrySize bytes.
func (g *geometry) parseEntry(raw []byte) (entry, error) {
	c := ondisk.NewCursor(raw, binary.LittleEndian)
	e := entry{name: c.Bytes(shortNameSize), attributes: c.U8(), windows: c.U8()}
	e.created.hundredths = c.U8()
	e.created.time, e.created.date = c.U16(), c.U16()
	e.accessed.date = c.U16()
	high := uint32(c.U16())
	e.written.time, e.written.date = c.U16(), c.U16()
	e.cluster = uint32(c.U16())
	if g.bits == 32 {
		e.cluster |= high << 16
	}
	e.size = c.U32()
	return e, c.Err()
}

// isDirectory reports whether e is the entry of a directory.
func (e *entry) isDirectory() bool { return e.attributes&attrDirectory != 0 }

// entryKind is what 32 bytes of a directory are.
type entryKind uint8

const (
	kindUnused entryKind = iota
	kindEnd
	kindLong
	kindLabel
	kindFile // or a directory
)

// kindOf tells what an entry of entrySize bytes is.
func kindOf(raw []byte) entryKind {
	switch attributes := raw[shortNameSize] & attrMask; {
	case raw[0] == nameEnd:
		return kindEnd
	case raw[0] == nameDeleted:
		return kindUnused
	case attributes == attrLong:
		return kindLong
	case attributes&(attrVolume|attrDirectory) == attrVolume:
		return kindLabel
	case attributes&attrVolume != 0:
		return kindUnused // as for Linux
	}
	return kindFile
}

// isDot reports whether the entry's name is "." or "..".
func isDot(raw []byte) bool {
	return bytes.Equal(raw[:shortNameSize], dotName) || bytes.Equal(raw[:shortNameSize], dotDotName)
}

// label returns the name of a label's entry, without padding.
func label(raw []byte) []byte {
	name := bytes.Clone(raw[:shortNameSize])
	if name[0] == nameE5 {
		name[0] = nameDeleted
	}
	return bytes.TrimRight(name, " ")
}

// stamp is a time of a directory entry:
//
//	date: bits 9 to 15 year since 1980, 5 to 8 month, 0 to 4 day
//	time: bits 11 to 15 hour, 5 to 10 minute, 0 to 4 seconds, in units of two
type stamp struct {
	date, time uint16
	hundredths uint8 // 0 to 199
}

// unix returns the time in UTC. What no clock can show is carried over to the
// next day or month; a month or day 0 is the first.
func (s stamp) unix() disk.Time {
	t := time.Date(1980+int(s.date>>9), time.Month(max(1, s.date>>5&0xf)), max(1, int(s.date&0x1f)),
		int(s.time>>11), int(s.time>>5&0x3f), int(s.time&0x1f)*2, 0, time.UTC)
	return disk.Time{
		Sec:  t.Unix() + int64(s.hundredths/100),
		Nsec: uint32(s.hundredths%100) * 10_000_000,
	}
}
