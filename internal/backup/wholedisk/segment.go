package wholedisk

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// The sizes of segments. A segment is stored anew as a whole when one byte in it
// changes, so small ones store less; each costs 67 bytes in the snapshot's tree and
// 60 of memory in the index.
const (
	// MinSegment is the smallest size, in bytes: 40 MiB that changed in pieces of
	// 1 MiB, wherever they lie, store 43.
	MinSegment = 64 << 10
	maxSegment = 8 << 20 // what restic's own chunker cuts at most
	// wantSegments is how many segments a disk has at most while they can grow:
	// 9 MB of tree.
	wantSegments = 128 << 10
	// keepSegments is up to how many a disk that has grown keeps its size of
	// segments: with others nothing of its last backup would be used again.
	keepSegments = 4 * wantSegments

	// MaxSize is the largest disk that can be stored, in bytes: its two million
	// segments make a tree of 140 MB.
	MaxSize = 16 << 40
)

// segmentSize returns the size of segments for a disk of size bytes, whose last
// backup has segments of old bytes, or 0.
func segmentSize(size, old int64) (int64, error) {
	if size < 0 || size > MaxSize {
		return 0, fmt.Errorf("%w: the disk has %d bytes, and at most %d can be backed up as an image (back up its files)", disk.ErrLimit, size, int64(MaxSize))
	}
	if validSegment(old) && size/old <= keepSegments {
		return old, nil
	}
	s := int64(MinSegment)
	for s < maxSegment && size/s > wantSegments {
		s *= 2
	}
	return s, nil
}

// validSegment reports whether n can be the size of segments.
func validSegment(n int64) bool { return n >= MinSegment && n <= maxSegment && n&(n-1) == 0 }

// count returns how many segments a disk has.
func count(size, segment int64) int { return int((size + segment - 1) / segment) }
