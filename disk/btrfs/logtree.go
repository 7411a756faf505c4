package btrfs

import (
	"slices"
	"sort"
)

// sumRange is the checksums that the log has for a range of addresses.
type sumRange struct {
	first, end uint64
	sums       []byte
}

// sumRanges is in ascending order, without overlap.
type sumRanges []sumRange

// at returns the range that an address lies in, or nil, and where the next begins.
func (r sumRanges) at(logical uint64) (*sumRange, uint64) {
	i := sort.Search(len(r), func(i int) bool { return r[i].end > logical })
	switch {
	case i == len(r):
		return nil, maxOffset
	case logical < r[i].first:
		return nil, r[i].first
	}
	return &r[i], 0
}

// addressRange is a range of logical addresses.
type addressRange struct{ start, length uint64 }

// addressRanges is in ascending order.
type addressRanges []addressRange

// within returns those that start in a range.
func (r addressRanges) within(start, length uint64) addressRanges {
	compare := func(a addressRange, at uint64) int {
		if a.start < at {
			return -1
		}
		return 1
	}
	first, _ := slices.BinarySearchFunc(r, start, compare)
	last, _ := slices.BinarySearchFunc(r, start+length, compare)
	return r[first:last]
}

func (fs *Filesystem) replay() error {
	return layer.Unsupported("log", int64(fs.sb.logRoot.block), "shut the guest down cleanly, or back this disk up as an image", "a log that must be replayed")
}
