package partition

import (
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// section is a range of a disk.
type section struct {
	d           disk.Sparse
	off, length int64
}

// Section returns the range [off, off+length) of d as a disk of its own. It is a
// [disk.Locator]: its bytes lie in d, which is device 0.
func Section(d disk.Sparse, off, length int64) (disk.Sparse, error) {
	if !ondisk.Within(off, length, d.Size()) {
		return nil, layer.Damaged("section", off, "%d bytes from there are not within the disk of %d bytes", length, d.Size())
	}
	return &section{d: d, off: off, length: length}, nil
}

func (s *section) Size() int64 { return s.length }

func (s *section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, s.invalid(off)
	}
	if off >= s.length {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > s.length-off {
		p, end = p[:s.length-off], io.EOF
	}
	n, err := s.d.ReadAt(p, s.off+off)
	if n == len(p) {
		return n, end // an io.EOF of d is that of its own end
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *section) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, s.length) {
		return s.invalid(off)
	}
	return s.d.Extents(s.off+off, length, func(e disk.Extent) error {
		e.Offset -= s.off
		return yield(e)
	})
}

// Locate implements [disk.Locator].
func (s *section) Locate(off, length int64, yield func(disk.Location) error) error {
	if !ondisk.Within(off, length, s.length) {
		return s.invalid(off)
	}
	if length == 0 {
		return nil
	}
	return yield(disk.Location{Offset: off, Length: length, At: s.off + off})
}

func (s *section) invalid(off int64) error {
	return layer.Unreadable("section", off, os.ErrInvalid)
}
