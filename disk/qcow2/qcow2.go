// Package qcow2 reads qcow2 disk images, as QEMU's docs/interop/qcow2.rst
// describes them, without trusting a byte of them.
//
// It supports versions 2 and 3, every cluster size from 512 bytes to 2 MiB,
// zlib and zstd compressed clusters, zero clusters, extended L2 entries with
// subclusters, backing files, external data files, and internal snapshots. It
// refuses by name: encryption, images marked corrupt, and feature bits that it
// does not know.
//
// It promises to return what the guest would read or a [disk.Error]; never to
// open a path (other files are given by the caller, whatever the image says);
// to keep its memory within the caches of [Options], as much again as the second
// of them for what is read ahead, the L1 table (at most [MaxL1Bytes]) and some
// clusters for each read under way; and to be safe for concurrent use. What is
// read ahead may still be under way for a moment after the last ReadAt; it ends
// by itself.
//
// Besides the content it tells what is where: [Image.Extents] and [Image.Map] what
// is known without reading, [Image.Locate] the places in the files below, and
// [Image.DirtyRanges] what was written to since a persistent bitmap was made.
//
// An internal snapshot stays right while QEMU writes to the active state of the
// same file, because no cluster that a snapshot refers to is ever written again:
// the header, the snapshot table and the snapshot's L1 table are read once by
// [Open], and nothing of the active state is looked at afterwards. No snapshot
// of the file may be taken or dropped while Open runs, nor may the one that is
// read be dropped.
package qcow2

import (
	"io"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "qcow2", Repair: "stop the VM and run `qemu-img check` on the image"}

// Options says what to read of an image, and with how much memory.
type Options struct {
	// Snapshot is the id or the name of the internal snapshot to read, bytes
	// as the image keeps them. Empty: the active state. An id is looked for
	// before a name, as QEMU does.
	Snapshot string

	// Backing is what the image lies on top of. It is given if, and only if,
	// the image names a backing file (see [Info]): QEMU goes by that name, so
	// anything else would not be what the guest sees.
	Backing disk.Sparse

	// DataFile is where the data of the image lies, if it is not in the image
	// itself. It is given if, and only if, the image says so (see [Info]).
	DataFile disk.Sparse

	// L2CacheBytes and ClusterCacheBytes bound the caches of mapping tables
	// and of decompressed clusters. 0 means [DefaultL2CacheBytes] and
	// [DefaultClusterCacheBytes], less than 0 means no cache.
	L2CacheBytes, ClusterCacheBytes int64
}

// The default cache budgets, in bytes.
const (
	// DefaultL2CacheBytes maps 64 GiB of guest disk in 64 KiB clusters.
	DefaultL2CacheBytes = 8 << 20
	// DefaultClusterCacheBytes is 8 of the largest clusters, 256 of the usual.
	DefaultClusterCacheBytes = 16 << 20
)

// Info describes an image. Strings are hostile bytes.
type Info struct {
	Version       int    // 2 or 3
	Size          int64  // virtual size in bytes of the active state
	ClusterSize   int64  // bytes, 512 to 2 MiB
	Compression   string // "zlib" or "zstd", whether or not a cluster uses it
	RefcountBits  int    // 1 to 64
	ExtendedL2    bool   // clusters have subclusters
	LazyRefcounts bool
	// Dirty is the dirty bit: the image was not closed, so its reference
	// counts may be wrong. That does not matter to reading.
	Dirty bool

	BackingFile   string // as the image names it; empty if there is none
	BackingFormat string // "raw", "qcow2"; empty if the image does not say

	ExternalData bool   // the data is in a file of its own
	DataFile     string // as the image names it; empty if it does not say
	RawDataFile  bool   // that file is the disk, byte for byte

	Bitmaps   int // number of dirty bitmaps, as the header has it; see [Image.Bitmaps]
	Snapshots int // number of internal snapshots
}

// Image is an open image, or one internal snapshot of it. It implements
// [disk.Sparse].
type Image struct {
	r         io.ReaderAt
	header    *header
	snapshots []Snapshot
	size      int64 // bytes of the state that is read
	// ofSnapshot: that state is an internal snapshot's.
	ofSnapshot bool

	mapping  *mapping
	backing  disk.Sparse          // nil if there is none
	dataFile disk.Sparse          // nil if the data is in r
	clusters *cache.Cache[uint64] // decompressed, by the L2 entry that leads to them
	codec    decompressor
	workers  workers
	streams  *streams    // nil where nothing is read ahead
	packed   atomic.Bool // a compressed cluster has been seen
}

// Inspect reads what [Options] depends on, the header and the snapshot table,
// without mapping any data: it works without the backing file. size is the
// length of r in bytes.
func Inspect(r io.ReaderAt, size int64) (Info, []Snapshot, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return Info{}, nil, err
	}
	snapshots, err := readSnapshots(r, size, h)
	if err != nil {
		return Info{}, nil, err
	}
	return h.info(), snapshots, nil
}

// Open reads the first size bytes of r as a qcow2 image. The caller keeps r, and
// the backing file, open for as long as the image is used. size is the length of
// the file: r may grow behind it.
func Open(r io.ReaderAt, size int64, opts Options) (*Image, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	snapshots, err := readSnapshots(r, size, h)
	if err != nil {
		return nil, err
	}
	if err := checkFiles(h, opts); err != nil {
		return nil, err
	}
	state, err := chooseState(h, size, snapshots, opts.Snapshot)
	if err != nil {
		return nil, err
	}
	m, err := newMapping(r, size, h, state, opts.DataFile)
	if err != nil {
		return nil, err
	}
	m.slices = cache.New[uint64](budget(opts.L2CacheBytes, DefaultL2CacheBytes))
	codec, err := newDecompressor(h.compression)
	if err != nil {
		return nil, err
	}
	clusterBudget := budget(opts.ClusterCacheBytes, DefaultClusterCacheBytes)
	im := &Image{
		r:          r,
		header:     h,
		snapshots:  snapshots,
		size:       state.size,
		ofSnapshot: opts.Snapshot != "",
		mapping:    m,
		backing:    opts.Backing,
		dataFile:   opts.DataFile,
		clusters:   cache.New[uint64](clusterBudget),
		codec:      codec,
		streams:    newStreams(clusterBudget, h.clusterSize()),
	}
	im.workers.work = im.work
	return im, nil
}

// Size returns the virtual size in bytes of the state that is read. The size of
// an image is whole sectors of 512 bytes: QEMU does not show a guest the rest.
func (im *Image) Size() int64 { return im.size }

// Info describes the image.
func (im *Image) Info() Info { return im.header.info() }

// Snapshots lists the internal snapshots, in the order of the image.
func (im *Image) Snapshots() []Snapshot { return im.snapshots }

// state is one L1 table with the size of disk that it maps: the active state of
// an image, or a snapshot's.
type state struct {
	name     string // for errors: "L1 table", "L1 table of snapshot \"x\""
	l1Offset uint64
	l1Size   uint32 // entries
	size     int64  // bytes
	// short allows the L1 table to map less than size.
	short bool
}

// chooseState returns the active state, or that of the snapshot named. The
// active state's refcount table must lie in the file, as QEMU demands, although
// reading does not use it. With a snapshot that is not asked for: the table of a
// running VM may have moved behind the length of the file that the caller saw.
func chooseState(h *header, fileSize int64, snapshots []Snapshot, name string) (state, error) {
	if name != "" {
		return snapshotState(snapshots, name)
	}
	length := uint64(h.refTableCount) << h.clusterBits
	if h.refTableOffset < uint64(h.clusterSize()) || !ondisk.WithinU(h.refTableOffset, length, uint64(fileSize)) {
		return state{}, layer.Damaged("header", 48, "the refcount table, %d bytes at %#x, is not in the file", length, h.refTableOffset)
	}
	return state{name: "L1 table", l1Offset: h.l1Offset, l1Size: h.l1Size, size: h.size}, nil
}

// checkFiles checks that the files that the image consists of, and no others,
// were given.
func checkFiles(h *header, opts Options) error {
	const extra = "QEMU would not use it: take it out of this disk's declaration"
	switch {
	case h.backingFile != "" && opts.Backing == nil:
		return layer.Unsupported("backing file", ondisk.Nowhere,
			"declare the backing file of this disk, or make the image self-contained with `qemu-img rebase -b ''`",
			"the image lies on top of %q (format %q), which was not given", h.backingFile, h.backingFormat)
	case h.backingFile == "" && opts.Backing != nil:
		return layer.Unsupported("backing file", ondisk.Nowhere, extra, "the image is self-contained, but a backing file was given")
	case h.external() && opts.DataFile == nil:
		return layer.Unsupported("external data file", ondisk.Nowhere,
			"make the image self-contained with `qemu-img convert -O qcow2`",
			"the data is in %q, which was not given", h.dataFile)
	case !h.external() && opts.DataFile != nil:
		return layer.Unsupported("external data file", ondisk.Nowhere, extra, "the data is in the image, but a data file was given")
	case h.external() && opts.Snapshot != "":
		return layer.Unsupported("external data file", ondisk.Nowhere, "",
			"internal snapshots do not keep data that is in another file")
	}
	return nil
}

func budget(bytes, byDefault int64) int64 {
	if bytes == 0 {
		return byDefault
	}
	return max(bytes, 0)
}
