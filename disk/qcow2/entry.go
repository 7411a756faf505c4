package qcow2

import (
	"encoding/binary"
	"math/bits"
)

// An L2 entry, big-endian:
//
//	bit       standard cluster             compressed cluster (x = 70 - cluster_bits)
//	      63  1: a writer need not copy    0
//	      62  0                            1
//	56 to 61  reserved                     x to 61: number of 512-byte sectors
//	 9 to 55  offset in the file           that the data reaches into, minus one
//	 1 to  8  reserved                     0 to x-1: offset in the file, to the byte
//	       0  1: reads as zeros
//
// An extended entry has a second number, for standard clusters only: bits 0 to
// 31 say which of the 32 subclusters are allocated, bits 32 to 63 which of them
// read as zeros. Bit 0 of the first is then reserved.
const (
	l2Copied       = 1 << 63
	l2Compressed   = 1 << 62
	l2OffsetMask   = 0x00ff_ffff_ffff_fe00
	l2ReservedMask = 0x3f00_0000_0000_01fe
	l2Zero         = 1 << 0

	subclusters = 32
)

type runKind uint8

const (
	runUnallocated runKind = iota // the backing file's, or zeros
	runZero
	runData
	runCompressed // all or a part of one compressed cluster
)

// run is a range of the guest's disk that is stored in one way.
type run struct {
	kind   runKind
	length int64 // guest bytes

	// host is where the bytes are in the file: of runData the first one, of
	// runCompressed the compressed cluster, which takes at most stored bytes.
	host, stored int64
	// entry is the L2 entry of runCompressed: what makes it this cluster.
	entry uint64
}

// extend makes r longer by next, the run right behind it, if they can be read
// as one.
func (r *run) extend(next run) bool {
	if r.kind != next.kind || r.kind == runCompressed {
		return false
	}
	if r.kind == runData && r.host+r.length != next.host {
		return false
	}
	r.length += next.length
	return true
}

// piece decodes the L2 entry for guest offset off, which s has: the run from off
// to the end of the cluster, or of the subclusters that are alike.
func (m *mapping) piece(s slice, off int64) (run, error) {
	i := (off - s.start) >> m.clusterBits * m.entrySize
	entry := binary.BigEndian.Uint64(s.buf[i:])
	var bitmap uint64
	if m.extended {
		bitmap = binary.BigEndian.Uint64(s.buf[i+8:])
	}
	within := off & (m.clusterSize() - 1)
	switch {
	case entry&l2Compressed != 0:
		return m.compressed(s, s.offset+i, entry, bitmap, within)
	case m.extended:
		return m.subclusters(s, s.offset+i, entry, bitmap, within)
	}
	return m.standard(s, s.offset+i, entry, within)
}

// standard decodes the entry, at offset at of the file, of a cluster that is not
// compressed.
func (m *mapping) standard(s slice, at int64, entry uint64, within int64) (run, error) {
	if entry&l2Zero != 0 && m.version < 3 {
		return run{}, layer.Damaged("L2 table", at, "entry %#x is a zero cluster, which version 2 does not have", entry)
	}
	zero := entry&l2Zero != 0
	host, err := m.host(s, at, entry&^l2Zero, !zero)
	if err != nil {
		return run{}, err
	}
	r := run{length: m.clusterSize() - within}
	switch {
	case zero:
		r.kind = runZero
	case host != 0:
		r.kind, r.host = runData, host+within
	}
	return r, nil
}

// host returns the offset of the cluster that a standard entry points to, or 0.
// read says whether anything will be read there; what is only set aside for
// later may lie anywhere.
func (m *mapping) host(s slice, at int64, entry uint64, read bool) (int64, error) {
	if entry&(l2ReservedMask|l2Zero) != 0 {
		return 0, layer.Damaged("L2 table", at, "entry %#x has reserved bits", entry)
	}
	host := int64(entry & l2OffsetMask)
	switch {
	case host == 0 && entry&l2Copied != 0 && read:
		return 0, layer.Damaged("L2 table", at, "entry %#x is allocated, but nowhere", entry)
	case host&(m.clusterSize()-1) != 0:
		return 0, layer.Damaged("L2 table", at, "entry %#x points to %#x, not aligned to clusters", entry, host)
	case host == 0 || !read:
		return host, nil
	case host >= m.fileSize:
		return 0, layer.Damaged("L2 table", at, "entry %#x points to %#x, but the file ends at %#x", entry, host, m.fileSize)
	case host == s.table || m.inL1(host):
		return 0, layer.Damaged("L2 table", at, "entry %#x points to %#x, a table that maps it", entry, host)
	}
	return host, nil
}

// subclusters decodes an extended entry of a cluster that is not compressed.
func (m *mapping) subclusters(s slice, at int64, entry, bitmap uint64, within int64) (run, error) {
	allocated, zero := uint32(bitmap), uint32(bitmap>>32)
	if both := allocated & zero; both != 0 {
		return run{}, layer.Damaged("L2 table", at, "subcluster %d is allocated and reads as zeros", bits.TrailingZeros32(both))
	}
	host, err := m.host(s, at, entry, allocated != 0)
	if err != nil {
		return run{}, err
	}
	if allocated != 0 && host == 0 {
		return run{}, layer.Damaged("L2 table", at, "subcluster %d is allocated, but its cluster is not", bits.TrailingZeros32(allocated))
	}
	size := m.clusterSize() / subclusters
	first := uint(within / size)
	r := run{}
	var same uint32 // the subclusters that are like the first, as bits
	switch {
	case allocated>>first&1 != 0:
		r.kind, r.host, same = runData, host+within, allocated
	case zero>>first&1 != 0:
		r.kind, same = runZero, zero
	default:
		same = ^(allocated | zero)
	}
	n := min(bits.TrailingZeros32(^(same >> first)), subclusters-int(first))
	r.length = int64(n)*size - within%size
	return r, nil
}

// compressed decodes the entry of a compressed cluster.
func (m *mapping) compressed(s slice, at int64, entry, bitmap uint64, within int64) (run, error) {
	if entry&l2Copied != 0 || bitmap != 0 {
		return run{}, layer.Damaged("L2 table", at, "entry %#x is a compressed cluster, with reserved bits", entry)
	}
	shift := 70 - m.clusterBits
	host := entry & (1<<shift - 1)
	if host < uint64(m.clusterSize()) || host >= uint64(m.fileSize) {
		return run{}, layer.Damaged("L2 table", at, "entry %#x points to %#x, not between the header and the end of the file at %#x", entry, host, m.fileSize)
	}
	sectors := int64(entry &^ l2Compressed >> shift)
	stored := (sectors+1)*sectorSize - int64(host)%sectorSize
	return run{
		kind:   runCompressed,
		length: m.clusterSize() - within,
		host:   int64(host),
		stored: min(stored, m.fileSize-int64(host)), // the last sector may be cut
		entry:  entry,
	}, nil
}
