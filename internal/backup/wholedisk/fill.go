package wholedisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// filler reads what is in use of a disk, from its start to its end.
type filler struct {
	*saver
	unused, swap cursor
}

// hole returns how many whole segments from off on the image format says are zeros,
// as far as its next extent goes.
func (f *filler) hole(off int64) int {
	var run int64
	err := f.src.Content.Extents(off, f.size-off, func(e disk.Extent) error {
		if e.Kind != disk.ExtentData && e.Offset == off {
			run = min(e.Length, f.size-off)
		}
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0 // fill gets the error too, and says what of it
	}
	return int(run / f.segment)
}

// fill makes p what the disk has at off, but for what is not in use, and reports
// whether it is other than zeros.
func (f *filler) fill(p []byte, off int64) (data bool, err error) {
	read := false
	end := off + int64(len(p))
	next := off
	err = f.src.Content.Extents(off, int64(len(p)), func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 || e.Length > end-next {
			return fmt.Errorf("extents: %d bytes at %d come after %d of %d", e.Length, e.Offset, next, end)
		}
		next += e.Length
		if e.Kind != disk.ExtentData {
			f.report.Zero += e.Length
			return nil
		}
		return f.unused.split(e.Offset, next, func(s span, in bool) error {
			if in {
				f.skip(s)
				return nil
			}
			if !read {
				clear(p) // what is not read is zeros; most segments of a large disk are never touched
				read = true
			}
			return f.read(p[s.start-off:s.end-off], s)
		})
	})
	if err == nil && next != end {
		err = fmt.Errorf("extents: they cover %d of %d bytes", next, end)
	}
	if err != nil {
		// Who cannot say what is there cannot read it either.
		return false, f.damage(span{off, end}, p, err)
	}
	return read && !zeros(p), nil
}

// skip counts what is not in use.
func (f *filler) skip(s span) {
	_ = f.swap.split(s.start, s.end, func(part span, in bool) error {
		if in {
			f.report.Swap += part.end - part.start
		} else {
			f.report.Free += part.end - part.start
		}
		return nil
	})
}

// damagePiece is how much is given up for one error, in bytes: a cluster of qcow2
// as it mostly is.
const damagePiece = 64 << 10

// read reads what is in use. Of what cannot be read whole, the readable parts are
// kept.
func (f *filler) read(p []byte, s span) error {
	f.report.Read += int64(len(p))
	n, err := f.src.Content.ReadAt(p, s.start)
	if n == len(p) {
		return nil
	}
	if len(p) <= damagePiece {
		return f.damage(s, p, err)
	}
	for at := s.start; at < s.end; {
		end := min((at/damagePiece+1)*damagePiece, s.end)
		part := p[at-s.start : end-s.start]
		if n, err := f.src.Content.ReadAt(part, at); n < len(part) {
			if err := f.damage(span{at, end}, part, err); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// damage leaves out what the image format is to blame for. Any other error ends
// the backup: it may be true of all that follows.
func (f *filler) damage(s span, p []byte, err error) error {
	var d *disk.Error
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if !errors.As(err, &d) {
		return err
	}
	clear(p)
	f.left = append(f.left, s)
	f.report.damaged(s, err)
	return nil
}

// zeroPage is what is compared with.
var zeroPage [64 << 10]byte

func zeros(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroPage))
		if !bytes.Equal(p[:n], zeroPage[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
