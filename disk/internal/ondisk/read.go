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

// ReadPieces fills p from offset off, which is not negative, of content of size
// bytes, as [io.ReaderAt] asks. some fills a beginning of what it is given, at
// least one byte, and returns how much that is.
func ReadPieces(p []byte, off, size int64, some func(p []byte, off int64) (int, error)) (int, error) {
	if off >= size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	for done := 0; done < len(want); {
		n, err := some(want[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}
