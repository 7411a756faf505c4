package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// Filesystem is an open ext2, ext3 or ext4 filesystem. All methods are safe
// for concurrent use.
type Filesystem struct {
	sb       *superblock
	dev      *device
	groups   groupTable
	changes  *changes // of fast commits, or nil
	replayed counts
	// last is the inode that was asked for last; nil while a replay changes
	// inodes.
	last *atomic.Pointer[inode]
}

var (
	_ disk.Filesystem = (*Filesystem)(nil)
	_ disk.Usage      = (*Filesystem)(nil)
	_ disk.Locator    = (*file)(nil)
	_ disk.Locator    = (*inlineFile)(nil)
)

// Recognise reports whether d carries the magic number of an ext2, ext3 or
// ext4 superblock. It checks nothing else: that is [Open]'s work.
func Recognise(d disk.Sparse) (bool, error) {
	var magic [2]byte
	err := ondisk.ReadFull(d, magic[:], superblockOffset+magicOffset)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // too small for a superblock
	}
	if err != nil {
		return false, layer.Unreadable("superblock", superblockOffset, err)
	}
	return binary.LittleEndian.Uint16(magic[:]) == superblockMagic, nil
}

// Open reads the superblock of the filesystem on d, checks it, and replays the
// journal in memory if it has to. d must stay readable, and its content must
// not change, as long as the Filesystem is in use.
func Open(d disk.Sparse, opts Options) (*Filesystem, error) {
	if opts.CacheSize <= 0 {
		opts.CacheSize = defaultCacheSize
	}
	fs := &Filesystem{dev: &device{disk: d, cache: cache.New[span](opts.CacheSize)}}
	if err := fs.readSuperblock(); err != nil {
		return nil, err
	}
	if fs.sb.incompat&incompatRecover != 0 {
		if err := fs.replayJournal(opts); err != nil {
			return nil, err
		}
	}
	fs.last = new(atomic.Pointer[inode])
	root, err := fs.file(rootInode)
	if err != nil {
		return nil, err
	}
	if root.Type() != disk.ModeDir {
		return nil, layer.Damaged(inodeName(rootInode), ondisk.Nowhere, "the root is not a directory: mode %#o", root.Mode)
	}
	return fs, nil
}

func (fs *Filesystem) readSuperblock() error {
	var raw [superblockSize]byte
	if err := fs.dev.readAt(raw[:], superblockOffset); err != nil {
		return layer.Unreadable("superblock", superblockOffset, err)
	}
	sb, err := parseSuperblock(raw[:], fs.dev.disk.Size())
	if err != nil {
		return err
	}
	fs.sb = sb
	fs.dev.blockSize = sb.blockSize()
	return nil
}

// replayJournal replays the journal. What was read so far may be out of date.
func (fs *Filesystem) replayJournal(opts Options) error {
	r, err := fs.replay()
	if err != nil {
		return err
	}
	blockSize := fs.sb.blockSize()
	fs.dev = &device{disk: fs.dev.disk, blockSize: blockSize, replaced: r.blocks, cache: cache.New[span](opts.CacheSize)}
	fs.groups = groupTable{}
	fs.replayed = r.counts
	before := fs.sb.errors
	if err := fs.readSuperblock(); err != nil {
		return err
	}
	if fs.sb.errors.count == 0 { // the kernel writes these past the journal
		fs.sb.errors = before
	}
	if fs.sb.blockSize() != blockSize {
		return sbDamaged("the journal changes the block size")
	}
	if len(r.fast) > 0 {
		return fs.applyFast(r.fast)
	}
	return nil
}

// Replayed returns how many transactions and how many fast commits of the
// journal were replayed: more than zero means that the guest did not unmount
// cleanly.
func (fs *Filesystem) Replayed() (transactions, fastCommits int) {
	return fs.replayed.transactions, fs.replayed.fastCommits
}

// Info implements [disk.Filesystem].
func (fs *Filesystem) Info() disk.FilesystemInfo {
	label, _, _ := bytes.Cut(fs.sb.label[:], []byte{0})
	return disk.FilesystemInfo{
		Type:       fs.sb.kind(),
		Label:      bytes.Clone(label),
		UUID:       fs.sb.uuid,
		Root:       rootInode,
		BlockSize:  fs.sb.blockSize(),
		Size:       int64(fs.sb.blockCount) << fs.sb.blockShift,
		InodeCount: uint64(fs.sb.inodeCount),
		Remarks:    fs.remarks(),
	}
}

// Inode implements [disk.Filesystem].
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	n, err := fs.file(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	return n.Inode, nil
}
