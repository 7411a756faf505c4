package ext4

import (
	"math/bits"
)

// nameHash is how the names of a directory are hashed: Linux sorts them so, and shows
// the hash of an encrypted one. (fs/ext4/hash.c)
type nameHash struct {
	kind     uint8
	unsigned bool // bytes are extended without their sign
	seed     [4]uint32
}

// The kinds of hash that a directory can have (dx_root_info, s_def_hash_version).
const (
	hashLegacy  = 0
	hashHalfMD4 = 1
	hashTEA     = 2
)

const (
	hashVersionOffset = 28 // in the root of a hash tree
	flagUnsignedHash  = 2  // in s_flags
)

// findHash finds out how the names of a directory are hashed that starts with block b.
// It is nil where Linux reads the directory without a hash, and for one that ignores
// case: with encryption its entries carry a hash by the key, which is not shown here.
func (r *dirReader) findHash(b *dirBlock) *nameHash {
	h := r.fs.sb.nameHash
	switch {
	case r.fs.sb.compat&compatDirIndex == 0 || r.dir.flags&flagCasefold != 0:
		return nil
	case r.dir.flags&flagIndex != 0:
		h.kind = b.data[hashVersionOffset]
	case r.dir.Size != r.fs.sb.blockSize():
		return nil
	}
	if h.kind > hashTEA {
		return nil
	}
	return &h
}

// sum returns the hash of a name, and its second half.
func (h *nameHash) sum(name []byte) (hash, minor uint32) {
	state := h.seed
	if state == [4]uint32{} {
		state = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	switch h.kind {
	case hashLegacy:
		hash = h.legacy(name)
	case hashHalfMD4:
		for ; len(name) > 0; name = name[min(len(name), 32):] {
			var in [8]uint32
			h.words(in[:], name)
			halfMD4(&state, &in)
		}
		hash, minor = state[1], state[2]
	case hashTEA:
		for ; len(name) > 0; name = name[min(len(name), 16):] {
			var in [4]uint32
			h.words(in[:], name)
			tea(&state, &in)
		}
		hash, minor = state[0], state[1]
	}
	const end = 0xfffffffe // stands for the end of a directory
	if hash &^= 1; hash == end {
		hash -= 2
	}
	return hash, minor
}

// extend makes a word of a byte.
func (h *nameHash) extend(c byte) uint32 {
	if h.unsigned {
		return uint32(c)
	}
	return uint32(int8(c))
}

// words fills words with the start of a name, the first byte on top. What is left of
// them is filled with the length of the name, which includes what is behind.
func (h *nameHash) words(to []uint32, name []byte) {
	pad := uint32(len(name)) * 0x01010101 // of at most 255 bytes
	for i := range to {
		to[i] = pad
		for _, c := range name[min(len(name), i*4):min(len(name), i*4+4)] {
			to[i] = to[i]<<8 + h.extend(c)
		}
	}
}

func (h *nameHash) legacy(name []byte) uint32 {
	last, before := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for _, c := range name {
		next := before + (last ^ h.extend(c)*7152373)
		if next >= 1<<31 {
			next -= 1<<31 - 1
		}
		last, before = next, last
	}
	return last << 1
}

// halfMD4Rounds are the rounds of MD4, of eight steps each.
var halfMD4Rounds = [...]struct {
	mix   func(x, y, z uint32) uint32
	plus  uint32
	order [8]int // of the words
	turns [4]int
}{
	{func(x, y, z uint32) uint32 { return z ^ x&(y^z) }, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
	{func(x, y, z uint32) uint32 { return x&y + (x^y)&z }, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
	{func(x, y, z uint32) uint32 { return x ^ y ^ z }, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
}

// halfMD4 mixes eight words into the state.
func halfMD4(state *[4]uint32, in *[8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	for _, r := range halfMD4Rounds {
		for step, word := range r.order {
			a = bits.RotateLeft32(a+r.mix(b, c, d)+in[word]+r.plus, r.turns[step%4])
			a, b, c, d = d, a, b, c
		}
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}

// tea mixes four words into the state, with 16 rounds of the Tiny Encryption Algorithm.
func tea(state, in *[4]uint32) {
	a, b, sum := state[0], state[1], uint32(0)
	for range 16 {
		sum += 0x9e3779b9
		a += (b<<4 + in[0]) ^ (b + sum) ^ (b>>5 + in[1])
		b += (a<<4 + in[2]) ^ (a + sum) ^ (a>>5 + in[3])
	}
	state[0] += a
	state[1] += b
}
