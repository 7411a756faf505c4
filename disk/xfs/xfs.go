package xfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const defaultCacheSize = 8 << 20

// Options tunes [Open]. The zero value is good.
type Options struct {
	// CacheSize is how many bytes of metadata blocks are kept in memory;
	// 0 means 8 MiB.
	CacheSize int64
}

// Filesystem is an open XFS filesystem. All methods are safe for concurrent use.
type Filesystem struct {
	sb       *superblock
	dev      *device
	head     lsn // where the log ends: nothing on disk is newer
	replayed int
	intents  intents
	last     atomic.Pointer[inode] // that was read
	badTree  atomic.Pointer[error] // what was wrong with a tree of inodes first
}

var (
	_ disk.Filesystem = (*Filesystem)(nil)
	_ disk.Usage      = (*Filesystem)(nil)
)

// Recognise reports whether d carries the magic number of an XFS superblock. It
// checks nothing else: that is [Open]'s work.
func Recognise(d disk.Sparse) (bool, error) {
	var magic [4]byte
	err := ondisk.ReadFull(d, magic[:], 0)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // too small for a superblock
	}
	if err != nil {
		return false, layer.Unreadable(superblockName, 0, err)
	}
	return binary.BigEndian.Uint32(magic[:]) == superblockMagic, nil
}

// Open reads the superblock of the filesystem on d, checks it, and replays the
// log in memory if it has to. d must stay readable, and its content must not
// change, as long as the Filesystem is in use.
func Open(d disk.Sparse, opts Options) (*Filesystem, error) {
	if opts.CacheSize <= 0 {
		opts.CacheSize = defaultCacheSize
	}
	fs := &Filesystem{dev: &device{disk: d, cache: cache.New[blockKey](opts.CacheSize)}}
	if err := fs.readSuperblock(); err != nil {
		return nil, err
	}
	if err := fs.replayLog(); err != nil {
		return nil, err
	}
	if fs.head.before(lsn(fs.sb.lsn)) {
		return nil, sbDamaged("it is of %v, the log ends at %v", lsn(fs.sb.lsn), fs.head)
	}
	root, err := fs.file(fs.sb.root)
	if err != nil {
		return nil, err
	}
	if root.Type() != disk.ModeDir {
		return nil, layer.Damaged(inodeName(root.Ino), ondisk.Nowhere, "the root is not a directory: mode %#o", root.Mode)
	}
	return fs, nil
}

// readSuperblock reads the first superblock. There is a copy in each group, but
// they are not kept up to date: xfs_repair knows what to do with them.
func (fs *Filesystem) readSuperblock() error {
	var raw [superblockSize]byte
	if _, err := fs.dev.readAt(raw[:], 0); err != nil {
		return layer.Unreadable(superblockName, 0, err)
	}
	sb, err := parseSuperblock(raw[:], fs.dev.disk.Size())
	if err != nil {
		return err
	}
	if sb.checksummed {
		sector := make([]byte, 1<<sb.sectorShift)
		replayed, err := fs.dev.readAt(sector, 0)
		if err != nil {
			return layer.Unreadable(superblockName, 0, err)
		}
		want := binary.LittleEndian.Uint32(sector[superblockCRC:])
		if got := checksum(sector, superblockCRC); got != want && !replayed {
			return sbDamaged("checksum is %#08x, the superblock says %#08x", got, want)
		}
	}
	fs.sb = sb
	return nil
}

// Replayed returns how many transactions of the log were replayed: more than zero
// means that the guest did not unmount cleanly.
func (fs *Filesystem) Replayed() int { return fs.replayed }

// Info implements [disk.Filesystem].
func (fs *Filesystem) Info() disk.FilesystemInfo {
	label, _, _ := bytes.Cut(fs.sb.label[:], []byte{0})
	return disk.FilesystemInfo{
		Type:       "xfs",
		Label:      bytes.Clone(label),
		UUID:       fs.sb.uuid,
		Root:       fs.sb.root,
		BlockSize:  fs.sb.blockSize(),
		Size:       int64(fs.sb.blocks) << fs.sb.blockShift,
		InodeCount: fs.sb.inodeCount,
		Remarks:    fs.remarks(),
	}
}

func (fs *Filesystem) remarks() []string {
	var list []string
	if fs.replayed > 0 {
		list = append(list, fmt.Sprintf("the log was replayed in memory: %d transactions", fs.replayed))
	}
	if n := fs.intents.count(); n > 0 {
		list = append(list, fmt.Sprintf("%d operations were under way when the guest stopped", n))
	}
	if fs.sb.realtimeBlocks > 0 {
		list = append(list, "there is a realtime device: the files on it cannot be read")
	}
	if err := fs.badTree.Load(); err != nil {
		list = append(list, fmt.Sprintf("inodes are read without their tree: %v", *err))
	}
	return list
}

// Inode implements [disk.Filesystem].
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	n, err := fs.file(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	return n.Inode, nil
}
