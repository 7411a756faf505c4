package btrfs

import (
	"slices"
	"sort"
)

// changes is what a log changes in a subvolume: items that are new or have other
// content, and items that are gone. They are sorted, in pieces, so that adding
// one costs the same wherever it goes.
type changes struct {
	pieces [][]change // none is empty
}

type change struct {
	key
	gone  bool
	value value
}

// pieceLength is how many changes a piece has at most.
const pieceLength = 256

// place is where a change is, or would be: in a piece, which may be one behind
// the last.
type place struct{ piece, slot int }

// find returns the place of the first change whose key is not below k.
func (c *changes) find(k key) (at place, found bool) {
	if c == nil || len(c.pieces) == 0 {
		return place{}, false
	}
	at.piece = sort.Search(len(c.pieces), func(i int) bool { return c.pieces[i][0].compare(k) > 0 }) - 1
	if at.piece < 0 {
		return place{}, false
	}
	p := c.pieces[at.piece]
	at.slot, found = slices.BinarySearchFunc(p, k, func(a change, k key) int { return a.compare(k) })
	return at, found
}

// at returns the change at a place or, behind the end of a piece, at the start of
// the next; nil behind the last.
func (c *changes) at(p *place) *change {
	if c == nil || p.piece >= len(c.pieces) {
		return nil
	}
	if p.slot == len(c.pieces[p.piece]) {
		*p = place{piece: p.piece + 1}
		return c.at(p)
	}
	return &c.pieces[p.piece][p.slot]
}

// set makes n the change of its item.
func (c *changes) set(n change) {
	if len(c.pieces) == 0 {
		c.pieces = [][]change{{n}}
		return
	}
	at, found := c.find(n.key)
	p := &c.pieces[at.piece]
	if found {
		(*p)[at.slot] = n
		return
	}
	*p = slices.Insert(*p, at.slot, n)
	if len(*p) <= pieceLength {
		return
	}
	keep := pieceLength / 2
	if at.slot == pieceLength { // what comes in order fills its pieces
		keep = pieceLength
	}
	rest := slices.Clone((*p)[keep:])
	clear((*p)[keep:])
	*p = (*p)[:keep]
	c.pieces = slices.Insert(c.pieces, at.piece+1, rest)
}

// last returns the last change of a kind of item up to an offset, or nil.
func (c *changes) last(object uint64, kind uint8, offset uint64) *change {
	at, found := c.find(key{object, kind, offset})
	if !found {
		if at.slot--; at.slot < 0 {
			return nil // find gives the first slot only where nothing is before
		}
	}
	if n := &c.pieces[at.piece][at.slot]; n.is(object, kind) {
		return n
	}
	return nil
}

// get returns the content of an item, as [tree.get] does.
func (s *subvolume) get(k key) (value, error) {
	if at, found := s.changes.find(k); found {
		return s.changes.at(&at).value, nil
	}
	return s.tree.get(k)
}

// items calls yield for the items of one kind of an object, from an offset on.
// yield must not change any.
func (s *subvolume) items(object uint64, kind uint8, from uint64, yield func(offset uint64, v value) error) error {
	var w walk
	if err := s.seek(&w, key{object, kind, from}); err != nil {
		return err
	}
	at, _ := s.changes.find(key{object, kind, from})
	for {
		kept := w.valid() && w.key().is(object, kind)
		c := s.changes.at(&at)
		changed := c != nil && c.is(object, kind)
		if !kept && !changed {
			return nil
		}
		var offset uint64
		var v value
		gone := false
		step := kept && (!changed || w.key().offset <= c.offset)
		if step {
			offset, v = w.key().offset, w.value()
		}
		if changed && (!kept || c.offset <= w.key().offset) {
			offset, v, gone = c.offset, c.value, c.gone
			at.slot++
		}
		if !gone {
			if err := yield(offset, v); err != nil {
				return err
			}
		}
		if step {
			if err := w.next(); err != nil {
				return err
			}
		}
	}
}

// before returns the offset of the last item of one kind of an object whose
// offset is at most that; 0 if there is none.
func (s *subvolume) before(object uint64, kind uint8, offset uint64) (uint64, error) {
	var w walk
	for {
		if err := s.seekBefore(&w, key{object, kind, offset}); err != nil {
			return 0, err
		}
		kept := w.valid() && w.key().is(object, kind)
		c := s.changes.last(object, kind, offset)
		switch {
		case c != nil && (!kept || c.offset >= w.key().offset):
			if !c.gone || c.offset == 0 {
				return c.offset, nil
			}
			offset = c.offset - 1
		case kept:
			return w.key().offset, nil
		default:
			return 0, nil
		}
	}
}
