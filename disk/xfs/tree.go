package xfs

import (
	"encoding/binary"
	"fmt"
)

// maxTreeLevels bounds the depth of a B+tree (XFS_BTREE_MAXLEVELS is 9).
const maxTreeLevels = 9

// tree is one kind of B+tree ("B+trees"). Layout of its blocks:
//
//	0 4 bb_magic    4 2 bb_level    6 2 bb_numrecs    8 4+4 or 8+8 siblings
//
// then, in version 5, what a [form] says, and then records in a leaf (level 0),
// or keys in a node, with as many pointers behind the room for all keys.
type tree struct {
	header    [2]int // bytes, in version 4 and in version 5
	record    int    // bytes of a record
	key       int    // bytes of a key, of which the first number orders the tree
	order     int    // bytes of that number, 4 or 8
	pointer   int    // bytes of a pointer
	leafOrder func(record []byte) (first, end uint64)
}

var (
	freeTree  = &tree{header: [2]int{16, 56}, record: 8, key: 8, order: 4, pointer: 4, leafOrder: freeRange}
	inodeTree = &tree{header: [2]int{16, 56}, record: 16, key: 4, order: 4, pointer: 4, leafOrder: chunkRange}
	mapTree   = &tree{header: [2]int{24, 72}, record: 16, key: 8, order: 8, pointer: 8, leafOrder: mapRange}
)

// node is a block of a tree, or the root that an inode holds.
type node struct {
	*tree
	level, count int
	body         []byte // records, or keys and pointers
	room         int    // how many keys there is room for
}

func (t *tree) node(sb *superblock, data []byte) node {
	body := data[t.header[sb.version-4]:]
	return node{
		tree: t, level: int(binary.BigEndian.Uint16(data[4:])), count: int(binary.BigEndian.Uint16(data[6:])),
		body: body, room: len(body) / (t.key + t.pointer),
	}
}

func (n node) number(p []byte, size int) uint64 {
	if size == 4 {
		return uint64(binary.BigEndian.Uint32(p))
	}
	return binary.BigEndian.Uint64(p)
}

func (n node) keyAt(i int) uint64 { return n.number(n.body[i*n.key:], n.order) }

func (n node) pointerAt(i int) uint64 {
	return n.number(n.body[n.room*n.key+i*n.pointer:], n.pointer)
}

func (n node) recordAt(i int) []byte { return n.body[i*n.record : (i+1)*n.record] }

// check makes sure that the counts fit, and that keys and records ascend.
func (t *tree) check(sb *superblock, data []byte) error { return t.node(sb, data).check() }

func (n node) check() error {
	if n.level >= maxTreeLevels {
		return fmt.Errorf("level %d, at most %d is possible", n.level, maxTreeLevels-1)
	}
	if n.level > 0 {
		if n.count == 0 || n.count > n.room {
			return fmt.Errorf("%d keys, there is room for %d", n.count, n.room)
		}
		for i := 1; i < n.count; i++ {
			if n.keyAt(i-1) >= n.keyAt(i) {
				return fmt.Errorf("key %d is not behind the one before", i)
			}
		}
		return nil
	}
	if n.count*n.record > len(n.body) {
		return fmt.Errorf("%d records, there is room for %d", n.count, len(n.body)/n.record)
	}
	next := uint64(0)
	for i := range n.count {
		first, end := n.leafOrder(n.recordAt(i))
		if first < next || end <= first {
			return fmt.Errorf("record %d, of %d to %d, is empty or not behind the one before", i, first, end)
		}
		next = end
	}
	return nil
}

// span is what a node is responsible for: [low, high).
type span struct{ low, high uint64 }

// child returns which child is responsible for at, and its span, or false where
// none is: then the span is what nobody is responsible for.
func (n node) child(at uint64, s span) (int, span, bool) {
	low, high := 0, n.count
	for low < high {
		if mid := (low + high) / 2; n.keyAt(mid) <= at {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < n.count {
		s.high = min(s.high, n.keyAt(low))
	}
	if low == 0 {
		return 0, s, false
	}
	s.low = n.keyAt(low - 1)
	return low - 1, s, true
}

// within makes sure that a node stays within what its parent says of it.
func (n node) within(s span, level int) error {
	if n.level != level {
		return fmt.Errorf("level %d where %d is due", n.level, level)
	}
	if n.count == 0 {
		return nil // a leaf
	}
	first, end := uint64(0), uint64(0)
	if n.level > 0 {
		first, end = n.keyAt(0), n.keyAt(n.count-1)+1
	} else {
		first, _ = n.leafOrder(n.recordAt(0))
		_, end = n.leafOrder(n.recordAt(n.count - 1))
	}
	if first < s.low || end > s.high {
		return fmt.Errorf("it has %d to %d, its parent says %d to %d", first, end, s.low, s.high)
	}
	return nil
}
