package iso9660_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damage reads damaged images. The memory is that of the cache, and as much again.
func damage() *disktest.Damage {
	d := &disktest.Damage{Layer: "iso9660", Open: open, Share: 10, MaxAlloc: 16 << 20}
	if *thorough {
		d.Share = 1
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage]. The format
// has no checksums: what is read may differ, but must come to an end.
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			damage().Fields(t, disktest.LoadSeed(t, s.name), false)
		})
	}
}

// TestCut cuts images at each structure.
func TestCut(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage().Cuts(t, disktest.LoadSeed(t, s.name)) })
	}
}

// TestBadSectors has a disk that cannot be read in places.
func TestBadSectors(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage().BadSectors(t, disktest.LoadSeed(t, s.name)) })
	}
}

// The fields of the structures, as their declarations have them.
type fields = []disktest.Field

var field, flags = disktest.Number, disktest.Flags

var (
	descriptorFields = fields{
		field("type", 0, 1), field("identifier", 1, 5), field("version", 6, 1), flags("flags", 7, 1), field("volume identifier", 40, 8), field("blocks", 80, 4),
		field("escape sequence", 88, 3), field("logical block size", 128, 2), field("date", 830, 8),
	}
	recordFields = fields{
		field("length", 0, 1), field("extended attribute record", 1, 1), field("block", 2, 4), field("size", 10, 4), field("year", 18, 1), field("month", 19, 1),
		field("day", 20, 1), field("hour", 21, 1), field("zone", 24, 1), flags("flags", 25, 1), field("unit", 26, 1), field("gap", 27, 1), field("length of the name", 32, 1),
		field("name", 33, 1),
	}
	// Of an entry of system use: its data may be shorter.
	entryFields = map[string]fields{
		"SP": {field("length", 2, 1), field("check", 4, 2), field("skip", 6, 1)},
		"CE": {field("length", 2, 1), field("block", 4, 4), field("offset", 12, 4), field("length of the area", 20, 4)},
		"PX": {field("length", 2, 1), flags("mode", 4, 4), field("links", 12, 4), field("owner", 20, 4), field("group", 28, 4)},
		"NM": {field("length", 2, 1), flags("flags", 4, 1), field("name", 5, 1)},
		"SL": {field("length", 2, 1), flags("flags", 4, 1), flags("flags of a component", 5, 1), field("length of a component", 6, 1)},
		"TF": {field("length", 2, 1), flags("flags", 4, 1), field("time", 5, 7)},
		"CL": {field("length", 2, 1), field("block", 4, 4)},
		"RE": {field("length", 2, 1)},
	}
)

// structures returns what a seed holds: the descriptors, the records of directories,
// and their entries of system use.
func (e *editor) structures() (list []disktest.Record) {
	for off := int64(16 * 2048); string(e.raw[off+1:][:5]) == "CD001"; off += 2048 {
		list = append(list, disktest.Record{Name: "descriptor", Off: off, Fields: descriptorFields},
			disktest.Record{Name: "record of the root", Off: off + 156, Fields: recordFields})
	}
	directories, count := map[uint32]bool{}, map[string]int{}
	root := e.open().Info().Root
	var directory func(record []byte)
	directory = func(record []byte) {
		start, size := block(record), binary.LittleEndian.Uint32(record[10:])
		if directories[start] {
			return
		}
		directories[start] = true
		for off := start * 2048; off < start*2048+size; {
			n := uint32(e.raw[off])
			if n == 0 {
				off = (off/2048 + 1) * 2048
				continue
			}
			if count["record"]++; count["record"]%3 == 0 || *thorough {
				list = append(list, disktest.Record{Name: "record", Off: int64(off), Fields: recordFields})
			}
			list = append(list, e.entries(int64(off), count)...)
			if e.raw[off+25]&2 != 0 && e.raw[off+32] > 1 {
				directory(e.raw[off:][:n])
			}
			off += n
		}
	}
	directory(e.raw[root:][:34])
	return list
}

// entries returns the entries of a record's system use.
func (e *editor) entries(off int64, count map[string]int) (list []disktest.Record) {
	record := e.raw[off:][:e.raw[off]]
	use := (33 + int(record[32]) + 1) &^ 1
	for use+4 <= len(record) && record[use] != 0 && record[use+2] >= 4 {
		signature := string(record[use:][:2])
		if count[signature]++; entryFields[signature] != nil && (count[signature] <= 4 || *thorough) {
			list = append(list, disktest.Record{Name: fmt.Sprintf("entry %s", signature), Off: off + int64(use), Fields: entryFields[signature]})
		}
		use += int(record[use+2])
	}
	return list
}

// TestFields sets each field to what breaks readers.
func TestFields(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			d := damage()
			d.More, d.Strict, d.MaxRead = disktest.ReadMore, true, 64<<20
			e := edit(t, s.name)
			list := e.structures()
			d.SetFields(t, disktest.LoadSeed(t, s.name), list)
			if t.Logf("%d structures", len(list)); len(list) < 20 {
				t.Error("few structures")
			}
		})
	}
}
