package disk

import "bytes"

// The sizes of blocks that filesystems have.
const (
	minBlock = 512
	maxBlock = 64 << 10
)

var zeroBlock [maxBlock]byte

// MayHaveHoles reports whether a file of which all content was read may have holes:
// only one with a block of zeros, or that ends in part of one, has. To ask for the
// [Sparse.Extents] of a small file costs as much as to read it. blockSize is that of
// [FilesystemInfo]; where it is not known, and 0, the smallest is taken.
func MayHaveHoles(content []byte, blockSize int64) bool {
	step := int(min(max(blockSize, minBlock), maxBlock))
	for len(content) > 0 {
		n := min(step, len(content))
		if bytes.Equal(content[:n], zeroBlock[:n]) {
			return true
		}
		content = content[n:]
	}
	return false
}
