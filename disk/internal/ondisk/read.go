package ondisk

import (
	"errors"
	"io"
)

// ReadFull fills p from offset off of r. It tells apart what readers of a disk
// must: nil means that all of p is there, io.ErrUnexpectedEOF that r ended
// first. A reader that comes back short with no error, against the contract of
// [io.ReaderAt], gets io.ErrNoProgress instead of a silent gap.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil // io.EOF together with the last byte is not an error
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
