// Package xxh64 computes the 64-bit xxHash with seed 0, one of the checksums of
// btrfs. It is made for detecting damage, not malice.
//
// The algorithm is that of doc/xxhash_spec.md of github.com/Cyan4973/xxHash.
package xxh64

import (
	"encoding/binary"
	"math/bits"
)

const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5

	stripeSize = 32
)

// Sum returns the hash of data.
func Sum(data []byte) uint64 {
	n := uint64(len(data))
	h := prime5
	if len(data) >= stripeSize {
		h, data = stripes(data)
	}
	return finish(h+n, data)
}

// stripes mixes all whole stripes of data, and returns what is left.
func stripes(data []byte) (uint64, []byte) {
	p1, p2 := prime1, prime2 // variables: the sums wrap
	a, b, c, d := p1+p2, p2, uint64(0), -p1
	for len(data) >= stripeSize {
		s := data[:stripeSize:stripeSize]
		a = round(a, binary.LittleEndian.Uint64(s[0:8]))
		b = round(b, binary.LittleEndian.Uint64(s[8:16]))
		c = round(c, binary.LittleEndian.Uint64(s[16:24]))
		d = round(d, binary.LittleEndian.Uint64(s[24:32]))
		data = data[stripeSize:]
	}
	h := bits.RotateLeft64(a, 1) + bits.RotateLeft64(b, 7) + bits.RotateLeft64(c, 12) + bits.RotateLeft64(d, 18)
	for _, lane := range [...]uint64{a, b, c, d} {
		h = (h^round(0, lane))*prime1 + prime4
	}
	return h, data
}

func round(acc, lane uint64) uint64 { return bits.RotateLeft64(acc+lane*prime2, 31) * prime1 }

// finish mixes the last bytes, fewer than a stripe.
func finish(h uint64, data []byte) uint64 {
	for ; len(data) >= 8; data = data[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(data)), 27)*prime1 + prime4
	}
	if len(data) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(data))*prime1, 23)*prime2 + prime3
		data = data[4:]
	}
	for _, b := range data {
		h = bits.RotateLeft64(h^uint64(b)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}
