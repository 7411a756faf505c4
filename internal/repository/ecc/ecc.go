// Package ecc makes parity of a pack, and a damaged pack whole again with it.
//
//	parity, err := ecc.Encode(sum, pack, 5) // about 5 % of its size
//	…
//	p, err := ecc.Parse(parity, maxPackSize)
//	pack, err = p.Repair(damaged)
//
// A pack is cut into blocks of 1 KiB, and the blocks are dealt to stripes in turn,
// so that a run of bad sectors is spread over all of them. Each stripe has parity
// blocks of a Reed–Solomon code, and each block, of the pack and of the parity, a
// checksum: what does not fit its checksum is lost, and a stripe comes back as long
// as no more of its blocks are lost than it has parity blocks. docs/format/ecc.md
// has the layout to the byte.
//
// # What it promises
//
// A repaired pack has the SHA-256 that the parity names, or there is an error: the
// caller compares that sum with the pack's name, which is the judge. The parity may
// be damaged itself: its header and its checksums are there twice, at both ends.
//
// Parity comes from storage that is not trusted. Parsing and repairing take memory
// in proportion to the parity and the pack that were read, never to what a header
// says, and never panic.
package ecc

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/reedsolomon"
)

// The share of parity that a pack can get, in percent of its size.
const (
	MinPercent = 1
	MaxPercent = 50
)

const (
	// blockSize is the unit of damage: a quarter of a disk's sector, so that
	// single bits that flip far from each other cost little parity each, and
	// two checksums of a block are less than a percent of it.
	blockSize = 1024
	// maxShards is how many blocks a stripe has with its parity: the field has
	// 256 elements.
	maxShards = 255
	// sectorBlocks is how many blocks one bad sector of 4 KiB takes along. Even
	// the smallest pack survives that.
	sectorBlocks = 4
	sumSize      = 4
)

// The errors of this package, found with [errors.Is].
var (
	// ErrFormat is of parity that is damaged beyond use, or of another version.
	ErrFormat = errors.New("parity cannot be used")
	// ErrTooDamaged is of a pack that has lost more than the parity can bring
	// back.
	ErrTooDamaged = errors.New("more is damaged than the parity can bring back")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the parity of a pack, whose SHA-256 is sum.
func Encode(sum [sha256.Size]byte, pack []byte, percent int) ([]byte, error) {
	if percent < MinPercent || percent > MaxPercent {
		return nil, fmt.Errorf("parity of %d %% is not from %d to %d", percent, MinPercent, MaxPercent)
	}
	if len(pack) == 0 {
		return nil, errors.New("nothing has no parity")
	}
	l := plan(int64(len(pack)), percent)
	out := make([]byte, l.size())
	parity := out[l.parityStart():l.sumsEnd()]
	code, err := l.code()
	if err != nil {
		return nil, err
	}
	if err := code.Encode(l.rows(pack, parity)); err != nil {
		return nil, fmt.Errorf("make parity: %w", err)
	}
	sums := out[headerSize:headerSize:l.parityStart()]
	for i := range l.blocks() {
		sums = binary.LittleEndian.AppendUint32(sums, sumOf(block(pack, i)))
	}
	for i := range l.parityBlocks() {
		sums = binary.LittleEndian.AppendUint32(sums, sumOf(block(parity, i)))
	}
	copy(out[l.sumsEnd():], sums)
	head := l.header(sum)
	copy(out, head)
	copy(out[l.size()-headerSize:], head)
	return out, nil
}

// rows are the shards of the code: the k-th blocks of all stripes lie one after
// the other in a pack, and are one shard to the encoder.
func (l layout) rows(pack, parity []byte) [][]byte {
	width := int(l.stripes) * blockSize
	shards := make([][]byte, 0, int(l.data)+int(l.parity))
	for r := range int(l.data) {
		row := pack[r*width : min((r+1)*width, len(pack))]
		if len(row) < width { // the last one
			row = append(make([]byte, 0, width), row...)[:width]
		}
		shards = append(shards, row)
	}
	for r := range int(l.parity) {
		shards = append(shards, parity[r*width:(r+1)*width])
	}
	return shards
}

// block returns block i of data, the last one perhaps a short one, and nil where
// there is none.
func block(data []byte, i int64) []byte {
	start := min(i*blockSize, int64(len(data)))
	return data[start:min(start+blockSize, int64(len(data)))]
}

// sumOf is the checksum of a block.
func sumOf(block []byte) uint32 { return crc32.Checksum(block, castagnoli) }

// code is the Reed–Solomon code of the stripes: systematic, over GF(2^8) with the
// polynomial 0x11d, and a Cauchy matrix, which a reader can make anew from its
// description.
func (l layout) code() (reedsolomon.Encoder, error) {
	return reedsolomon.New(int(l.data), int(l.parity), reedsolomon.WithCauchyMatrix())
}
