package lvm_test

import (
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

const (
	areaAt    = 4096
	areaSize  = 16 << 10
	extentsAt = 32 << 10
)

func checksum(p []byte) uint32 {
	return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, p)
}

// physicalVolume makes a disk of 64 KiB whose label and metadata area are good,
// whatever the text in it is. The text starts so late in its ring that it wraps.
func physicalVolume(letter, text string) disktest.Mem {
	d := make(disktest.Mem, 64<<10)
	l := d[512:1024]
	copy(l, "LABELONE\x01")
	binary.LittleEndian.PutUint32(l[20:], 32)
	copy(l[24:], "LVM2 001"+strings.Repeat(letter, 32))
	for i, v := range []uint64{uint64(len(d)), extentsAt, 0, 0, 0, areaAt, areaSize} {
		binary.LittleEndian.PutUint64(l[64+8*i:], v)
	}
	area := d[areaAt : areaAt+areaSize]
	copy(area[4:], " LVM2 x[5A%r0N*>\x01")
	const start = areaSize - 100
	for i, v := range []uint64{areaAt, areaSize, start, uint64(len(text))} {
		binary.LittleEndian.PutUint64(area[24+8*i:], v)
	}
	binary.LittleEndian.PutUint32(area[56:], checksum([]byte(text)))
	copy(area[512:], text[copy(area[start:], text):])
	seal(d)
	return d
}

// seal makes the checksums of label and area right.
func seal(d disktest.Mem) {
	binary.LittleEndian.PutUint32(d[512+16:], checksum(d[512+20:1024]))
	binary.LittleEndian.PutUint32(d[areaAt:], checksum(d[areaAt+4:areaAt+512]))
}

// goodText describes a group of two physical volumes, "p" and "q".
var goodText = `vg {
id = "` + uuid("g") + `"
seqno = 7
format = "lvm2" # a "comment" {
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = 8
max_lv = 0
metadata_copies = 0
physical_volumes {
pv0 {
id = "` + uuid("p") + `"
device = "/dev/\"\\vda"
status = ["ALLOCATABLE"]
flags = []
dev_size = 128
pe_start = 64
pe_count = 8
}
pv1 {
id = "` + uuid("q") + `"
status = ["ALLOCATABLE"]
flags = []
pe_start = 64
pe_count = 8
}
}
logical_volumes {
` + volume("v", "v", visible, linear("1")) + volume("s", "s", visible, `type = "striped" stripe_count = 2 stripe_size = 4 stripes = ["pv0", 6, "pv1", 3]`) + `
}
}
contents = "Text Format Volume Group"
version = 1
description = ""
` + "\x00"

// openText opens the group that a text describes.
func openText(text string) error {
	if len(text) > areaSize-512 {
		return nil
	}
	return readAll([]disk.Sparse{physicalVolume("p", text), physicalVolume("q", text)})
}
