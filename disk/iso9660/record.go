package iso9660

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// minRecord is the length of a directory record with a name of one byte.
const minRecord = 34

// The flags of a directory record (ECMA-119, section 9.1.6).
const (
	flagDirectory   = 1 << 1
	flagAssociated  = 1 << 2
	flagMultiExtent = 1 << 7 // another record of the same file follows
)

// record is a directory record.
//
// Layout (ECMA-119, section 9.1):
//
//	 0 1 length of the record
//	 1 1 blocks of the extended attribute record, in front of the content
//	 2 8 first block, both
//	10 8 bytes of content, both
//	18 7 time
//	25 1 flags
//	26 1 blocks of a unit, of an interleaved file
//	27 1 blocks between its units
//	32 1 length of the name
//	33   name, a byte to make the whole even, and what SUSP calls system use
type record struct {
	length      int
	attributes  uint8
	block       uint32
	size        uint32
	time        disk.Time
	flags       uint8
	interleaved bool
	name        []byte
	systemUse   []byte
}

func (r *record) isDirectory() bool { return r.flags&flagDirectory != 0 }

// parseRecord reads the record at the start of raw, the rest of a sector. What it
// returns refers to raw.
func parseRecord(raw []byte) (record, error) {
	if len(raw) == 0 || raw[0] == 0 {
		return record{}, errors.New("there is no directory record")
	}
	length := int(raw[0])
	switch {
	case length < minRecord:
		return record{}, fmt.Errorf("a directory record of %d bytes; it needs %d", length, minRecord)
	case length > len(raw):
		return record{}, fmt.Errorf("a directory record of %d bytes, of which %d lie in its sector", length, len(raw))
	}
	raw = raw[:length]
	nameLength := int(raw[32])
	if nameLength == 0 || 33+nameLength > length {
		return record{}, fmt.Errorf("a name of %d bytes in a directory record of %d", nameLength, length)
	}
	le := binary.LittleEndian
	r := record{
		length: length, attributes: raw[1], block: le.Uint32(raw[2:]), size: le.Uint32(raw[10:]), time: shortTime(raw[18:25]),
		flags: raw[25], interleaved: raw[26] != 0 || raw[27] != 0, name: raw[33:][:nameLength],
	}
	if at := (33 + nameLength + 1) &^ 1; at < length {
		r.systemUse = raw[at:]
	}
	return r, nil
}

// shortTime decodes the time of a record (ECMA-119, section 9.1.5): years since 1900,
// month, day, hour, minute, second, and how far the zone is ahead of UTC, in quarters of
// an hour. What is no date is 1970, as Linux has it.
func shortTime(p []byte) disk.Time {
	return timeOf(1900+int(p[0]), p[1], p[2], p[3], p[4], p[5], 0, int8(p[6]))
}

// longTime decodes a time in digits (ECMA-119, section 8.4.26.1): YYYYMMDDHHMMSS,
// hundredths of a second, and the zone.
func longTime(p []byte) disk.Time {
	var n [8]int // two digits each
	for i := range n {
		n[i] = int(p[2*i]-'0')*10 + int(p[2*i+1]-'0')
		if p[2*i] < '0' || p[2*i] > '9' || p[2*i+1] < '0' || p[2*i+1] > '9' {
			return disk.Time{}
		}
	}
	return timeOf(n[0]*100+n[1], byte(n[2]), byte(n[3]), byte(n[4]), byte(n[5]), byte(n[6]), n[7], int8(p[16]))
}

func timeOf(year int, month, day, hour, minute, second byte, hundredths int, zone int8) disk.Time {
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return disk.Time{}
	}
	if zone < -48 || zone > 52 { // the standard's bounds
		zone = 0
	}
	t := time.Date(year, time.Month(month), int(day), int(hour), int(minute), int(second), 0, time.UTC)
	return disk.Time{Sec: t.Unix() - int64(zone)*15*60, Nsec: uint32(hundredths) * 10_000_000}
}
