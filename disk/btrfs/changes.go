package btrfs

import (
	"cmp"
	"slices"
)

// changes is what a log changes in a subvolume: items that are new or have other
// content, and items that are gone.
type changes struct {
	objects map[uint64][]change // by object, sorted
}

type change struct {
	kind   uint8
	offset uint64
	gone   bool
	value  []byte
}

func (c change) compare(o change) int {
	if d := cmp.Compare(c.kind, o.kind); d != 0 {
		return d
	}
	return cmp.Compare(c.offset, o.offset)
}

// from returns the changes of an object from a key on.
func (c *changes) from(object uint64, kind uint8, offset uint64) []change {
	if c == nil {
		return nil
	}
	list := c.objects[object]
	i, _ := slices.BinarySearchFunc(list, change{kind: kind, offset: offset}, change.compare)
	return list[i:]
}

// get returns the content of an item, or nil.
func (s *subvolume) get(k key) ([]byte, error) {
	if list := s.changes.from(k.object, k.kind, k.offset); len(list) > 0 && list[0].kind == k.kind && list[0].offset == k.offset {
		return list[0].value, nil
	}
	return s.tree.get(k)
}

// items calls yield for the items of one kind of an object, from an offset on.
func (s *subvolume) items(object uint64, kind uint8, from uint64, yield func(offset uint64, raw []byte) error) error {
	var w walk
	if err := s.seek(&w, key{object, kind, from}); err != nil {
		return err
	}
	changed := s.changes.from(object, kind, from)
	for {
		kept := w.valid() && w.key().is(object, kind)
		if len(changed) > 0 && changed[0].kind == kind && (!kept || changed[0].offset <= w.key().offset) {
			c := changed[0]
			changed = changed[1:]
			if kept && c.offset == w.key().offset {
				if err := w.next(); err != nil {
					return err
				}
			}
			if c.gone {
				continue
			}
			if err := yield(c.offset, c.value); err != nil {
				return err
			}
			continue
		}
		if !kept {
			return nil
		}
		if err := yield(w.key().offset, w.value()); err != nil {
			return err
		}
		if err := w.next(); err != nil {
			return err
		}
	}
}

// before returns the offset of the last item of one kind of an object whose
// offset is at most that; 0 if there is none.
func (s *subvolume) before(object uint64, kind uint8, offset uint64) (uint64, error) {
	var w walk
	for at := offset; ; {
		if err := s.seekBefore(&w, key{object, kind, at}); err != nil {
			return 0, err
		}
		kept := w.valid() && w.key().is(object, kind)
		if s.changes == nil {
			if !kept {
				return 0, nil
			}
			return w.key().offset, nil
		}
		last, changed := s.changes.before(object, kind, at)
		switch {
		case changed && (!kept || last.offset >= w.key().offset):
			if !last.gone {
				return last.offset, nil
			}
			if last.offset == 0 {
				return 0, nil
			}
			at = last.offset - 1
		case !kept:
			return 0, nil
		default:
			return w.key().offset, nil
		}
	}
}

// before returns the last change of a kind up to an offset.
func (c *changes) before(object uint64, kind uint8, offset uint64) (change, bool) {
	list := c.objects[object]
	i, found := slices.BinarySearchFunc(list, change{kind: kind, offset: offset}, change.compare)
	if !found {
		i--
	}
	if i < 0 || list[i].kind != kind {
		return change{}, false
	}
	return list[i], true
}
