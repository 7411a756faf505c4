package xfs

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Where a group's headers are, in sectors of the filesystem ("Allocation
// Groups"): the superblock, free space, inodes, the list of spare blocks.
const (
	agfSector = 1
	agiSector = 2
)

const inodesPerChunk = 64

// groupHeader is what the headers of a group share. Layout:
//
//	0 4 magic   4 4 version, 1   8 4 seqno, of the group   12 4 length, in blocks
func (fs *Filesystem) groupHeader(f *form, sector int64, group uint32, name place) ([]byte, int64, error) {
	sb := fs.sb
	off := sb.offset(uint64(group)<<sb.agShift) + sector<<sb.sectorShift
	data, err := fs.block(f, off, 1<<sb.sectorShift, 0, name)
	if err != nil {
		return nil, off, err
	}
	c := ondisk.NewCursor(data, binary.BigEndian)
	c.Skip(4)
	if version, number, length := c.U32(), c.U32(), c.U32(); version != 1 || number != group || uint64(length) != sb.agLength(group) {
		return nil, off, layer.Damaged(name.String(), off, "version %d, group %d, %d blocks, where the superblock has %d blocks",
			version, number, length, sb.agLength(group))
	}
	return data, off, nil
}

// groupTree is one of a group's B+trees, from which its root and depth were read.
type groupTree struct {
	fs    *Filesystem
	form  *form
	tree  *tree
	group uint32
	root  uint32
	depth uint32 // levels
	name  place
}

// check makes sure that the header makes sense of the tree.
func (t *groupTree) check(off int64) error {
	if t.depth == 0 || t.depth > maxTreeLevels {
		return layer.Damaged(t.name.String(), off, "it has %d levels, at most %d are possible", t.depth, maxTreeLevels)
	}
	return nil
}

// read returns block number block of the group, as a node of the given level.
func (t *groupTree) read(block uint64, level int, s span) (node, error) {
	sb := t.fs.sb
	if block >= sb.agLength(t.group) {
		return node{}, layer.Damaged(t.name.String(), ondisk.Nowhere, "it refers to block %d, the group has %d", block, sb.agLength(t.group))
	}
	off := sb.offset(uint64(t.group)<<sb.agShift | block)
	data, err := t.fs.block(t.form, off, int(sb.blockSize()), uint64(t.group), t.name)
	if err != nil {
		return node{}, err
	}
	n := t.tree.node(sb, data)
	if err := n.within(s, level); err != nil {
		return node{}, layer.Damaged(t.name.String(), off, "%v", err)
	}
	return n, nil
}

// inodeTreeOf opens the tree of a group's inodes. Layout of its header, from
// where [groupHeader] ends: 16 4 agi_count, 20 4 agi_root, 24 4 agi_level.
func (fs *Filesystem) inodeTreeOf(group uint32) (groupTree, error) {
	t := groupTree{fs: fs, form: inodeForm, tree: inodeTree, group: group, name: place{"inode tree of group", uint64(group)}}
	data, off, err := fs.groupHeader(agiForm, agiSector, group, place{"inode header of group", uint64(group)})
	if err != nil {
		return t, err
	}
	t.root, t.depth = binary.BigEndian.Uint32(data[20:]), binary.BigEndian.Uint32(data[24:])
	return t, t.check(off)
}

// chunkOf returns the first of the 64 inodes that ino was made with, as a number
// in its group. It refuses an inode that the group's tree does not have, or has as
// free.
func (fs *Filesystem) chunkOf(ino uint64) (uint64, error) {
	group, within := fs.sb.splitInode(ino)
	t, err := fs.inodeTreeOf(uint32(group))
	if err != nil {
		return 0, err
	}
	s := span{0, 1 << 32}
	n, err := t.read(uint64(t.root), int(t.depth)-1, s)
	for err == nil && n.level > 0 {
		i, childSpan, ok := n.child(within, s)
		if !ok {
			return 0, notAllocated(ino)
		}
		s = childSpan
		n, err = t.read(n.pointerAt(i), n.level-1, s)
	}
	if err != nil {
		return 0, err
	}
	i := n.recordOf(within)
	if i < 0 || !fs.inUse(n.recordAt(i), within) {
		return 0, notAllocated(ino)
	}
	first, _ := n.leafOrder(n.recordAt(i))
	return first, nil
}

func notAllocated(ino uint64) error {
	return layer.Absent(inodeName(ino), "it is free, though something refers to it")
}

// recordOf finds the record of a leaf that stands for at, or returns -1.
func (n node) recordOf(at uint64) int {
	low, high := 0, n.count
	for low < high {
		mid := (low + high) / 2
		if _, end := n.leafOrder(n.recordAt(mid)); end <= at {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == n.count {
		return -1
	}
	if first, _ := n.leafOrder(n.recordAt(low)); first > at {
		return -1
	}
	return low
}

// inUse reports whether a chunk of 64 inodes has the one that is wanted.
//
// Layout of a record ("Inode B+tree"): 0 4 ir_startino, 4 4 ir_freecount, 8 8
// ir_free, a bit for each free inode. With sparse inodes 4 2 is ir_holemask, a
// bit for each four inodes that have no place on disk.
func (fs *Filesystem) inUse(record []byte, within uint64) bool {
	i := within - uint64(binary.BigEndian.Uint32(record))
	if fs.sb.incompat&incompatSparse != 0 && binary.BigEndian.Uint16(record[4:])>>(i/4)&1 != 0 {
		return false
	}
	return binary.BigEndian.Uint64(record[8:])>>i&1 == 0
}

// chunkRange is for what inodes of its group a record of the inode tree stands.
func chunkRange(record []byte) (first, end uint64) {
	first = uint64(binary.BigEndian.Uint32(record))
	return first, first + inodesPerChunk
}

// freeRange is for what blocks of its group a record of the free space tree
// stands: 0 4 start, 4 4 length.
func freeRange(record []byte) (first, end uint64) {
	first = uint64(binary.BigEndian.Uint32(record))
	return first, first + uint64(binary.BigEndian.Uint32(record[4:]))
}
