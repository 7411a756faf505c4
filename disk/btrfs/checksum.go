package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/drydock-vm/drydock/disk/btrfs/internal/blake2b"
	"github.com/drydock-vm/drydock/disk/btrfs/internal/xxh64"
)

// maxChecksumSize is the room for a checksum in a superblock and a tree block.
const maxChecksumSize = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is one of the algorithms of csum_type.
type checksum struct {
	name string
	size int // bytes
	sum  func(out *[maxChecksumSize]byte, data []byte)
}

// checksums are the algorithms by their number on disk.
var checksums = [...]checksum{
	0: {"crc32c", 4, func(out *[maxChecksumSize]byte, data []byte) {
		binary.LittleEndian.PutUint32(out[:], crc32.Checksum(data, castagnoli))
	}},
	1: {"xxhash64", 8, func(out *[maxChecksumSize]byte, data []byte) {
		binary.LittleEndian.PutUint64(out[:], xxh64.Sum(data))
	}},
	2: {"sha256", sha256.Size, func(out *[maxChecksumSize]byte, data []byte) { *out = sha256.Sum256(data) }},
	3: {"blake2b", blake2b.Size, func(out *[maxChecksumSize]byte, data []byte) { *out = blake2b.Sum256(data) }},
}

// isCRC32C reports whether c is the algorithm of all but a few filesystems.
func (c *checksum) isCRC32C() bool { return c.size == 4 }

// matches reports whether want, of c.size bytes, is the checksum of data.
func (c *checksum) matches(want, data []byte) bool {
	if c.isCRC32C() {
		return binary.LittleEndian.Uint32(want) == crc32.Checksum(data, castagnoli)
	}
	var got [maxChecksumSize]byte
	c.sum(&got, data)
	return bytes.Equal(got[:c.size], want[:c.size])
}

// nameHash is the offset of the items that hold a name: crc32c from the seed
// ^1, without the inversion at the end.
func nameHash(name []byte) uint32 { return ^crc32.Update(1, castagnoli, name) }

// extrefHash is the offset of an extended reference of a name in a directory:
// the seed is the directory's number.
func extrefHash(dir uint64, name []byte) uint64 {
	return uint64(^crc32.Update(^uint32(dir), castagnoli, name))
}
