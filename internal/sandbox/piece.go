package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// errSum is of bytes that do not have their checksum. The worker may know of a
// copy that has, and else says what is damaged.
var errSum = errors.New("wrong checksum")

// read fills p with what a piece holds from off on, which lies in a file.
func (m *images) read(p []byte, piece *wire.Piece, off int64) error {
	at := off - piece.Offset
	if piece.Sums == nil {
		return m.readFile(p, piece, at)
	}
	for len(p) > 0 {
		head := at % piece.Block
		n := len(p)
		if whole := n - n%int(piece.Block); head == 0 && whole > 0 && (whole == n || whole >= bounceSize) {
			n = whole
			if err := m.readBlocks(p[:n], piece, at); err != nil {
				return err
			}
		} else if err := m.bounce(&n, p, piece, at, head); err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// bounceSize is the room for what does not start or end with a block.
const bounceSize = 128 << 10

var bounceBuffers = sync.Pool{New: func() any { return new([bounceSize]byte) }}

// bounce fills the first bytes of p, and sets n to how many, by way of whole
// blocks.
func (m *images) bounce(n *int, p []byte, piece *wire.Piece, at, head int64) error {
	buf := bounceBuffers.Get().(*[bounceSize]byte)
	defer bounceBuffers.Put(buf)
	blocks := buf[:min(wire.Blocks(head+int64(len(p)), piece.Block)*piece.Block, bounceSize)]
	if err := m.readBlocks(blocks, piece, at-head); err != nil {
		return err
	}
	*n = copy(p, blocks[head:])
	return nil
}

// readBlocks fills p with whole blocks, from offset at of a piece on, and verifies
// them.
func (m *images) readBlocks(p []byte, piece *wire.Piece, at int64) error {
	if err := m.readFile(p, piece, at); err != nil {
		return err
	}
	if n := piece.Verify(p, at/piece.Block); int64(n)*piece.Block < int64(len(p)) {
		return errSum
	}
	return nil
}

// readFile fills p from offset at of a piece on.
func (m *images) readFile(p []byte, piece *wire.Piece, at int64) error {
	f := m.files[piece.File]
	n, err := f.ReadAt(p, piece.At+at)
	if n == len(p) {
		return nil
	}
	switch {
	case errors.Is(err, os.ErrClosed) && m.ended():
		return m.client.failure()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // it was longer when it was opened
	}
	return fmt.Errorf("read the image: %w", err)
}

// pieceList is consecutive pieces of an object.
type pieceList []wire.Piece

// find returns the piece that off lies in, or nil.
func (l pieceList) find(off int64) *wire.Piece {
	i := sort.Search(len(l), func(i int) bool { return l[i].Offset+l[i].Length > off })
	if i == len(l) || l[i].Offset > off {
		return nil
	}
	return &l[i]
}

// located is the content of a file all of whose pieces are known, and none of
// which the worker must read. It implements [disk.Sparse].
type located struct {
	fs     *filesystem
	ino    uint64
	size   int64
	pieces pieceList
}

func (f *located) Size() int64 { return f.size }

func (f *located) ReadAt(p []byte, off int64) (int, error) {
	p, end, err := clamp(p, off, f.size)
	if err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		piece := f.pieces.find(off)
		part := p[:min(int64(len(p)), piece.Offset+piece.Length-off)]
		if piece.Kind != disk.ExtentData {
			clear(part)
		} else if err := f.read(part, piece, off); err != nil {
			return n - len(p), err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return n, end
}

func (f *located) read(p []byte, piece *wire.Piece, off int64) error {
	err := f.fs.files.read(p, piece, off)
	if err == errSum {
		c := f.fs.content(f.ino, f.size)
		return c.fromWorker(p, off)
	}
	return err
}

func (f *located) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || off > f.size || length > f.size-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	for i := range f.pieces {
		if err := yieldWithin(f.pieces[i].Extent, off, off+length, yield); err != nil {
			return err
		}
	}
	return nil
}

// Locate implements [disk.Locator].
func (f *located) Locate(off, length int64, yield func(disk.Location) error) error {
	if off < 0 || length < 0 || off > f.size || length > f.size-off {
		return fmt.Errorf("locations of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	for i := range f.pieces {
		if err := locateWithin(&f.pieces[i], off, off+length, yield); err != nil {
			return err
		}
	}
	return nil
}

// locateWithin yields where the part of a piece lies that is between from and to, if any
// is. Devices are the files of the disks, in their order; what has checksums, which are
// of whole blocks, counts as lying nowhere.
func locateWithin(p *wire.Piece, from, to int64, yield func(disk.Location) error) error {
	return yieldWithin(p.Extent, from, to, func(e disk.Extent) error {
		l := disk.Location{Offset: e.Offset, Length: e.Length, Device: -1}
		if p.Kind == disk.ExtentData && p.File != wire.NoFile && p.Sums == nil {
			l.Device, l.At = int(p.File), p.At+e.Offset-p.Offset
		}
		return yield(l)
	})
}

// yieldWithin yields the part of e that lies between from and to, if any does.
func yieldWithin(e disk.Extent, from, to int64, yield func(disk.Extent) error) error {
	start, end := max(e.Offset, from), min(e.Offset+e.Length, to)
	if start >= end {
		return nil
	}
	return yield(disk.Extent{Offset: start, Length: end - start, Kind: e.Kind})
}

// piecesAlign is a multiple of all blocks that have checksums: a piece that starts
// within a block has none.
const piecesAlign = 64 << 10

// piece returns the piece that wanted, which lies within the content, is in. It
// asks the worker for those that are not known, from a little before on.
func (f *content) piece(wanted int64) (wire.Piece, error) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	if p := f.pieces.find(wanted); p != nil {
		return *p, nil
	}
	off := wanted - wanted%piecesAlign
	r := wire.Pieces{Object: f.object, Off: off, Length: f.size - off}
	k, err := f.client.send(wire.OpPieces, r)
	if err != nil {
		return wire.Piece{}, err
	}
	<-k.done
	if k.err != nil {
		return wire.Piece{}, k.err
	}
	list, err := wire.DecodePieces(k.body, r, f.files.sizes)
	if err != nil {
		return wire.Piece{}, f.client.lied(k, err)
	}
	f.pieces = list
	if p := f.pieces.find(wanted); p != nil {
		return *p, nil
	}
	return wire.Piece{}, f.client.lied(k, fmt.Errorf("the first %d pieces end before %d", len(list), wanted))
}

// Extents implements [disk.Sparse].
func (f *content) Extents(off, length int64, yield func(disk.Extent) error) error {
	return f.within(off, length, func(p *wire.Piece) error { return yieldWithin(p.Extent, off, off+length, yield) })
}

// Locate implements [disk.Locator].
func (f *content) Locate(off, length int64, yield func(disk.Location) error) error {
	return f.within(off, length, func(p *wire.Piece) error { return locateWithin(p, off, off+length, yield) })
}

// within calls yield for the pieces that a range is in.
func (f *content) within(off, length int64, yield func(*wire.Piece) error) error {
	if off < 0 || length < 0 || off > f.size || length > f.size-off {
		return fmt.Errorf("pieces of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	for end := off + length; off < end; {
		p, err := f.piece(off)
		if err != nil {
			return err
		}
		if err := yield(&p); err != nil {
			return err
		}
		off = p.Offset + p.Length
	}
	return nil
}
