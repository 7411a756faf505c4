package fat_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damage reads damaged images. The memory is that of the cache, and as much again.
func damage() *disktest.Damage {
	d := &disktest.Damage{Layer: "fat", Open: open, Share: 20, MaxAlloc: 16 << 20}
	if *thorough {
		d.Share = 1
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage]. FAT
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
	bootFields = fields{
		field("jump", 0, 1), field("bytes per sector", 0x0b, 2), field("sectors per cluster", 0x0d, 1), field("reserved sectors", 0x0e, 2),
		field("FATs", 0x10, 1), field("root entries", 0x11, 2), field("sectors", 0x13, 2), flags("media", 0x15, 1),
		field("sectors per FAT", 0x16, 2), field("sectors per track", 0x18, 2), field("heads", 0x1a, 2), field("hidden sectors", 0x1c, 4),
		field("sectors, large", 0x20, 4), field("signature", 0x1fe, 2),
	}
	boot16Fields = fields{
		field("drive", 0x24, 1), flags("state", 0x25, 1), field("extension", 0x26, 1), field("serial number", 0x27, 4), field("label", 0x2b, 8), field("type", 0x36, 8),
	}
	boot32Fields = fields{
		field("sectors per FAT, large", 0x24, 4), flags("flags", 0x28, 2), field("version", 0x2a, 2), field("root cluster", 0x2c, 4), field("FSInfo sector", 0x30, 2),
		field("copy of the boot sector", 0x32, 2), flags("state", 0x41, 1), field("extension", 0x42, 1), field("serial number", 0x43, 4), field("label", 0x47, 8),
		field("type", 0x52, 8),
	}
	infoFields = fields{
		field("lead signature", 0, 4), field("signature", 0x1e4, 4), field("free clusters", 0x1e8, 4), field("next free cluster", 0x1ec, 4), field("trail signature", 0x1fc, 4),
	}
	entryFields = fields{
		field("name", 0, 8), field("first character", 0, 1), field("extension", 8, 2), flags("attributes", 0x0b, 1), flags("flags of Windows", 0x0c, 1), field("created, 10 ms", 0x0d, 1),
		field("created, time", 0x0e, 2), field("created, date", 0x10, 2), field("accessed, date", 0x12, 2), field("cluster, high", 0x14, 2),
		field("written, time", 0x16, 2), field("written, date", 0x18, 2), field("cluster, low", 0x1a, 2), field("size", 0x1c, 4),
	}
	partFields = fields{
		flags("number", 0, 1), field("character 1", 1, 2), field("character 5", 9, 2), flags("attributes", 0x0b, 1), field("type", 0x0c, 1), field("checksum", 0x0d, 1),
		field("character 6", 0x0e, 2), field("cluster", 0x1a, 2), field("character 13", 0x1e, 2),
	}
)

// structures returns what a seed holds: the boot sector, the entries of the table,
// and those of directories.
func (e *editor) structures() (list []disktest.Record) {
	boot := slices.Concat(bootFields, boot16Fields)
	if e.bits == 32 {
		boot = slices.Concat(bootFields, boot32Fields)
		list = append(list, disktest.Record{Name: "FSInfo", Off: 512, Fields: infoFields})
	}
	list = append(list, disktest.Record{Name: "boot sector", Fields: boot})
	size := (e.bits + 7) / 8
	for cluster := 0; cluster < 80; cluster += 3 {
		at := int64(e.fat + cluster*e.bits/8)
		list = append(list, disktest.Record{Name: fmt.Sprintf("table entry of cluster %d", cluster), Off: at, Fields: fields{field("next", 0, size)}})
	}
	directory := func(name string, at, length int) {
		count := make(map[int]int)
		for ; length >= 32 && e.raw[at] != 0; at, length = at+32, length-32 {
			f := entryFields
			if e.raw[at+0x0b]&0x3f == 0x0f {
				f = partFields
			}
			if count[len(f)]++; count[len(f)] > 4 && !*thorough { // there are many of either
				continue
			}
			list = append(list, disktest.Record{Name: "entry of " + name, Off: int64(at), Fields: f})
		}
	}
	directory("the root", e.root, max(e.rootLen, 512)) // or its first cluster
	for _, name := range []string{"DIR        ", "SUB        ", "MANY       "} {
		directory(name, e.data+(start(e.entry(name))-2)*512, 512)
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
			d.SetFields(t, disktest.Image{ReaderAt: bytes.NewReader(e.raw), Length: int64(len(e.raw))}, list)
			t.Logf("%d structures", len(list))
		})
	}
}

// TestTableEntries makes entries of the table that are in use lead to each other
// cluster: to itself, back, and to those of other files.
func TestTableEntries(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			d := damage()
			d.More, d.Strict, d.MaxRead = disktest.ReadMore, true, 64<<20
			step := 5
			if *thorough {
				step = 1
			}
			e := edit(t, s.name)
			original := bytes.Clone(e.raw)
			for from := 2; from < 70; from++ {
				e.try(d, original, from, from)
				for to := 2 + from%step; to < 70; to += step {
					e.try(d, original, from, to)
				}
			}
		})
	}
}

// try lets one cluster lead to another, and takes that back.
func (e *editor) try(d *disktest.Damage, original []byte, from, to int) {
	e.t.Helper()
	e.set(from, uint32(to))
	d.Try(e.t, fmt.Sprintf("cluster %d leads to %d", from, to), e.image())
	copy(e.raw[e.fat:e.root], original[e.fat:])
}
