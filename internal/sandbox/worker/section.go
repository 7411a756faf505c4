package worker

import (
	"fmt"
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk"
)

// section is a range of a disk, which lies within it: a partition.
type section struct {
	base      disk.Sparse
	off, size int64 // bytes
}

func (s *section) Size() int64 { return s.size }

func (s *section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, os.ErrInvalid)
	}
	if off >= s.size {
		return 0, io.EOF
	}
	if int64(len(p)) <= s.size-off {
		return s.base.ReadAt(p, s.off+off)
	}
	n, err := s.base.ReadAt(p[:s.size-off], s.off+off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

func (s *section) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || off > s.size || length > s.size-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	return s.base.Extents(s.off+off, length, func(e disk.Extent) error {
		e.Offset -= s.off
		return yield(e)
	})
}
