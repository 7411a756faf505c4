package backup

import (
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// window is the part of a file, in bytes, whose extents are asked for at once. A
// file of nothing but single blocks has 65,536 in it.
const window = 256 << 20

// contentReader reads a file without reading its holes, which it makes up. At a
// large hole it ends, until that is skipped.
type contentReader struct {
	f      disk.Sparse
	size   int64
	report *Report

	extents []disk.Extent // what comes next, without gaps, zeros merged
	layout  layout
	asked   int64 // how far extents were asked for
	off     int64 // how far was read
}

// done reports whether all was read.
func (r *contentReader) done() bool { return r.off >= r.size }

// Read implements [io.Reader].
func (r *contentReader) Read(p []byte) (int, error) {
	if r.done() {
		return 0, io.EOF
	}
	e, err := r.next()
	if err != nil {
		return 0, &readError{err}
	}
	if e.Kind != disk.ExtentData {
		if e.Length >= zeroBlob {
			return 0, io.EOF
		}
		n := min(int64(len(p)), e.Length)
		clear(p[:n])
		r.advance(n)
		return int(n), nil
	}
	p = p[:min(int64(len(p)), e.Length)]
	if n, err := r.f.ReadAt(p, r.off); n < len(p) {
		return 0, &readError{short(err)}
	}
	r.layout.data(p)
	r.report.read(int64(len(p)))
	r.advance(int64(len(p)))
	return len(p), nil
}

// skip passes over the large hole that Read has ended at, as far as it is a
// multiple of zeroBlob, and returns how many bytes that was. The rest of the hole
// Read makes up.
func (r *contentReader) skip() int64 {
	if r.done() || len(r.extents) == 0 || r.extents[0].Kind == disk.ExtentData {
		return 0
	}
	n := r.extents[0].Length / zeroBlob * zeroBlob
	r.advance(n)
	return n
}

// advance takes n bytes from the first extent.
func (r *contentReader) advance(n int64) {
	r.off += n
	e := &r.extents[0]
	e.Offset, e.Length = e.Offset+n, e.Length-n
	if e.Length == 0 {
		r.extents = r.extents[1:]
	}
}

// next returns the extent at r.off. A hole is returned in its full length, as far
// as that can matter.
func (r *contentReader) next() (disk.Extent, error) {
	for r.asked < r.size && (len(r.extents) == 0 || len(r.extents) == 1 && r.extents[0].Kind != disk.ExtentData) {
		if err := r.ask(); err != nil {
			return disk.Extent{}, err
		}
	}
	if len(r.extents) == 0 || r.extents[0].Offset != r.off {
		return disk.Extent{}, short(nil)
	}
	return r.extents[0], nil
}

// ask gets the extents of the next window.
func (r *contentReader) ask() error {
	length, before := min(window, r.size-r.asked), r.asked
	err := r.f.Extents(r.asked, length, func(e disk.Extent) error {
		if e.Offset != r.asked || e.Length <= 0 || e.Length > r.size-r.asked {
			return short(nil)
		}
		r.asked += e.Length
		if e.Kind != disk.ExtentData {
			e.Kind = disk.ExtentHole
			r.layout.hole(e.Offset, e.Length)
		}
		if n := len(r.extents); n > 0 && r.extents[n-1].Kind == e.Kind {
			r.extents[n-1].Length += e.Length
			return nil
		}
		r.extents = append(r.extents, e)
		return nil
	})
	if err == nil && r.asked == before {
		return short(nil)
	}
	return err
}
