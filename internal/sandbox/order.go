package sandbox

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
)

// The orders in which the members of a directory are expected to be read.
const (
	diskOrder = iota // as the disk lists them
	nameOrder
	orders
)

const (
	// nearby is how far from its expected place something may be read by a
	// caller that still counts as going in order: one that reads a few files
	// at once, or leaves some out.
	nearby = 8
	// maxScore bounds how sure a prediction can be.
	maxScore = 9
	// missCost is how many right predictions a wrong one outweighs, and how
	// many it takes to be trusted.
	missCost = 4
)

// ordering is the order of things in a directory. Things are known by their
// index in the order of the disk.
type ordering struct {
	count  int
	byName []int       // what comes first, second…; nil until the directory is complete
	last   [orders]int // where something was read last
}

// place is where something stands in an ordering; the zero value stands alone.
type place struct {
	in *ordering
	at [orders]int
}

// add returns the place of one more thing.
func (o *ordering) add() place {
	o.count++
	return place{in: o, at: [orders]int{diskOrder: o.count - 1}}
}

// sort puts the things in the order of their names. It calls set with the place
// of each.
func (o *ordering) sort(names [][]byte, set func(index, place int)) {
	// Most names differ soon behind what all have in common.
	type key struct {
		start uint64
		index int
	}
	common, keys := commonPrefix(names), make([]key, len(names))
	for i, name := range names {
		var start [8]byte
		copy(start[:], name[common:])
		keys[i] = key{binary.BigEndian.Uint64(start[:]), i}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.start != b.start {
			return cmp.Compare(a.start, b.start)
		}
		return bytes.Compare(names[a.index], names[b.index])
	})
	o.byName = make([]int, len(names))
	for i, k := range keys {
		o.byName[i] = k.index
		set(k.index, i)
	}
}

// commonPrefix returns how many bytes all names start with.
func commonPrefix(names [][]byte) (n int) {
	for i, name := range names {
		if i == 0 {
			n = len(name)
		}
		n = min(n, len(name))
		for k := range n {
			if name[k] != names[0][k] {
				n = k
				break
			}
		}
	}
	return n
}

// following returns the indexes of what comes after p.
func (p place) following(order int) iter.Seq[int] {
	if p.in == nil {
		return func(func(int) bool) {}
	}
	return p.in.from(order, p.at[order]+1)
}

// all returns all indexes.
func (o *ordering) all(order int) iter.Seq[int] { return o.from(order, 0) }

func (o *ordering) from(order, first int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := first; i < o.count; i++ {
			index := i
			if order == nameOrder {
				if o.byName == nil {
					return
				}
				index = o.byName[i]
			}
			if !yield(index) {
				return
			}
		}
	}
}

// predictor learns in which order a caller reads.
type predictor struct {
	score [orders]int
}

// learn compares what is read with what was expected.
func (s *predictor) learn(p place) {
	for order := range orders {
		if p.in == nil || (order == nameOrder && p.in.byName == nil) {
			s.score[order] = 0
			continue
		}
		if gap := p.at[order] - p.in.last[order]; max(gap, -gap) <= nearby {
			s.score[order] = min(s.score[order]+1, maxScore)
		} else {
			s.score[order] = max(s.score[order]-missCost, 0)
		}
		p.in.last[order] = p.at[order]
	}
}

// expect returns the order in which the caller seems to read, and how sure that
// is: from 0, not at all, to maxScore.
func (s *predictor) expect() (order, score int) {
	if s.score[nameOrder] > s.score[diskOrder] {
		return nameOrder, s.score[nameOrder]
	}
	return diskOrder, s.score[diskOrder]
}

// doubt lowers the score of a prediction that nothing came of.
func (s *predictor) doubt() {
	for order := range orders {
		s.score[order] /= 2
	}
}
