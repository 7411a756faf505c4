package ext4_test

import (
	"encoding/binary"
	"hash/crc32"
)

// rawCRC is CRC-32C as ext4 keeps it, in the test's own words.
func rawCRC(seed uint32, p []byte) uint32 {
	return ^crc32.Update(^seed, crc32.MakeTable(crc32.Castagnoli), p)
}

// sealSuperblock makes the checksum of a superblock right, if it has one.
func sealSuperblock(raw []byte) {
	if binary.LittleEndian.Uint32(raw[0x64:])&0x400 != 0 {
		binary.LittleEndian.PutUint32(raw[0x3fc:], rawCRC(^uint32(0), raw[:0x3fc]))
	}
}
