package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// read fills p with what a piece holds from off on, which lies in a file.
func (m *images) read(p []byte, piece *wire.Piece, off int64) error {
	f := m.files[piece.File]
	n, err := f.ReadAt(p, piece.At+off-piece.Offset)
	if n == len(p) {
		return nil
	}
	switch {
	case errors.Is(err, os.ErrClosed):
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
	files  *images
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
		} else if err := f.files.read(part, piece, off); err != nil {
			return n - len(p), err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return n, end
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

// yieldWithin yields the part of e that lies between from and to, if any does.
func yieldWithin(e disk.Extent, from, to int64, yield func(disk.Extent) error) error {
	start, end := max(e.Offset, from), min(e.Offset+e.Length, to)
	if start >= end {
		return nil
	}
	return yield(disk.Extent{Offset: start, Length: end - start, Kind: e.Kind})
}

// piece returns the piece that off, which lies within the content, is in. It
// asks the worker for those that are not known, from there on.
func (f *content) piece(off int64) (wire.Piece, error) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	if p := f.pieces.find(off); p != nil {
		return *p, nil
	}
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
	return list[0], nil
}

// Extents implements [disk.Sparse].
func (f *content) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || off > f.size || length > f.size-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	for end := off + length; off < end; {
		p, err := f.piece(off)
		if err != nil {
			return err
		}
		if err := yieldWithin(p.Extent, off, end, yield); err != nil {
			return err
		}
		off = p.Offset + p.Length
	}
	return nil
}
