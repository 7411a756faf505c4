package ext4

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// changes is what fast commits change in the filesystem that the disk and the
// journal's transactions make: a small model of the inodes and directories that
// they name, and of nothing else.
type changes struct {
	inodes map[uint64]*changedInode
	dirs   map[uint64]*changedDir
}

// changedInode is an inode that a fast commit wrote or counted links of.
type changedInode struct {
	head   []byte   // the start of the inode; the rest is on disk
	log    []change // of the blocks, the oldest first; nil once they are settled
	blocks []change // sorted, without overlap
}

// change says where the blocks [first, end) of a file are now.
type change struct {
	first, end uint64
	physical   uint64 // of the first, unless kind is a hole
	kind       disk.ExtentKind
}

// changedDir is a directory whose entries changed.
type changedDir struct {
	created bool // nothing of it is on disk
	entries []changedEntry
	index   map[string]int // where in entries a name is
}

// changedEntry is a name that a fast commit speaks of.
type changedEntry struct {
	name string
	base uint64 // its inode on disk, or 0
	ino  uint64 // its inode now, or 0
}

func (c *changes) inode(ino uint64) *changedInode {
	if c == nil {
		return nil
	}
	return c.inodes[ino]
}

func (c *changes) dir(ino uint64) *changedDir {
	if c == nil {
		return nil
	}
	return c.dirs[ino]
}

// raw returns the whole inode, of which onDisk is the disk's version.
func (c *changedInode) raw(onDisk []byte) []byte {
	raw := slices.Clone(onDisk)
	copy(raw, c.head)
	return raw
}

func (c *changedInode) links() uint16 {
	return binary.LittleEndian.Uint16(c.head[linksOffset:])
}

func (c *changedInode) setLinks(n uint16) {
	binary.LittleEndian.PutUint16(c.head[linksOffset:], n)
}

// take puts an inode of a fast commit in place of what is known. Where i_block
// holds blocks, the log tells of those one by one, and what was there stays.
func (c *changedInode) take(value []byte) {
	block := [blockFieldSize]byte(c.head[blockFieldOffset:])
	if len(value) > len(c.head) {
		c.head = append(c.head, make([]byte, len(value)-len(c.head))...)
	}
	copy(c.head, value)
	flags := binary.LittleEndian.Uint32(value[flagsOffset:])
	switch {
	case flags&flagExtents != 0:
		if binary.LittleEndian.Uint16(block[:]) != extentMagic {
			block = emptyExtents()
		}
	case flags&flagInlineData != 0:
		return
	}
	copy(c.head[blockFieldOffset:], block[:])
}

// free empties an inode whose last link is gone.
func (c *changedInode) free() {
	c.log = nil
	block := c.head[blockFieldOffset : blockFieldOffset+blockFieldSize]
	mode := uint32(binary.LittleEndian.Uint16(c.head))
	switch {
	case binary.LittleEndian.Uint32(c.head[flagsOffset:])&flagExtents != 0:
		empty := emptyExtents()
		copy(block, empty[:])
	case mode&disk.ModeType == disk.ModeRegular || mode&disk.ModeType == disk.ModeDir:
		clear(block)
	}
}

// emptyExtents is the root of an extent tree without extents.
func emptyExtents() (block [blockFieldSize]byte) {
	binary.LittleEndian.PutUint16(block[0:], extentMagic)
	binary.LittleEndian.PutUint16(block[4:], (blockFieldSize-extentHeaderSize)/extentEntrySize)
	return block
}

// settle makes blocks of the log: of changes that overlap, the newest counts.
func (c *changedInode) settle() {
	log := c.log
	order := make([]int, len(log))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(log[a].first, log[b].first) })
	var open newestFirst // the changes that have begun at pos
	var pos uint64
	for len(order) > 0 || len(open) > 0 {
		if len(open) == 0 {
			pos = log[order[0]].first
		}
		for len(order) > 0 && log[order[0]].first <= pos {
			heap.Push(&open, order[0])
			order = order[1:]
		}
		top := log[open[0]]
		if top.end <= pos {
			heap.Pop(&open)
			continue
		}
		end := top.end
		if len(order) > 0 {
			end = min(end, log[order[0]].first)
		}
		c.add(top.part(pos, end))
		pos = end
	}
	c.log = nil
}

// part is what a change says of the blocks [first, end), which are some of its.
func (c change) part(first, end uint64) change {
	return change{first: first, end: end, physical: c.physical + first - c.first, kind: c.kind}
}

// add appends a settled change, to the last one if it goes on.
func (c *changedInode) add(next change) {
	if n := len(c.blocks); n > 0 {
		last := &c.blocks[n-1]
		if last.end == next.first && last.kind == next.kind && last.physical+last.end-last.first == next.physical {
			last.end = next.end
			return
		}
	}
	c.blocks = append(c.blocks, next)
}

// newestFirst is a heap of indexes with the greatest on top.
type newestFirst []int

func (h newestFirst) Len() int           { return len(h) }
func (h newestFirst) Less(i, j int) bool { return h[i] > h[j] }
func (h newestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newestFirst) Push(x any)        { *h = append(*h, x.(int)) }
func (h *newestFirst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// entry returns what is known of a name, which is mentioned in the log.
func (d *changedDir) entry(name []byte) *changedEntry {
	i, ok := d.index[string(name)]
	if !ok {
		i = len(d.entries)
		d.index[string(name)] = i
		d.entries = append(d.entries, changedEntry{name: string(name)})
	}
	return &d.entries[i]
}

// create makes d an empty directory.
func (d *changedDir) create() {
	d.created = true
	for i := range d.entries {
		d.entries[i].base, d.entries[i].ino = 0, 0
	}
}

// replaces reports whether the entry on disk of name, for inode ino, is gone.
func (d *changedDir) replaces(name []byte, ino uint64) bool {
	i, ok := d.index[string(name)]
	return ok && d.entries[i].ino != ino
}
