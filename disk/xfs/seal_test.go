package xfs_test

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/drydock-vm/drydock/disk"
)

// resealed is a disk whose structures have the right checksums whatever they
// hold, as a hostile guest would write them.
type resealed struct {
	disk.Sparse
}

// checksums are where the structures have theirs, by their first four bytes.
var checksums = map[string]int{
	"XFSB": 224, "XAGF": 216, "XAGI": 312, "IAB3": 52, "AB3B": 52, "BMA3": 64, "XDB3": 4, "XDD3": 4, "XSLM": 12, "XARM": 12,
}

func (d resealed) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Sparse.ReadAt(p, off)
	if n < 512 || n < len(p) {
		return n, err
	}
	switch at, known := checksums[string(p[:4])]; {
	case known:
		seal(p, at)
	case binary.BigEndian.Uint16(p[8:]) == 0x3bee || binary.BigEndian.Uint16(p[8:]) == 0x3ebe:
		seal(p, 12)
	case string(p[:2]) == "IN":
		for ; len(p) >= 512; p = p[512:] {
			seal(p[:512], 100)
		}
	case binary.BigEndian.Uint32(p) == 0xfeedbabe:
		d.sealRecord(p, off)
	}
	return n, err
}

func seal(p []byte, at int) {
	clear(p[at : at+4])
	binary.LittleEndian.PutUint32(p[at:], castagnoli(p))
}

func castagnoli(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// sealRecord seals a record of the log with one block of header, of which p holds
// the header at least.
func (d resealed) sealRecord(p []byte, off int64) {
	length := int64(binary.BigEndian.Uint32(p[12:]))
	if length > 32<<10 {
		return
	}
	data := make([]byte, length)
	if n, _ := d.Sparse.ReadAt(data, off+512); n < len(data) {
		return
	}
	clear(p[32:36])
	sealed := append(append([]byte(nil), p[:328]...), data...)
	binary.LittleEndian.PutUint32(p[32:], castagnoli(sealed))
}
