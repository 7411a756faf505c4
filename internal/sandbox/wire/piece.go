package wire

import "github.com/drydock-vm/drydock/disk"

// NoFile is the File of a piece that the worker must read.
const NoFile = 0xff

// Piece is an extent of an object, and where its bytes lie as they are: in file
// File of those that the worker was given, at offset At. The parent has the file
// too, and can read it there itself; there is nothing to parse.
type Piece struct {
	disk.Extent
	File uint8 // or NoFile
	At   int64 // 0 with NoFile
}

const pieceSize = 1 + 1 + 8

func appendPiece(b []byte, p Piece) []byte {
	b = putI64(putU8(putU8(b, uint8(p.Kind)), p.File), p.Length)
	if p.File != NoFile {
		b = putI64(b, p.At)
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
	list := make([]Piece, 0, n)
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
	p := Piece{Extent: disk.Extent{Offset: off, Kind: disk.ExtentKind(d.u8())}, File: d.u8()}
	p.Length = d.i64()
	if p.File != NoFile {
		p.At = d.i64()
	}
	switch {
	case d.err != nil:
	case p.Kind > disk.ExtentHole:
		d.fail("piece of kind %d", p.Kind)
	case p.Length <= 0 || p.Length > end-off:
		d.fail("piece of %d bytes at %d in a range that ends at %d", p.Length, off, end)
	case p.File == NoFile:
	case p.Kind != disk.ExtentData:
		d.fail("piece without data, and with a place")
	case int(p.File) >= len(files):
		d.fail("piece in file %d of %d", p.File, len(files))
	case p.At < 0 || p.At > files[p.File] || p.Length > files[p.File]-p.At:
		d.fail("piece of %d bytes at %d in a file of %d", p.Length, p.At, files[p.File])
	}
	return p
}
