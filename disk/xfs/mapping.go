package xfs

import (
	"encoding/binary"
	"math"
	"sort"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxLogical is the number of blocks that a fork can have: logical block numbers
// have 54 bits.
const maxLogical = 1 << 54

// The forms in which a fork keeps its content (di_format).
const (
	formatDevice  = 0
	formatLocal   = 1
	formatExtents = 2
	formatTree    = 3
)

const (
	extentSize     = 16
	rootHeaderSize = 4 // of a B+tree's root in an inode: 2 level, 2 numrecs
)

// fork is one of an inode's two: data or attributes.
type fork struct {
	format byte
	count  uint64 // extents
	raw    []byte // shared with the cache
	attr   bool
}

// mapping finds a fork's blocks. It keeps the last leaf that it read, so that
// reading on costs no lookup, and nothing else: a file of any size costs the
// same.
type mapping struct {
	fs      *Filesystem
	ino     uint64
	fork    fork
	changes []change // that the log has for this fork, see intents
	last    atomic.Pointer[segment]
}

// segment is what one leaf says: everything about the blocks of its span. Those
// in no run are holes.
type segment struct {
	span
	runs []run // sorted, without overlap, within the span
}

// run is a stretch of blocks that follow one another in the file and on disk.
type run struct {
	logical   uint64
	physical  uint64
	length    uint64
	unwritten bool // preallocated: reads as zeros
}

// stretch is a run or a hole, from the block that was asked for.
type stretch struct {
	physical uint64 // of a run
	length   uint64 // at least 1
	kind     disk.ExtentKind
}

func newMapping(fs *Filesystem, n *inode, f fork) *mapping {
	return &mapping{fs: fs, ino: n.Ino, fork: f, changes: fs.intents.mappings[forkKey{n.Ino, f.attr}]}
}

func (m *mapping) name() place {
	if m.fork.attr {
		return place{"attribute extents of inode", m.ino}
	}
	return place{"extents of inode", m.ino}
}

func (m *mapping) damaged(format string, args ...any) error {
	return layer.Damaged(m.name().String(), ondisk.Nowhere, format, args...)
}

// at returns what is known of the fork from logical block on.
func (m *mapping) at(block uint64) (stretch, error) {
	if block >= maxLogical {
		return stretch{length: math.MaxInt64, kind: disk.ExtentHole}, nil
	}
	s := m.last.Load()
	if s == nil || block < s.low || block >= s.high {
		var err error
		if s, err = m.segment(block); err != nil {
			return stretch{}, err
		}
		m.last.Store(s)
	}
	return m.changed(block, s.at(block)), nil
}

func (s *segment) at(block uint64) stretch {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].logical+s.runs[i].length > block })
	if i == len(s.runs) {
		return stretch{length: s.high - block, kind: disk.ExtentHole}
	}
	r := s.runs[i]
	if block < r.logical {
		return stretch{length: r.logical - block, kind: disk.ExtentHole}
	}
	skip := block - r.logical
	st := stretch{physical: r.physical + skip, length: r.length - skip}
	if r.unwritten {
		st.kind = disk.ExtentZero
	}
	return st
}

func (m *mapping) segment(block uint64) (*segment, error) {
	all := span{0, maxLogical}
	switch m.fork.format {
	case formatExtents:
		if m.fork.count > uint64(len(m.fork.raw)/extentSize) {
			return nil, m.damaged("%d extents, the inode has room for %d", m.fork.count, len(m.fork.raw)/extentSize)
		}
		leaf := node{tree: mapTree, count: int(m.fork.count), body: m.fork.raw}
		if err := leaf.check(); err != nil {
			return nil, m.damaged("%v", err)
		}
		return m.runs(leaf, all)
	case formatTree:
		return m.descend(block, all)
	}
	return nil, m.damaged("the fork's format is %d", m.fork.format)
}

// descend follows the B+tree from the root in the inode to the leaf that is
// responsible for a block.
func (m *mapping) descend(block uint64, s span) (*segment, error) {
	sb := m.fs.sb
	raw := m.fork.raw
	if len(raw) < rootHeaderSize {
		return nil, m.damaged("there is no room for the root of a B+tree")
	}
	n := node{
		tree: mapTree, level: int(binary.BigEndian.Uint16(raw)), count: int(binary.BigEndian.Uint16(raw[2:])),
		body: raw[rootHeaderSize:], room: (len(raw) - rootHeaderSize) / (mapTree.key + mapTree.pointer),
	}
	if n.level == 0 {
		return nil, m.damaged("the root of the B+tree has level 0")
	}
	if err := n.check(); err != nil {
		return nil, m.damaged("%v", err)
	}
	for n.level > 0 {
		i, childSpan, ok := n.child(block, s)
		if !ok {
			return &segment{span: childSpan}, nil
		}
		next := n.pointerAt(i)
		if !sb.validBlocks(next, 1) {
			return nil, m.damaged("the B+tree refers to block %#x, which the filesystem does not have", next)
		}
		data, err := m.block(next)
		if err != nil {
			return nil, err
		}
		child := mapTree.node(sb, data)
		if err := child.within(childSpan, n.level-1); err != nil {
			return nil, layer.Damaged(m.name().String(), sb.offset(next), "%v", err)
		}
		n, s = child, childSpan
	}
	return m.runs(n, s)
}

// block reads a block of the tree. Where the log says that a fork got the tree of
// another, the blocks may say so or not.
func (m *mapping) block(block uint64) ([]byte, error) {
	sb := m.fs.sb
	if m.fs.intents.owners[forkKey{m.ino, m.fork.attr}] {
		return m.fs.blockOfAny(mapForm, sb.offset(block), int(sb.blockSize()), m.name())
	}
	return m.fs.block(mapForm, sb.offset(block), int(sb.blockSize()), m.ino, m.name())
}

// runs reads the records of a leaf, and joins those that follow one another.
func (m *mapping) runs(leaf node, s span) (*segment, error) {
	seg := &segment{span: s, runs: make([]run, 0, leaf.count)}
	for i := range leaf.count {
		r := parseExtent(leaf.recordAt(i))
		if r.logical+r.length > maxLogical || !m.fs.sb.validBlocks(r.physical, r.length) || r.unwritten && m.fork.attr {
			return nil, m.damaged("%d blocks from %d on are said to be at %#x", r.length, r.logical, r.physical)
		}
		if k := len(seg.runs); k > 0 {
			last := &seg.runs[k-1]
			if last.logical+last.length == r.logical && last.physical+last.length == r.physical && last.unwritten == r.unwritten {
				last.length += r.length
				continue
			}
		}
		seg.runs = append(seg.runs, r)
	}
	return seg, nil
}

// parseExtent reads a record. Layout ("Extent List"), as bits of two numbers of
// eight bytes, from the top: 1 unwritten, 54 logical block, 52 block, 21 length.
func parseExtent(p []byte) run {
	high, low := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	return run{
		unwritten: high>>63 != 0,
		logical:   high >> 9 & (1<<54 - 1),
		physical:  high&(1<<9-1)<<43 | low>>21,
		length:    low & (1<<21 - 1),
	}
}

// mapRange is for what logical blocks a record stands.
func mapRange(record []byte) (first, end uint64) {
	r := parseExtent(record)
	return r.logical, r.logical + r.length
}
