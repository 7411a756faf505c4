package wire

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/drydock-vm/drydock/disk"
)

// NoFile is the File of a piece that the worker must read.
const NoFile = 0xff

// Piece is an extent of an object, and where its bytes lie as they are: in file
// File of those that the worker was given, at offset At. The parent has the file
// too, and can read it there itself; there is nothing to parse.
type Piece struct {
	disk.Extent
	File uint8 // or NoFile
	At   int64 // 0 with NoFile

	// Sums are what the bytes must be verified with, as in [disk.Checksums]; nil
	// with Block 0 for those that need not be. They are of blocks from At on, and
	// the last block may reach beyond Length, but not beyond the file.
	Block int64
	Sums  []byte
}

const (
	pieceSize = 1 + 1 + 8
	// hasSums is added to the kind of a piece that has them.
	hasSums = 0x80
	sumSize = crc32.Size
	// The smallest and the largest block that has a checksum of its own: sectors
	// of btrfs.
	minSumBlock, maxSumBlock = 512, 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Verify returns how many of the blocks in data, which starts with block number
// first of the piece, are right before one is wrong. Data is whole blocks.
func (p *Piece) Verify(data []byte, first int64) int {
	n := 0
	for sums := p.Sums[first*sumSize:]; len(data) > 0; n++ {
		if crc32.Checksum(data[:p.Block], castagnoli) != binary.LittleEndian.Uint32(sums) {
			return n
		}
		data, sums = data[p.Block:], sums[sumSize:]
	}
	return n
}

// Blocks returns how many blocks of the given size n bytes take.
func Blocks(n, size int64) int64 { return (n-1)/size + 1 }

func appendPiece(b []byte, p Piece) []byte {
	kind := uint8(p.Kind)
	if p.Sums != nil {
		kind |= hasSums
	}
	b = putI64(putU8(putU8(b, kind), p.File), p.Length)
	if p.File != NoFile {
		b = putI64(b, p.At)
	}
	if p.Sums != nil {
		b = append(putI64(b, p.Block), p.Sums...)
	}
	return b
}

// AppendPieces appends the answer to [Pieces] to b.
func AppendPieces(b []byte, list []Piece) []byte {
	b = putU32(b, uint32(len(list)))
	for _, p := range list {
		b = appendPiece(b, p)
	}
	return b
}

// DecodePieces decodes the answer to r: at least one piece, the first at r.Off,
// each where the one before it ends, none beyond the range. Each lies within its
// file; files has the sizes of those.
func DecodePieces(payload []byte, r Pieces, files []int64) ([]Piece, error) {
	d := decoder{buf: payload}
	list := d.pieces(MaxPieces, r.Off, r.Length, files)
	if len(list) == 0 {
		d.fail("no piece")
	}
	return list, d.done()
}

func (d *decoder) pieces(limit int, off, length int64, files []int64) []Piece {
	n := d.count(limit, pieceSize)
	if n == 0 {
		return nil
	}
	list := d.newPieces(n)
	end := off + length
	for range n {
		p := d.piece(off, end, files)
		if d.err != nil {
			return nil
		}
		off += p.Length
		list = append(list, p)
	}
	return list
}

// piece decodes one that starts at off, and ends at end or before.
func (d *decoder) piece(off, end int64, files []int64) Piece {
	kind := d.u8()
	p := Piece{Extent: disk.Extent{Offset: off, Kind: disk.ExtentKind(kind &^ hasSums)}, File: d.u8()}
	p.Length = d.i64()
	if p.File != NoFile {
		p.At = d.i64()
	}
	if kind&hasSums != 0 {
		p.Block = d.i64()
	}
	length := p.Length // in the file
	switch {
	case d.err != nil:
		return p
	case p.Kind > disk.ExtentHole:
		d.fail("piece of kind %d", p.Kind)
	case p.Length <= 0 || p.Length > end-off:
		d.fail("piece of %d bytes at %d in a range that ends at %d", p.Length, off, end)
	case kind&hasSums == 0:
	case p.File == NoFile:
		d.fail("piece with checksums, and no place")
	case p.Block < minSumBlock || p.Block > maxSumBlock || bits.OnesCount64(uint64(p.Block)) != 1:
		d.fail("piece with checksums of %d bytes", p.Block)
	case Blocks(p.Length, p.Block) > MaxSums/sumSize:
		d.fail("piece of %d bytes with checksums of %d", p.Length, p.Block)
	default:
		length = Blocks(p.Length, p.Block) * p.Block
		p.Sums = d.take(int(Blocks(p.Length, p.Block)) * sumSize)
	}
	switch {
	case d.err != nil || p.File == NoFile:
	case p.Kind != disk.ExtentData:
		d.fail("piece without data, and with a place")
	case int(p.File) >= len(files):
		d.fail("piece in file %d of %d", p.File, len(files))
	case p.At < 0 || p.At > files[p.File] || length > files[p.File]-p.At:
		d.fail("piece of %d bytes at %d in a file of %d", length, p.At, files[p.File])
	}
	return p
}
