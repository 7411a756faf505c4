package ondisk

import (
	"errors"
	"fmt"
	"io"
)

// ErrRange is the error of a caller who asks for bytes that nothing has: never
// the disk's fault.
var ErrRange = errors.New("no such range")

// CheckRange makes sure that content of size bytes has the range that a caller
// wants the extents of.
func CheckRange(off, length, size int64) error {
	if !Within(off, length, size) {
		return fmt.Errorf("extents of %d bytes at offset %d of %d: %w", length, off, size, ErrRange)
	}
	return nil
}

// CheckOffset makes sure that a caller reads from no negative offset.
func CheckOffset(off int64) error {
	if off < 0 {
		return fmt.Errorf("read at offset %d: %w", off, ErrRange)
	}
	return nil
}

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

// ReadPieces fills p from offset off of content of size bytes, as [io.ReaderAt]
// asks. some fills a beginning of what it is given, at
// least one byte, and returns how much that is.
func ReadPieces(p []byte, off, size int64, some func(p []byte, off int64) (int, error)) (int, error) {
	if err := CheckOffset(off); err != nil {
		return 0, err
	}
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
