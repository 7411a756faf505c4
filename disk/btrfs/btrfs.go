package btrfs

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
)

const defaultCacheSize = 24 << 20

// TopLevel is the ID of the subvolume in which all others lie.
const TopLevel = fsTree

// Options tunes [Open]. The zero value is good.
type Options struct {
	// CacheSize is how many bytes of tree blocks and decompressed content are
	// kept in memory; 0 means 24 MiB.
	CacheSize int64

	// SubvolumeID is the subvolume whose root directory is the filesystem's; 0
	// means the default one. All others are where [TopLevel] has them.
	SubvolumeID uint64
	// Subvolume is the path of that below the top level, as for the option
	// subvol of mount(8). It is used where SubvolumeID is 0.
	Subvolume string
}

// Filesystem is an open btrfs filesystem. All methods are safe for concurrent
// use.
type Filesystem struct {
	*volume
	contents *cache.Cache[stored] // decompressed extents

	roots    *tree
	csums    *tree  // nil where there is none
	csumsErr error  // why
	start    uint64 // inode number of the root directory

	chosen    uint64 // ID of the default subvolume
	chosenErr error  // why it is not known

	replayed int
	info     disk.FilesystemInfo

	log     map[uint64]*changes // by subvolume
	logSums sumRanges           // those of the log
	logUsed addressRanges       // what the log takes and refers to

	last atomic.Pointer[inode] // that was asked for last

	mu         sync.Mutex // guards subvolumes
	subvolumes map[uint64]*subvolume
}

var (
	_ disk.Filesystem      = (*Filesystem)(nil)
	_ disk.SubvolumeLister = (*Filesystem)(nil)
	_ disk.Usage           = (*Filesystem)(nil)
)

// Open reads the filesystem on devices, which are given in any order. One that
// is missing is an error only where nothing else has what lies on it. The devices
// must stay readable, and their content must not change, as long as the
// Filesystem is in use.
func Open(devices []disk.Sparse, opts Options) (*Filesystem, error) {
	if opts.CacheSize <= 0 {
		opts.CacheSize = defaultCacheSize
	}
	sb, members, err := gather(devices)
	if err != nil {
		return nil, err
	}
	fs := &Filesystem{
		volume:     &volume{sb: sb, devices: members, nodes: cache.New[uint64](opts.CacheSize * 3 / 4)},
		contents:   cache.New[stored](opts.CacheSize / 4),
		subvolumes: make(map[uint64]*subvolume),
	}
	if err := fs.bootstrap(); err != nil {
		return nil, err
	}
	fs.roots = &tree{volume: fs.volume, name: "tree of roots", owner: rootTree, root: sb.root}
	fs.csums, fs.csumsErr = fs.openTree(csumTree, "checksum tree")
	fs.chosen, fs.chosenErr = fs.defaultSubvolume()
	if sb.logRoot.block != 0 {
		if err := fs.replay(); err != nil {
			return nil, err
		}
	}
	if err := fs.chooseRoot(opts); err != nil {
		return nil, err
	}
	fs.describe()
	return fs, nil
}

// chooseRoot sets start, and checks that there is a directory.
func (fs *Filesystem) chooseRoot(opts Options) error {
	id := opts.SubvolumeID
	var err error
	switch {
	case id != 0:
	case opts.Subvolume != "":
		id, err = fs.findSubvolume(opts.Subvolume)
	default:
		id, err = fs.chosen, fs.chosenErr
	}
	if err != nil {
		return err
	}
	if _, err := fs.subvolume(id); err != nil {
		return err
	}
	fs.start = makeIno(id, subvolumeRoot)
	root, err := fs.file(fs.start)
	if err != nil {
		return err
	}
	if root.Type() != disk.ModeDir {
		return layer.Damaged(root.name(), root.at, "the root is not a directory: mode %#o", root.Mode)
	}
	return nil
}

// Replayed returns how many files the log changed: more than zero means that the
// guest did not unmount cleanly.
func (fs *Filesystem) Replayed() int { return fs.replayed }

func (sb *superblock) labelBytes() []byte {
	label, _, _ := bytes.Cut(sb.label[:], []byte{0})
	return bytes.Clone(label)
}

// Info implements [disk.Filesystem].
func (fs *Filesystem) Info() disk.FilesystemInfo {
	info := fs.info
	info.Label, info.Remarks = bytes.Clone(info.Label), slices.Clone(info.Remarks)
	return info
}

// describe makes what Info returns.
func (fs *Filesystem) describe() {
	fs.info = disk.FilesystemInfo{
		Type: "btrfs", Label: fs.sb.labelBytes(), UUID: fs.sb.fsid, Root: fs.start,
		BlockSize: int64(fs.sb.sectorSize), Size: int64(fs.sb.totalBytes), Remarks: fs.sb.remarks(),
	}
	remark := func(format string, args ...any) {
		fs.info.Remarks = append(fs.info.Remarks, fmt.Sprintf(format, args...))
	}
	if fs.replayed > 0 {
		remark("the log was replayed in memory: %d files", fs.replayed)
	}
	for i := range fs.devices {
		if d := &fs.devices[i]; d.stale {
			remark("device %d missed writes and is not used", d.item.id)
		}
	}
	for _, id := range fs.missing() {
		remark("device %d is missing: all is read from the other copies", id)
	}
}
