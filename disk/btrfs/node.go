package btrfs

import (
	"encoding/binary"
	"math"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// node is a tree block, verified: its methods can rely on what [volume.verify]
// checks.
//
// Layout (btrfs.readthedocs.io, "On-disk format", B-tree node), little endian:
//
//	header    0x00 32 csum   0x20 16 fsid   0x30 8 bytenr   0x38 8 flags
//	          0x40 16 chunk_tree_uuid   0x50 8 generation   0x58 8 owner
//	          0x60 4 nritems   0x64 1 level
//	pointer   0x00 17 key   0x11 8 blockptr   0x19 8 generation
//	item      0x00 17 key   0x11 4 offset (from the end of the header)   0x15 4 size
type node []byte

const (
	nodeHeaderSize = 0x65
	pointerSize    = keySize + 16
	itemSize       = keySize + 8
)

func (n node) generation() uint64 { return binary.LittleEndian.Uint64(n[0x50:]) }
func (n node) owner() uint64      { return binary.LittleEndian.Uint64(n[0x58:]) }
func (n node) count() int         { return int(binary.LittleEndian.Uint32(n[0x60:])) }
func (n node) level() uint8       { return n[0x64] }

// entry returns the i-th pointer or item.
func (n node) entry(i int) []byte {
	size := itemSize
	if n.level() > 0 {
		size = pointerSize
	}
	at := nodeHeaderSize + i*size
	return n[at : at+size : at+size]
}

func (n node) key(i int) key { return keyAt(n.entry(i)) }

// child returns the i-th pointer of a node that is not a leaf.
func (n node) child(i int) pointer {
	e := n.entry(i)
	return pointer{
		block: binary.LittleEndian.Uint64(e[keySize:]), generation: binary.LittleEndian.Uint64(e[keySize+8:]), level: n.level() - 1,
	}
}

// address is where the block lies, for errors.
func (n node) address() int64 { return offsetOf(binary.LittleEndian.Uint64(n[0x30:])) }

// offsetOf makes a logical address the offset of an error.
func offsetOf(address uint64) int64 { return int64(min(address, math.MaxInt64)) }

// value is the content of an item, and where that is.
type value struct {
	raw []byte // nil where there is no such item
	at  int64  // address of the tree block, for errors
}

// value returns the content of the i-th item of a leaf.
func (n node) value(i int) value {
	e := n.entry(i)
	at := nodeHeaderSize + int(binary.LittleEndian.Uint32(e[keySize:]))
	size := int(binary.LittleEndian.Uint32(e[keySize+4:]))
	return value{n[at : at+size : at+size], n.address()}
}

// search returns the first entry whose key is not below k.
func (n node) search(k key) int {
	low, high := 0, n.count()
	for low < high {
		middle := int(uint(low+high) >> 1)
		if n.key(middle).compare(k) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// expectation is what the way to a tree block says of it.
type expectation struct {
	pointer
	owner uint64 // of the tree; 0 where any is right
	name  string // of the tree, for errors
	// The keys lie from first on and before end. The root of a tree has no
	// first.
	first, end key
	isRoot     bool
}

// read returns the tree block that e describes: from the cache, or from the
// first copy that is right.
func (v *volume) read(e *expectation) (node, error) {
	if n := node(v.nodes.Get(e.block)); n != nil {
		return n, v.verifyPlace(n, e)
	}
	size := uint64(v.sb.nodeSize)
	if e.block%uint64(v.sb.sectorSize) != 0 {
		return nil, layer.Damaged(e.name, offsetOf(e.block), "a tree block lies at %#x, which is no multiple of %d", e.block, v.sb.sectorSize)
	}
	c, err := v.chunkOf(e.block, size, e.name)
	if err != nil {
		return nil, err
	}
	if c.kind&(groupMetadata|groupSystem) == 0 {
		return nil, layer.Damaged(e.name, offsetOf(e.block), "a tree block lies in a chunk for data")
	}
	n := make(node, size)
	var first error
	for copy := range c.copies {
		err := v.readNodeCopy(n, c, e, copy)
		if err == nil {
			v.nodes.Add(e.block, n)
			return n, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (v *volume) readNodeCopy(n node, c *chunk, e *expectation, copy int) error {
	if err := v.readCopy(n, c, e.block, copy); err != nil {
		return unreadable(e.name, offsetOf(e.block), err)
	}
	if err := v.verify(n, e); err != nil {
		return err
	}
	return v.verifyPlace(n, e)
}

// verify checks what a tree block says of itself.
func (v *volume) verify(n node, e *expectation) error {
	damaged := func(format string, args ...any) error {
		return layer.Damaged(e.name, offsetOf(e.block), "tree block: "+format, args...)
	}
	room := len(n) - nodeHeaderSize
	switch {
	case !v.sb.checksum.matches(n, n[maxChecksumSize:]):
		return damaged("its %s is wrong", v.sb.checksum.name)
	case [16]byte(n[0x20:0x30]) != v.sb.metadataFSID:
		return damaged("it belongs to filesystem %x", n[0x20:0x30])
	case binary.LittleEndian.Uint64(n[0x30:]) != e.block:
		return damaged("it says that it lies at %#x", binary.LittleEndian.Uint64(n[0x30:]))
	case n.level() > maxLevel:
		return damaged("level %d, at most %d is possible", n.level(), maxLevel)
	case n.level() == 0 && uint64(uint32(n.count())) > uint64(room/itemSize),
		n.level() > 0 && (uint64(uint32(n.count())) > uint64(room/pointerSize) || n.count() == 0):
		return damaged("%d entries at level %d in %d bytes", uint32(n.count()), n.level(), len(n))
	}
	for i := 1; i < n.count(); i++ {
		if n.key(i-1).compare(n.key(i)) >= 0 {
			return damaged("key %v stands before %v", n.key(i-1), n.key(i))
		}
	}
	if n.level() == 0 {
		return n.verifyItems(damaged)
	}
	for i := range n.count() {
		if p := n.child(i); p.block == 0 || p.generation > n.generation() {
			return damaged("a pointer to %#x of generation %d in a block of generation %d", p.block, p.generation, n.generation())
		}
	}
	return nil
}

// verifyItems checks that the contents of a leaf's items lie one before the
// other, the first at the end, and behind the items themselves.
func (n node) verifyItems(damaged func(string, ...any) error) error {
	end := uint64(len(n) - nodeHeaderSize)
	for i := range n.count() {
		e := n.entry(i)
		off, size := uint64(binary.LittleEndian.Uint32(e[keySize:])), uint64(binary.LittleEndian.Uint32(e[keySize+4:]))
		if off+size != end || off < uint64(n.count()*itemSize) {
			return damaged("item %v has %d bytes at %d, where the end must be %d", n.key(i), size, off, end)
		}
		end = off
	}
	return nil
}

// verifyPlace checks what the way to a tree block says of it.
func (v *volume) verifyPlace(n node, e *expectation) error {
	damaged := func(format string, args ...any) error {
		return layer.Damaged(e.name, offsetOf(e.block), "tree block: "+format, args...)
	}
	switch {
	case n.generation() != e.generation:
		return damaged("generation %d, where %d is due (parent transid verify failed)", n.generation(), e.generation)
	case n.level() != e.level:
		return damaged("level %d, where %d is due", n.level(), e.level)
	case !ownerFits(n.owner(), e.owner):
		return damaged("it belongs to tree %d, not to %d", int64(n.owner()), int64(e.owner))
	case n.count() == 0 && !e.isRoot:
		return damaged("it is empty")
	case n.count() == 0:
		return nil
	case !e.isRoot && n.key(0) != e.first:
		return damaged("it starts with key %v, where %v is due", n.key(0), e.first)
	case n.key(n.count()-1).compare(e.end) >= 0:
		return damaged("it ends with key %v, where all must be below %v", n.key(n.count()-1), e.end)
	}
	return nil
}

// ownerFits reports whether a tree may hold a block of an owner: its own, or, as
// subvolumes share blocks, that of any subvolume.
func ownerFits(owner, tree uint64) bool {
	return owner == tree || isSubvolume(tree) && isSubvolume(owner)
}

// isSubvolume reports whether a tree of that number holds files.
func isSubvolume(id uint64) bool { return id == fsTree || id >= firstFree && int64(id) > 0 }

func newCursor(raw []byte) *ondisk.Cursor { return ondisk.NewCursor(raw, binary.LittleEndian) }
