package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is a running CRC-32C as Linux keeps it: neither the start nor the
// end is inverted, so that one structure's checksum seeds the next.
// (Documentation/filesystems/ext4/checksums.rst.)
type checksum uint32

// startChecksum is the seed where the format names none.
const startChecksum checksum = 0xffffffff

func (c checksum) add(p []byte) checksum {
	return ^checksum(crc32.Update(^uint32(c), castagnoli, p))
}

func (c checksum) addUint32(v uint32) checksum {
	return c.add(binary.LittleEndian.AppendUint32(make([]byte, 0, 4), v))
}

// addWithout adds p as if its bytes [at, at+n) were zero: where a structure
// holds its own checksum. n is at most 4, and the range lies in p.
func (c checksum) addWithout(p []byte, at, n int) checksum {
	var zero [4]byte
	return c.add(p[:at]).add(zero[:n]).add(p[at+n:])
}

// crc16 is the CRC-16 (polynomial 0x8005, reflected) that guards the group
// descriptors of filesystems with uninit_bg and without metadata_csum.
func crc16(crc uint16, p []byte) uint16 {
	for _, b := range p {
		crc ^= uint16(b)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}

// crc32BE is the CRC-32 (polynomial 0x04c11db7, most significant bit first,
// not inverted) of jbd2's first checksum format.
func crc32BE(crc uint32, p []byte) uint32 {
	for _, b := range p {
		crc = crc<<8 ^ crc32BETable[byte(crc>>24)^b]
	}
	return crc
}

var crc32BETable = makeCRC32BETable()

func makeCRC32BETable() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}
