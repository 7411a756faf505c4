package qcow2

import (
	"encoding/binary"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxSlice is how much of an L2 table is read and kept at a time. It is what
// makes the cost of a small read, and of a cache entry, independent of the
// cluster size.
const maxSlice = 64 << 10

// L1 entry: bits 9 to 55 are the offset of an L2 table, 0 for none; bit 63 says
// whether a writer must copy the table first; the rest is reserved.
const (
	l1OffsetMask   = 0x00ff_ffff_ffff_fe00
	l1ReservedMask = 0x7f00_0000_0000_01ff
)

// mapping finds guest clusters in the file: the L1 table, and through it the L2
// tables.
type mapping struct {
	r           io.ReaderAt
	fileSize    int64
	version     uint32
	clusterBits uint32
	extended    bool
	entrySize   int64 // of an L2 entry: 8, or 16 with subclusters
	size        int64 // bytes mapped

	// external: the data is in another file, of dataSize bytes; else dataSize
	// is fileSize.
	external bool
	dataSize int64

	l1       []byte // as in the file, as far as size needs it
	l1Offset int64
	l1Bytes  int64                // in the file
	slices   *cache.Cache[uint64] // pieces of L2 tables, by their offset in the file
}

// newMapping reads the L1 table of st, as far as st's size needs it: behind that
// it maps the saved memory of a VM.
func newMapping(r io.ReaderAt, fileSize int64, h *header, st state, data disk.Sparse) (*mapping, error) {
	coverage := h.l1Coverage()
	needed := ceilDiv(st.size, coverage)
	if needed > int64(st.l1Size) && !st.short {
		return nil, layer.Damaged(st.name, int64(st.l1Offset&(1<<63-1)), "%d entries, but %d bytes of disk need %d", st.l1Size, st.size, needed)
	}
	if st.l1Size > MaxL1Bytes/8 {
		return nil, layer.Beyond(st.name, -1, "%d entries, at most %d is possible", st.l1Size, MaxL1Bytes/8)
	}
	length := int64(st.l1Size) * 8
	if length > 0 && st.l1Offset < uint64(h.clusterSize()) || !h.aligned(st.l1Offset) ||
		!ondisk.WithinU(st.l1Offset, uint64(length), uint64(fileSize)) {
		return nil, layer.Damaged(st.name, -1, "its %d bytes at %#x are not in whole clusters of the file", length, st.l1Offset)
	}
	m := &mapping{
		r: r, fileSize: fileSize, size: st.size,
		version: h.version, clusterBits: h.clusterBits,
		extended: h.incompatible&incompatExtendedL2 != 0, entrySize: h.l2EntrySize(),
		l1Offset: int64(st.l1Offset), l1Bytes: length,
		external: data != nil, dataSize: fileSize,
	}
	if data != nil {
		m.dataSize = data.Size()
	}
	m.l1 = make([]byte, min(needed, int64(st.l1Size))*8) // at most MaxL1Bytes
	if err := ondisk.ReadFull(r, m.l1, m.l1Offset); err != nil {
		return nil, layer.Unreadable(st.name, m.l1Offset, err)
	}
	return m, m.countTables(st.name)
}

// countTables refuses an L1 table that leads to more L2 tables than the file has
// clusters. Each has its own in an image that is whole; together with the size
// of the file this bounds the work of walking all extents, which would otherwise
// be that of the virtual size, with one table used again and again.
func (m *mapping) countTables(name string) error {
	tables := int64(0)
	for i := 0; i < len(m.l1); i += 8 {
		if binary.BigEndian.Uint64(m.l1[i:])&l1OffsetMask != 0 {
			tables++
		}
	}
	if room := m.fileSize / m.clusterSize(); tables > room {
		return layer.Damaged(name, m.l1Offset, "%d L2 tables, but the file has %d clusters", tables, room)
	}
	return nil
}

func ceilDiv(a, b int64) int64 { return a/b + min(a%b, 1) }

func (m *mapping) clusterSize() int64 { return 1 << m.clusterBits }

// l1Coverage is how many bytes of the guest's disk an L1 entry maps.
func (m *mapping) l1Coverage() int64 { return m.clusterSize() / m.entrySize * m.clusterSize() }

// at returns the run that starts at guest offset off, cut to limit bytes, of
// which there is at least one. [off, off+limit) lies within size.
func (m *mapping) at(off, limit int64) (run, error) {
	table, err := m.table(off)
	if err != nil {
		return run{}, err
	}
	if table == 0 {
		return m.unmapped(off, limit)
	}
	s, err := m.slice(table, off)
	if err != nil {
		return run{}, err
	}
	got, err := m.piece(s, off)
	if err != nil {
		return run{}, err
	}
	for got.length < limit && off+got.length < s.end {
		next, err := m.piece(s, off+got.length)
		if err != nil || !got.extend(next) {
			break // an error is met again by who reads there
		}
	}
	got.length = min(got.length, limit)
	return got, nil
}

// table returns the offset of the L2 table for guest offset off, or 0.
func (m *mapping) table(off int64) (int64, error) {
	i := off / m.l1Coverage()
	if i >= int64(len(m.l1)/8) {
		return 0, nil // the table is shorter than the disk, see state.short
	}
	entry := binary.BigEndian.Uint64(m.l1[i*8:])
	if entry&l1ReservedMask != 0 {
		return 0, layer.Damaged("L1 table", m.l1Offset+i*8, "entry %d is %#x, with reserved bits", i, entry)
	}
	table := int64(entry & l1OffsetMask)
	switch {
	case table == 0:
		return 0, nil
	case table&(m.clusterSize()-1) != 0:
		return 0, layer.Damaged("L1 table", m.l1Offset+i*8, "entry %d points to %#x, not aligned to clusters", i, table)
	case !ondisk.Within(table, m.clusterSize(), m.fileSize):
		return 0, layer.Damaged("L1 table", m.l1Offset+i*8, "entry %d points to %#x, but the file ends at %#x", i, table, m.fileSize)
	case m.inL1(table):
		return 0, layer.Damaged("L1 table", m.l1Offset+i*8, "entry %d points to the L1 table itself", i)
	}
	return table, nil
}

// inL1 reports whether the cluster at off is one of the L1 table's.
func (m *mapping) inL1(off int64) bool {
	return off+m.clusterSize() > m.l1Offset && off < m.l1Offset+m.l1Bytes
}

// unmapped is the run over L1 entries that have no table.
func (m *mapping) unmapped(off, limit int64) (run, error) {
	coverage := m.l1Coverage()
	length := coverage - off%coverage
	for length < limit {
		if table, err := m.table(off + length); err != nil || table != 0 {
			break
		}
		length += coverage
	}
	return run{kind: runUnallocated, length: min(length, limit)}, nil
}

// slice is a part of an L2 table.
type slice struct {
	table  int64  // offset of the table in the file
	offset int64  // of buf in the file
	buf    []byte // whole entries
	// start and end are the guest offsets that buf maps.
	start, end int64
}

// slice returns the part of the L2 table at offset table that maps off.
func (m *mapping) slice(table, off int64) (slice, error) {
	length := min(m.clusterSize(), maxSlice)
	maps := length / m.entrySize * m.clusterSize()
	start := off / maps * maps // a table maps a multiple of that, too
	within := start % m.l1Coverage() / maps * length
	s := slice{table: table, offset: table + within, start: start, end: start + maps}
	buf := m.slices.Get(uint64(s.offset))
	if buf == nil {
		buf = make([]byte, length)
		if err := ondisk.ReadFull(m.r, buf, s.offset); err != nil {
			return slice{}, layer.Unreadable("L2 table", table, err)
		}
		m.slices.Add(uint64(s.offset), buf)
	}
	s.buf = buf
	return s, nil
}
