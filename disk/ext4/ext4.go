package ext4

import (
	"github.com/drydock-vm/drydock/disk"
)

// Options tunes [Open]. The zero value is good.
type Options struct {
	// CacheSize is how many bytes of metadata blocks are kept in memory;
	// 0 means 8 MiB.
	CacheSize int64
}

// Filesystem is an open ext2, ext3 or ext4 filesystem. All methods are safe
// for concurrent use.
type Filesystem struct {
}

var _ disk.Filesystem = (*Filesystem)(nil)

// Recognise reports whether d carries the magic number of an ext2, ext3 or
// ext4 superblock. It checks nothing else: that is [Open]'s work.
func Recognise(d disk.Sparse) (bool, error) { return false, nil }

// Open reads the superblock of the filesystem on d, checks it, and replays the
// journal in memory if it has to. d must stay readable, and its content must
// not change, as long as the Filesystem is in use.
func Open(d disk.Sparse, opts Options) (*Filesystem, error) { return nil, disk.ErrUnsupported }

// Replayed returns how many transactions of the journal were replayed: more
// than zero means that the guest did not unmount cleanly.
func (fs *Filesystem) Replayed() int { return 0 }

// Info implements [disk.Filesystem].
func (fs *Filesystem) Info() disk.FilesystemInfo { return disk.FilesystemInfo{} }

// Inode implements [disk.Filesystem].
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) { return disk.Inode{}, nil }

// ReadDir implements [disk.Filesystem].
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error { return nil }

// Readlink implements [disk.Filesystem].
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) { return nil, nil }

// Xattrs implements [disk.Filesystem].
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) { return nil, nil }

// Open implements [disk.Filesystem].
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) { return nil, nil }
