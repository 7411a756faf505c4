package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// The sizes of copying, in bytes: how much is read at once, and the unit in
// which zeros become holes, which is the block size of most filesystems.
const (
	chunkSize = 1 << 20
	blockSize = 4 << 10
)

var zeros [blockSize]byte

// copySparse writes r to dst, which must be empty, and to digest, and returns
// how many bytes r had. Blocks of zeros become holes. More than limit bytes are
// ErrSize.
func copySparse(ctx context.Context, dst *os.File, r io.Reader, limit int64, digest hash.Hash) (int64, error) {
	buf := make([]byte, chunkSize)
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return off, context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf)
		if int64(n) > limit-off {
			return off, fmt.Errorf("it has more than %d bytes: %w", limit, ErrSize)
		}
		digest.Write(buf[:n]) // a hash never fails
		if err := writeBlocks(dst, buf[:n], off); err != nil {
			return off, err
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return off, dst.Truncate(off)
		case err != nil:
			return off, fmt.Errorf("read the image: %w", err)
		}
	}
}

// writeBlocks writes the runs of p that are not zeros at off, which is a
// multiple of blockSize.
func writeBlocks(dst *os.File, p []byte, off int64) error {
	for len(p) > 0 {
		run := 0
		for run < len(p) && !zeroBlock(p[run:]) {
			run += min(blockSize, len(p)-run)
		}
		if run > 0 {
			if _, err := dst.WriteAt(p[:run], off); err != nil {
				return err
			}
		}
		for run < len(p) && zeroBlock(p[run:]) {
			run += min(blockSize, len(p)-run)
		}
		p, off = p[run:], off+int64(run)
	}
	return nil
}

// zeroBlock reports whether the first block of p is zeros.
func zeroBlock(p []byte) bool {
	n := min(blockSize, len(p))
	return bytes.Equal(p[:n], zeros[:n])
}
