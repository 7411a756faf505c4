package ext4

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxLogical is the number of blocks that a file can have: logical block
// numbers have 32 bits.
const maxLogical = 1 << 32

// mapping finds a file's blocks, through an extent tree or a block map. It
// keeps the last leaf that it read, so that reading on costs no lookup, and
// nothing else: a file of any size costs the same.
type mapping struct {
	fs    *Filesystem
	ino   uint64
	seed  checksum
	flags uint32
	root  [blockFieldSize]byte
	last  atomic.Pointer[segment]
	// visit, if it is not nil, is told of the blocks of the tree or map.
	visit func(block uint64) error
	// changes are the blocks that fast commits moved, sorted.
	changes []change
}

// segment is what one leaf says: everything about the blocks [first, end) of
// the file. Those in no run are holes.
type segment struct {
	first, end uint64
	runs       []run // sorted, without overlap, within [first, end)
	leaf       bool  // it is a block of its own, and not in the inode
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
	leaf     bool // a leaf of the tree or map had to be read for it
}

func newMapping(fs *Filesystem, n *inode) *mapping {
	m := &mapping{fs: fs, ino: n.Ino, seed: n.seed, flags: n.flags, root: n.block}
	if c := fs.changes.inode(n.Ino); c != nil {
		m.changes = c.blocks
	}
	return m
}

// at returns what is known of the file from logical block on.
func (m *mapping) at(block uint64) (stretch, error) {
	if len(m.changes) == 0 {
		return m.onDisk(block)
	}
	i := sort.Search(len(m.changes), func(i int) bool { return m.changes[i].end > block })
	if i == len(m.changes) || block < m.changes[i].first {
		s, err := m.onDisk(block)
		if err == nil && i < len(m.changes) {
			s.length = min(s.length, m.changes[i].first-block)
		}
		return s, err
	}
	c := m.changes[i].part(block, m.changes[i].end)
	s := stretch{length: c.end - c.first, kind: c.kind}
	if c.kind != disk.ExtentHole {
		if s.physical = c.physical; !m.fs.sb.validBlocks(s.physical, s.length) {
			return stretch{}, layer.Damaged(m.name(), ondisk.Nowhere, "a fast commit says that it is in blocks %d to %d, the filesystem has %d",
				c.physical, c.physical+s.length-1, m.fs.sb.blockCount)
		}
	}
	return s, nil
}

// onDisk is what the tree or map says.
func (m *mapping) onDisk(block uint64) (stretch, error) {
	s := m.last.Load()
	if s == nil || block < s.first || block >= s.end {
		var err error
		if s, err = m.segment(block); err != nil {
			return stretch{}, err
		}
		m.last.Store(s)
	}
	return s.at(block), nil
}

func (m *mapping) segment(block uint64) (*segment, error) {
	if block >= maxLogical {
		return nil, layer.Damaged(m.name(), ondisk.Nowhere, "logical block %d, at most %d is possible", block, uint64(maxLogical-1))
	}
	if m.flags&flagExtents != 0 {
		return m.extentSegment(block)
	}
	return m.mapSegment(block)
}

func (m *mapping) name() string {
	if m.flags&flagExtents != 0 {
		return fmt.Sprintf("extent tree of inode %d", m.ino)
	}
	return fmt.Sprintf("block map of inode %d", m.ino)
}

// read returns a block of the tree or map.
func (m *mapping) read(block uint64) ([]byte, error) {
	if !m.fs.sb.validBlocks(block, 1) {
		return nil, layer.Damaged(m.name(), ondisk.Nowhere, "it refers to block %d, the filesystem has %d", block, m.fs.sb.blockCount)
	}
	if m.visit != nil {
		if err := m.visit(block); err != nil {
			return nil, err
		}
	}
	where := m.fs.blockSpan(block)
	data, err := m.fs.dev.metadata(where)
	if err != nil {
		return nil, layer.Unreadable(m.name(), where.off, err)
	}
	return data, nil
}

func (s *segment) at(block uint64) stretch {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].logical+s.runs[i].length > block })
	if i == len(s.runs) {
		return stretch{length: s.end - block, kind: disk.ExtentHole, leaf: s.leaf}
	}
	r := s.runs[i]
	if block < r.logical {
		return stretch{length: r.logical - block, kind: disk.ExtentHole, leaf: s.leaf}
	}
	skip := block - r.logical
	st := stretch{physical: r.physical + skip, length: r.length - skip, leaf: s.leaf}
	if r.unwritten {
		st.kind = disk.ExtentZero
	}
	return st
}

// maxFileSize is how many bytes the form in which n keeps its blocks allows.
func (fs *Filesystem) maxFileSize(n *inode) uint64 {
	blocks := uint64(maxLogical)
	if n.flags&(flagExtents|flagInlineData) == 0 {
		per := uint64(fs.sb.blockSize()) / 4
		blocks = min(blocks, directBlocks+per+per*per+per*per*per)
	}
	return min(blocks<<fs.sb.blockShift, math.MaxInt64)
}

// Block maps of ext2 and ext3 (Documentation/filesystems/ext4/ifork.rst): the
// inode holds twelve block numbers, then one of a block of numbers, one of a
// block of those, and one of a block of those again. 0 is a hole of the size
// of all that the number stands for.
const directBlocks = 12

// mapSegment reads the lowest block of numbers that block depends on.
func (m *mapping) mapSegment(block uint64) (*segment, error) {
	if block < directBlocks {
		return m.pointers(m.root[:directBlocks*4], 0)
	}
	per := uint64(m.fs.sb.blockSize()) / 4
	first, unit := uint64(directBlocks), uint64(1) // unit: blocks per number
	for level := range 3 {
		unit *= per
		if block < first+unit {
			next := binary.LittleEndian.Uint32(m.root[(directBlocks+level)*4:])
			return m.descend(block, first, unit, uint64(next))
		}
		first += unit
	}
	return nil, layer.Damaged(m.name(), ondisk.Nowhere, "logical block %d is more than it can hold", block)
}

// descend follows block number next, which stands for the unit blocks from
// first, down to the numbers of data blocks.
func (m *mapping) descend(block, first, unit, next uint64) (*segment, error) {
	per := uint64(m.fs.sb.blockSize()) / 4
	for {
		if next == 0 {
			return &segment{first: first, end: first + unit}, nil
		}
		data, err := m.read(next)
		if err != nil {
			return nil, err
		}
		if unit == per {
			return m.pointers(data, first)
		}
		unit /= per
		i := (block - first) / unit
		first += i * unit
		next = uint64(binary.LittleEndian.Uint32(data[i*4:]))
	}
}

// pointers joins the numbers of data blocks to runs.
func (m *mapping) pointers(data []byte, first uint64) (*segment, error) {
	s := &segment{first: first, end: first + uint64(len(data)/4), leaf: first >= directBlocks}
	for logical := first; logical < s.end; logical++ {
		physical := uint64(binary.LittleEndian.Uint32(data[(logical-first)*4:]))
		if physical == 0 {
			continue
		}
		if !m.fs.sb.validBlocks(physical, 1) {
			return nil, layer.Damaged(m.name(), ondisk.Nowhere, "block %d is said to be at %d, the filesystem has %d", logical, physical, m.fs.sb.blockCount)
		}
		if n := len(s.runs); n > 0 {
			last := &s.runs[n-1]
			if last.logical+last.length == logical && last.physical+last.length == physical {
				last.length++
				continue
			}
		}
		s.runs = append(s.runs, run{logical: logical, physical: physical, length: 1})
	}
	return s, nil
}
