package ext4

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	extentMagic      = 0xf30a
	extentHeaderSize = 12
	extentEntrySize  = 12
	// maxExtentDepth is what a file of 2^32 blocks needs with blocks of 1 KiB.
	maxExtentDepth = 5
	// maxInitialized is the longest written extent; above, ee_len is that much
	// more than the length of an unwritten one.
	maxInitialized = 32768
)

// extentNode is one node of an extent tree, checked.
//
// Layout (Documentation/filesystems/ext4/ifork.rst), little endian:
//
//	header         0x0 2 eh_magic   0x2 2 eh_entries  0x4 2 eh_max    0x6 2 eh_depth
//	index entry    0x0 4 ei_block   0x4 4 ei_leaf_lo  0x8 2 ei_leaf_hi
//	leaf entry     0x0 4 ee_block   0x4 2 ee_len      0x6 2 ee_start_hi  0x8 4 ee_start_lo
//	tail, behind eh_max entries of a block: 0x0 4 et_checksum
type extentNode struct {
	entries    []byte
	depth      uint16
	first, end uint64 // the logical blocks that the node's parent gives it
	off        int64  // byte offset of its block, or ondisk.Nowhere for the root
}

// extentChild is a block of the tree and the logical blocks that it answers
// for. Without a block, nothing is mapped there.
type extentChild struct {
	block      uint64
	first, end uint64
}

// extentSegment walks down to the leaf that block depends on. Each step is to
// a node of a smaller depth.
func (m *mapping) extentSegment(block uint64) (*segment, error) {
	node, err := m.extentHeader(m.root[:], extentNode{end: maxLogical, off: ondisk.Nowhere})
	if err != nil {
		return nil, err
	}
	for node.depth > 0 {
		child, err := m.extentChild(node, block)
		if err != nil {
			return nil, err
		}
		if child.block == 0 { // before the first entry: nothing is mapped there
			return &segment{first: child.first, end: child.end}, nil
		}
		if node, err = m.extentBlock(child, node.depth-1); err != nil {
			return nil, err
		}
	}
	return m.extentLeaf(node)
}

// extentChild finds what an index node says of block. It checks all entries.
func (m *mapping) extentChild(node extentNode, block uint64) (extentChild, error) {
	child := extentChild{first: node.first, end: node.end}
	previous := int64(-1)
	for e := node.entries; len(e) > 0; e = e[extentEntrySize:] {
		logical := uint64(binary.LittleEndian.Uint32(e))
		physical := uint64(binary.LittleEndian.Uint16(e[8:]))<<32 | uint64(binary.LittleEndian.Uint32(e[4:]))
		if int64(logical) <= previous || logical < node.first || logical >= node.end || physical == 0 {
			return child, layer.Damaged(m.name(), node.off, "the index entry of block %d, at block %d, is out of order", logical, physical)
		}
		previous = int64(logical)
		if logical <= block {
			child.first, child.block = logical, physical
		} else {
			child.end = min(child.end, logical)
		}
	}
	return child, nil
}

// extentBlock reads the node that child refers to, which must have the given
// depth.
func (m *mapping) extentBlock(child extentChild, depth uint16) (extentNode, error) {
	data, err := m.read(child.block)
	if err != nil {
		return extentNode{}, err
	}
	node, err := m.extentHeader(data, extentNode{
		first: child.first, end: child.end, off: int64(child.block) << m.fs.sb.blockShift,
	})
	if err != nil {
		return extentNode{}, err
	}
	if node.depth != depth {
		return extentNode{}, layer.Damaged(m.name(), node.off, "a node has depth %d where %d is due", node.depth, depth)
	}
	if len(node.entries) == 0 {
		return extentNode{}, layer.Damaged(m.name(), node.off, "a node has no entries")
	}
	return node, m.verifyExtentBlock(data, node)
}

func (m *mapping) verifyExtentBlock(data []byte, node extentNode) error {
	if !m.fs.sb.hasChecksum() {
		return nil
	}
	tail := extentHeaderSize + extentEntrySize*int(binary.LittleEndian.Uint16(data[4:]))
	if tail+4 > len(data) {
		return layer.Damaged(m.name(), node.off, "a node leaves no room for its checksum")
	}
	want := binary.LittleEndian.Uint32(data[tail:])
	if got := uint32(m.seed.add(data[:tail])); got != want {
		return layer.Damaged(m.name(), node.off, "a node's checksum is %#08x, the node says %#08x", got, want)
	}
	return nil
}

func (m *mapping) extentHeader(data []byte, node extentNode) (extentNode, error) {
	magic := binary.LittleEndian.Uint16(data)
	used, room := int(binary.LittleEndian.Uint16(data[2:])), int(binary.LittleEndian.Uint16(data[4:]))
	node.depth = binary.LittleEndian.Uint16(data[6:])
	switch {
	case magic != extentMagic:
		return node, layer.Damaged(m.name(), node.off, "a node has magic number %#04x, not %#04x", magic, extentMagic)
	case room == 0 || room > (len(data)-extentHeaderSize)/extentEntrySize || used > room:
		return node, layer.Damaged(m.name(), node.off, "a node of %d bytes has %d entries of %d", len(data), used, room)
	case node.depth > maxExtentDepth:
		return node, layer.Damaged(m.name(), node.off, "depth %d, at most %d is possible", node.depth, maxExtentDepth)
	case node.depth > 0 && used == 0:
		return node, layer.Damaged(m.name(), node.off, "an index node has no entries")
	}
	node.entries = data[extentHeaderSize : extentHeaderSize+used*extentEntrySize]
	return node, nil
}

// extentLeaf checks and converts the extents of a leaf.
func (m *mapping) extentLeaf(node extentNode) (*segment, error) {
	s := &segment{first: node.first, end: node.end, leaf: node.off != ondisk.Nowhere}
	if len(node.entries) > 0 {
		s.runs = make([]run, 0, len(node.entries)/extentEntrySize)
	}
	next := node.first
	for e := node.entries; len(e) > 0; e = e[extentEntrySize:] {
		r := parseExtent(e)
		if r.length == 0 || r.logical < next || r.logical+r.length > node.end {
			return nil, layer.Damaged(m.name(), node.off, "an extent of %d blocks at block %d is out of order", r.length, r.logical)
		}
		if !m.fs.sb.validBlocks(r.physical, r.length) {
			return nil, layer.Damaged(m.name(), node.off, "an extent lies in blocks %d to %d, the filesystem has %d",
				r.physical, r.physical+r.length-1, m.fs.sb.blockCount)
		}
		next = r.logical + r.length
		s.runs = append(s.runs, r)
	}
	return s, nil
}

// parseExtent reads an entry of a leaf.
func parseExtent(e []byte) run {
	r := run{
		logical:  uint64(binary.LittleEndian.Uint32(e)),
		length:   uint64(binary.LittleEndian.Uint16(e[4:])),
		physical: uint64(binary.LittleEndian.Uint16(e[6:]))<<32 | uint64(binary.LittleEndian.Uint32(e[8:])),
	}
	if r.length > maxInitialized {
		r.unwritten = true
		r.length -= maxInitialized
	}
	return r
}
