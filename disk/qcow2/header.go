package qcow2

import (
	"encoding/binary"
	"io"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The limits of an image. Those that are QEMU's own are what an image that QEMU
// runs cannot pass.
const (
	minClusterBits = 9  // 512 bytes, by the format
	maxClusterBits = 21 // 2 MiB, QEMU's limit
	// minExtendedClusterBits: a subcluster, 1/32 of a cluster, has 512 bytes.
	minExtendedClusterBits = 14

	// MaxL1Bytes is QEMU's limit, in bytes, on an L1 table, and so on the
	// memory that one takes here.
	MaxL1Bytes = 32 << 20
	// maxRefcountTableBytes is QEMU's limit on the refcount table.
	maxRefcountTableBytes = 8 << 20
)

const (
	magic           = 0x514649fb // "QFI\xfb"
	headerLengthV2  = 72
	headerLengthV3  = 104
	headerLengthMax = 112 // of the fields known here
	sectorSize      = 512
)

// The incompatible feature bits. The reader knows no others.
const (
	incompatDirty = 1 << iota
	incompatCorrupt
	incompatDataFile
	incompatCompression
	incompatExtendedL2
)

const (
	compatLazyRefcounts = 1 << 0
	autoclearBitmaps    = 1 << 0 // the bitmaps are consistent with the data
	autoclearRawData    = 1 << 1
)

// compression is the type of all compressed clusters of an image.
type compression uint8

const (
	compressionZlib compression = 0 // raw deflate, in truth
	compressionZstd compression = 1
)

func (c compression) String() string {
	if c == compressionZstd {
		return "zstd"
	}
	return "zlib"
}

// header is the first structure of an image, all of it big-endian
// (docs/interop/qcow2.rst, "Header"). What is not kept here is checked only.
//
//	offset  size
//	     0     4  magic, "QFI\xfb"
//	     4     4  version, 2 or 3
//	     8     8  backing_file_offset, in the first cluster; 0: none
//	    16     4  backing_file_size, at most 1023
//	    20     4  cluster_bits
//	    24     8  size, virtual, in bytes
//	    32     4  crypt_method: 0 none, 1 AES, 2 LUKS
//	    36     4  l1_size, entries
//	    40     8  l1_table_offset
//	    48     8  refcount_table_offset
//	    56     4  refcount_table_clusters
//	    60     4  nb_snapshots
//	    64     8  snapshots_offset
//	    72     8  incompatible_features   (version 3 from here on)
//	    80     8  compatible_features
//	    88     8  autoclear_features
//	    96     4  refcount_order, 0 to 6
//	   100     4  header_length, 104 or more, a multiple of 8
//	   104     1  compression_type        (if header_length covers it)
//	   105     7  padding
type header struct {
	version         uint32
	backingOffset   uint64
	backingSize     uint32
	clusterBits     uint32
	size            int64
	cryptMethod     uint32
	l1Size          uint32
	l1Offset        uint64
	refTableOffset  uint64
	refTableCount   uint32 // clusters
	nbSnapshots     uint32
	snapshotsOffset uint64
	incompatible    uint64
	compatible      uint64
	autoclear       uint64
	refcountOrder   uint32
	length          uint32
	compression     compression

	rawSize       uint64 // the size field, before it is checked
	backingFile   string
	backingFormat string
	dataFile      string
	bitmaps       bitmapExtension
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// external reports whether the data clusters are in another file.
func (h *header) external() bool { return h.incompatible&incompatDataFile != 0 }

// l2EntrySize is the size in bytes of an entry of an L2 table.
func (h *header) l2EntrySize() int64 {
	if h.incompatible&incompatExtendedL2 != 0 {
		return 16
	}
	return 8
}

func (h *header) info() Info {
	return Info{
		Version:       int(h.version),
		Size:          h.size,
		ClusterSize:   h.clusterSize(),
		Compression:   h.compression.String(),
		RefcountBits:  1 << h.refcountOrder,
		ExtendedL2:    h.incompatible&incompatExtendedL2 != 0,
		LazyRefcounts: h.compatible&compatLazyRefcounts != 0,
		Dirty:         h.incompatible&incompatDirty != 0,
		BackingFile:   h.backingFile,
		BackingFormat: h.backingFormat,
		ExternalData:  h.external(),
		DataFile:      h.dataFile,
		RawDataFile:   h.autoclear&autoclearRawData != 0,
		Bitmaps:       int(h.bitmaps.count),
		Snapshots:     int(h.nbSnapshots),
	}
}

// readHeader reads and checks the header with its extensions. Whether what it
// points to lies in the file is checked by what follows the pointer.
func readHeader(r io.ReaderAt, fileSize int64) (*header, error) {
	buf := make([]byte, min(max(fileSize, 0), headerLengthMax))
	if err := ondisk.ReadFull(r, buf, 0); err != nil {
		return nil, layer.Unreadable("header", 0, err)
	}
	h, err := parseHeader(buf)
	if err != nil {
		return nil, err
	}
	for _, check := range []func(*header) error{checkGeometry, checkFeatures, checkTables} {
		if err := check(h); err != nil {
			return nil, err
		}
	}
	if err := h.readExtensions(r, fileSize); err != nil {
		return nil, err
	}
	if err := h.readBackingName(r, fileSize); err != nil {
		return nil, err
	}
	return h, nil
}

func parseHeader(buf []byte) (*header, error) {
	c := ondisk.NewCursor(buf, binary.BigEndian)
	if m := c.U32(); c.Err() == nil && m != magic {
		return nil, ondisk.Layer{Name: layer.Name, Repair: "is this disk's format raw?"}.Damaged("header", 0, "the magic number is %#x, not %#x", m, magic)
	}
	h := &header{version: c.U32(), refcountOrder: 4, length: headerLengthV2}
	h.backingOffset = c.U64()
	h.backingSize = c.U32()
	h.clusterBits = c.U32()
	h.rawSize = c.U64()
	h.cryptMethod = c.U32()
	h.l1Size = c.U32()
	h.l1Offset = c.U64()
	h.refTableOffset = c.U64()
	h.refTableCount = c.U32()
	h.nbSnapshots = c.U32()
	h.snapshotsOffset = c.U64()
	if err := c.Err(); err != nil {
		return nil, layer.Damaged("header", 0, "the file ends within it")
	}
	switch h.version {
	case 2:
		return h, nil
	case 3:
		return h, parseVersion3(h, c)
	}
	return nil, layer.Unsupported("header", 4, "", "version %d; 2 and 3 are supported", h.version)
}

// parseVersion3 takes the fields that version 2 does not have.
func parseVersion3(h *header, c *ondisk.Cursor) error {
	h.incompatible = c.U64()
	h.compatible = c.U64()
	h.autoclear = c.U64()
	h.refcountOrder = c.U32()
	h.length = c.U32()
	if c.Err() != nil {
		return layer.Damaged("header", 0, "the file ends within it")
	}
	if h.length < headerLengthV3 || h.length%8 != 0 {
		return layer.Damaged("header", 100, "header_length is %d, not a multiple of 8 that is at least %d", h.length, headerLengthV3)
	}
	if h.length >= headerLengthMax {
		h.compression = compression(c.U8())
		c.Skip(7)
		if c.Err() != nil {
			return layer.Damaged("header", 0, "the file ends within it")
		}
	}
	return nil
}

func checkGeometry(h *header) error {
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		return layer.Damaged("header", 20, "cluster_bits is %d, only %d to %d is possible", h.clusterBits, minClusterBits, maxClusterBits)
	}
	if int64(h.length) > h.clusterSize() {
		return layer.Damaged("header", 100, "header_length is %d, more than a cluster", h.length)
	}
	if h.refcountOrder > 6 {
		return layer.Damaged("header", 96, "refcount_order is %d, at most 6 is possible", h.refcountOrder)
	}
	if h.incompatible&incompatExtendedL2 != 0 && h.clusterBits < minExtendedClusterBits {
		return layer.Damaged("header", 20, "cluster_bits is %d, but extended L2 entries need %d", h.clusterBits, minExtendedClusterBits)
	}
	// The largest L1 table maps less than 1<<62 bytes, so the size fits.
	if limit := MaxL1Bytes / 8 * h.l1Coverage(); h.rawSize > uint64(limit) {
		return layer.Beyond("header", 24, "size is %d bytes, clusters of %d bytes can map %d", h.rawSize, h.clusterSize(), limit)
	}
	h.size = int64(h.rawSize) / sectorSize * sectorSize
	return nil
}

// l1Coverage is how many bytes of the guest's disk an L1 entry maps.
func (h *header) l1Coverage() int64 {
	return h.clusterSize() / h.l2EntrySize() * h.clusterSize()
}

// checkTables checks the pointers to the tables of the active state, as far as
// that goes without knowing what is to be read.
func checkTables(h *header) error {
	if !h.aligned(h.refTableOffset) {
		return layer.Damaged("header", 48, "refcount_table_offset is %#x, not aligned to clusters", h.refTableOffset)
	}
	if h.refTableCount == 0 {
		return layer.Damaged("header", 56, "there is no refcount table")
	}
	if int64(h.refTableCount) > max(maxRefcountTableBytes/h.clusterSize(), 1) {
		return layer.Beyond("header", 56, "a refcount table of %d clusters", h.refTableCount)
	}
	if !h.aligned(h.l1Offset) {
		return layer.Damaged("header", 40, "l1_table_offset is %#x, not aligned to clusters", h.l1Offset)
	}
	if h.l1Size > MaxL1Bytes/8 {
		return layer.Beyond("header", 36, "an L1 table of %d entries, at most %d is possible", h.l1Size, MaxL1Bytes/8)
	}
	return nil
}

func (h *header) aligned(off uint64) bool { return off&uint64(h.clusterSize()-1) == 0 }
