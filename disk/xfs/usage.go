package xfs

import (
	"encoding/binary"
	"fmt"
)

// Used implements [disk.Usage]: all but what the groups' trees of free space
// have. What only a group's list of spare blocks has counts as used. It returns an
// error where a tree has not as much as its group says is free.
func (fs *Filesystem) Used(device int, yield func(off, length int64) error) error {
	if device != 0 {
		return layer.Absent(fmt.Sprintf("device %d", device), "the filesystem has device 0")
	}
	u := &usage{yield: yield}
	for group := range fs.sb.agCount {
		start := fs.sb.offset(uint64(group) << fs.sb.agShift)
		err := fs.free(group, func(first, end uint64) error {
			return u.free(start+int64(first)<<fs.sb.blockShift, start+int64(end)<<fs.sb.blockShift)
		})
		if err != nil {
			return err
		}
	}
	return u.finish(int64(fs.sb.blocks) << fs.sb.blockShift)
}

// usage turns what is free into what is not.
type usage struct {
	yield func(off, length int64) error
	used  int64 // from here on
}

func (u *usage) free(first, end int64) error {
	if first > u.used {
		if err := u.yield(u.used, first-u.used); err != nil {
			return err
		}
	}
	u.used = end
	return nil
}

func (u *usage) finish(size int64) error {
	if size > u.used {
		return u.yield(u.used, size-u.used)
	}
	return nil
}

// free calls yield for what the tree of a group's free space has, in order.
// Layout of its header, from where [groupHeader] ends: 16 4 root of that tree,
// 28 4 its levels, 52 4 blocks that are free.
func (fs *Filesystem) free(group uint32, yield func(first, end uint64) error) error {
	t := &groupTree{fs: fs, form: freeForm, tree: freeTree, group: group, name: place{"free space of group", uint64(group)}}
	data, off, err := fs.groupHeader(agfForm, agfSector, group, place{"free space header of group", uint64(group)})
	if err != nil {
		return err
	}
	t.root, t.depth = binary.BigEndian.Uint32(data[16:]), binary.BigEndian.Uint32(data[28:])
	if err := t.check(off); err != nil {
		return err
	}
	want, found := uint64(binary.BigEndian.Uint32(data[52:])), uint64(0)
	err = t.walk(uint64(t.root), int(t.depth)-1, span{0, fs.sb.agLength(group)}, func(first, end uint64) error {
		found += end - first
		return yield(first, end)
	})
	if err == nil && found != want {
		return layer.Damaged(t.name.String(), off, "its tree has %d blocks, the header says %d", found, want)
	}
	return err
}

// walk visits the records below a block. It ends: the records of a tree ascend,
// so that no block can be in it twice.
func (t *groupTree) walk(block uint64, level int, s span, yield func(first, end uint64) error) error {
	n, err := t.read(block, level, s)
	if err != nil {
		return err
	}
	if n.level == 0 {
		for i := range n.count {
			if err := yield(n.leafOrder(n.recordAt(i))); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range n.count {
		child := span{n.keyAt(i), s.high}
		if i+1 < n.count {
			child.high = n.keyAt(i + 1)
		}
		if err := t.walk(n.pointerAt(i), level-1, child, yield); err != nil {
			return err
		}
	}
	return nil
}
