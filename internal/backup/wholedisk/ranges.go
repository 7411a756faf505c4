package wholedisk

import (
	"encoding/binary"
	"errors"
)

// maxRanges bounds a list of ranges, 16 bytes each. What more a disk has counts as
// in use.
const maxRanges = 4 << 20

// span is the bytes [start, end) of a disk.
type span struct{ start, end int64 }

// errRanges is of an encoded list that no backup wrote.
var errRanges = errors.New("the list of what was left out is damaged")

// appendSpans appends the encoded list, which ascends: for each span how far it is
// from the end of the one before, and its length, as varints.
func appendSpans(b []byte, list []span) []byte {
	end := int64(0)
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(s.start-end))
		b = binary.AppendUvarint(b, uint64(s.end-s.start))
		end = s.end
	}
	return b
}

// decodeSpans reads what appendSpans wrote about a disk of size bytes.
func decodeSpans(b []byte, size int64) ([]span, error) {
	var list []span
	for end := int64(0); len(b) > 0; {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap > uint64(size-end) {
			return nil, errRanges
		}
		length, m := binary.Uvarint(b[n:])
		start := end + int64(gap)
		if m <= 0 || length == 0 || length > uint64(size-start) || len(list) == maxRanges {
			return nil, errRanges
		}
		end = start + int64(length)
		list, b = append(list, span{start, end}), b[n+m:]
	}
	return list, nil
}

// cursor goes through a list of spans as who asks goes through a disk.
type cursor []span

// at returns the first span that ends behind off; false if there is none.
func (c *cursor) at(off int64) (span, bool) {
	for len(*c) > 0 && (*c)[0].end <= off {
		*c = (*c)[1:]
	}
	if len(*c) == 0 {
		return span{}, false
	}
	return (*c)[0], true
}

// split calls yield for the parts of [start, end) that are in the list, and for
// those that are not.
func (c *cursor) split(start, end int64, yield func(s span, in bool) error) error {
	for start < end {
		next, in := end, false
		if s, ok := c.at(start); ok && s.start <= start {
			next, in = min(s.end, end), true
		} else if ok {
			next = min(s.start, end)
		}
		if err := yield(span{start, next}, in); err != nil {
			return err
		}
		start = next
	}
	return nil
}

// segments is a set of segments.
type segments struct {
	size int64 // of each, in bytes
	bits []uint64
}

func newSegments(disk, size int64) *segments {
	return &segments{size: size, bits: make([]uint64, (count(disk, size)+63)/64)}
}

// add adds the segments that s touches, which lies on the disk.
func (g *segments) add(s span) {
	for i := s.start / g.size; i <= (s.end-1)/g.size; i++ {
		g.bits[i/64] |= 1 << (i % 64)
	}
}

func (g *segments) has(i int) bool { return g.bits[i/64]&(1<<(i%64)) != 0 }
