package backupdisk

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/definition"
)

// InLayout is a disk with a filesystem that does not fill it. It implements
// [disk.Sparse].
type InLayout struct {
	layout, filesystem disk.Sparse
	pieces             []definition.Piece // by At; none overlaps another
}

// NewInLayout returns the disk whose layout is what is around the pieces that d tells
// of, and in them a filesystem. What does not fit is [definition.ErrInvalid]. Who has
// made d by [definition.Parse] has pieces of which none overlaps another.
func NewInLayout(layout, filesystem disk.Sparse, d *definition.Disk) (*InLayout, error) {
	if err := d.Fits(layout.Size(), filesystem.Size()); err != nil {
		return nil, err
	}
	return &InLayout{layout: layout, filesystem: filesystem, pieces: d.PiecesByPlace()}, nil
}

// Size is that of the layout, in bytes.
func (d *InLayout) Size() int64 { return d.layout.Size() }

// part returns what has byte off of the disk, where it is there, and how many bytes
// from there on, up to the disk's end.
func (d *InLayout) part(off int64) (from disk.Sparse, at, length int64) {
	i := sort.Search(len(d.pieces), func(i int) bool { return d.pieces[i].At+d.pieces[i].Length > off })
	switch {
	case i == len(d.pieces):
		return d.layout, off, d.Size() - off
	case d.pieces[i].At > off:
		return d.layout, off, d.pieces[i].At - off
	}
	in := off - d.pieces[i].At
	return d.filesystem, d.pieces[i].Offset + in, d.pieces[i].Length - in
}

// ReadAt is described at [io.ReaderAt].
func (d *InLayout) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	for n < len(p) {
		if off+int64(n) >= d.Size() {
			return n, io.EOF
		}
		from, at, length := d.part(off + int64(n))
		want := int(min(int64(len(p)-n), length))
		k, err := from.ReadAt(p[n:n+want], at)
		n += k
		if k == want { // io.EOF may come with the last of it
			continue
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	return n, nil
}

// Extents tells what is data: in the pieces as the filesystem says, elsewhere as the
// layout does.
func (d *InLayout) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || length > d.Size()-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, io.ErrUnexpectedEOF)
	}
	for end := off + length; off < end; {
		from, at, n := d.part(off)
		n = min(n, end-off)
		err := from.Extents(at, n, func(e disk.Extent) error {
			e.Offset += off - at
			return yield(e)
		})
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}
