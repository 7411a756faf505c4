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
// With an external data file, the offset is one in that file, and the same as
// in the guest's disk; a cluster at 0 is told from none by bit 63.
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

// l2Entry is an L2 entry with where it comes from.
type l2Entry struct {
	m      *mapping
	table  int64 // offset of its table in the file
	at     int64 // its own
	guest  int64 // offset of its cluster in the guest's disk
	within int64 // what is to be read starts there in the cluster

	value  uint64
	bitmap uint64 // of an extended entry
}

// piece decodes the L2 entry for guest offset off, which s has: the run from off
// to the end of the cluster, or of the subclusters that are alike.
func (m *mapping) piece(s slice, off int64) (run, error) {
	i := (off - s.start) >> m.clusterBits * m.entrySize
	within := off & (m.clusterSize() - 1)
	e := l2Entry{m: m, table: s.table, at: s.offset + i, guest: off - within, within: within}
	e.value = binary.BigEndian.Uint64(s.buf[i:])
	if m.extended {
		e.bitmap = binary.BigEndian.Uint64(s.buf[i+8:])
	}
	switch {
	case e.value&l2Compressed != 0:
		return e.compressed()
	case m.extended:
		return e.subclusters()
	}
	return e.standard()
}

func (e *l2Entry) damaged(format string, args ...any) error {
	return layer.Damaged("L2 table", e.at, format, args...)
}

// standard decodes the entry of a cluster that is not compressed.
func (e *l2Entry) standard() (run, error) {
	zero := e.value&l2Zero != 0
	if zero && e.m.version < 3 {
		return run{}, e.damaged("entry %#x is a zero cluster, which version 2 does not have", e.value)
	}
	r := run{length: e.m.clusterSize() - e.within}
	host, err := e.host(e.value&^l2Zero, !zero)
	switch {
	case err != nil:
		return run{}, err
	case zero:
		r.kind = runZero
	case host != nowhere:
		r.kind, r.host = runData, host+e.within
	}
	return r, nil
}

// nowhere is the host offset of a cluster that is not allocated.
const nowhere = -1

// host returns the offset of the cluster that value, the entry without the zero
// bit of a standard one, points to, or nowhere. read says whether anything will
// be read there; what is only set aside for later may lie anywhere.
func (e *l2Entry) host(value uint64, read bool) (int64, error) {
	m := e.m
	if value&(l2ReservedMask|l2Zero) != 0 {
		return 0, e.damaged("entry %#x has reserved bits", e.value)
	}
	host := int64(value & l2OffsetMask)
	switch {
	case host&(m.clusterSize()-1) != 0:
		return 0, e.damaged("entry %#x points to %#x, not aligned to clusters", e.value, host)
	case host == 0 && (value&l2Copied == 0 || !read):
		return nowhere, nil
	case m.external && host != e.guest:
		return 0, e.damaged("entry %#x points to %#x of the external data file, which is not where the cluster is in the disk, %#x", e.value, host, e.guest)
	case !read:
		return host, nil
	case host >= m.dataSize:
		return 0, e.damaged("entry %#x points to %#x, but the file ends at %#x", e.value, host, m.dataSize)
	case m.external:
		return host, nil
	case host == 0:
		return 0, e.damaged("entry %#x is allocated, but nowhere", e.value)
	case host == e.table || m.inL1(host):
		return 0, e.damaged("entry %#x points to %#x, a table that maps it", e.value, host)
	}
	return host, nil
}

// subclusters decodes an extended entry of a cluster that is not compressed.
func (e *l2Entry) subclusters() (run, error) {
	allocated, zero := uint32(e.bitmap), uint32(e.bitmap>>32)
	if both := allocated & zero; both != 0 {
		return run{}, e.damaged("subcluster %d is allocated and reads as zeros", bits.TrailingZeros32(both))
	}
	host, err := e.host(e.value, allocated != 0)
	if err != nil {
		return run{}, err
	}
	if allocated != 0 && host == nowhere {
		return run{}, e.damaged("subcluster %d is allocated, but its cluster is not", bits.TrailingZeros32(allocated))
	}
	size := e.m.clusterSize() / subclusters
	first := uint(e.within / size)
	r := run{}
	var same uint32 // the subclusters that are like the first, as bits
	switch {
	case allocated>>first&1 != 0:
		r.kind, r.host, same = runData, host+e.within, allocated
	case zero>>first&1 != 0:
		r.kind, same = runZero, zero
	default:
		same = ^(allocated | zero)
	}
	n := min(bits.TrailingZeros32(^(same >> first)), subclusters-int(first))
	r.length = int64(n)*size - e.within%size
	return r, nil
}

// compressed decodes the entry of a compressed cluster.
func (e *l2Entry) compressed() (run, error) {
	m := e.m
	if e.value&l2Copied != 0 || e.bitmap != 0 {
		return run{}, e.damaged("entry %#x is a compressed cluster, with reserved bits", e.value)
	}
	if m.external {
		return run{}, e.damaged("entry %#x is a compressed cluster, which an image with an external data file cannot have", e.value)
	}
	shift := 70 - m.clusterBits
	host := e.value & (1<<shift - 1)
	if host < uint64(m.clusterSize()) || host >= uint64(m.fileSize) {
		return run{}, e.damaged("entry %#x points to %#x, not between the header and the end of the file at %#x", e.value, host, m.fileSize)
	}
	sectors := int64(e.value &^ l2Compressed >> shift)
	stored := (sectors+1)*sectorSize - int64(host)%sectorSize
	return run{
		kind:   runCompressed,
		length: m.clusterSize() - e.within,
		host:   int64(host),
		stored: min(stored, m.fileSize-int64(host)), // the last sector may be cut
		entry:  e.value,
	}, nil
}
