package fusefs

import (
	"math/bits"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// valid is how long the kernel may believe what it was told: the disk does not
// change.
const valid = 365 * 24 * time.Hour

// filesystem answers the kernel's requests. What it does not implement is refused
// with ENOSYS, after which the kernel does not ask again.
type filesystem struct {
	fuse.RawFileSystem
	reporter

	fsys     disk.Filesystem
	info     disk.FilesystemInfo
	listings listings
	handles  handles
	contents recent[disk.Sparse]
	xattrs   recent[[]disk.Xattr]
	blocks   recent[uint64]
}

func newFilesystem(fsys disk.Filesystem, report func(uint64, error)) *filesystem {
	return &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		reporter:      reporter{report: report, seen: make(map[uint64]struct{})},
		fsys:          fsys,
		info:          fsys.Info(),
		listings:      newListings(fsys),
	}
}

func (fs *filesystem) String() string { return "drydock" }

// node returns the number by which the kernel knows an inode, and the inode of
// such a number: it is the same number, but that the kernel's root is 1, which
// changes places with the filesystem's.
func (fs *filesystem) node(ino uint64) uint64 {
	switch ino {
	case fs.info.Root:
		return fuse.FUSE_ROOT_ID
	case fuse.FUSE_ROOT_ID:
		return fs.info.Root
	}
	return ino
}

// Lookup finds a name in a directory. One that is not there is told with a node
// number of 0, which the kernel remembers.
func (fs *filesystem) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := fs.node(header.NodeId)
	l := fs.listings.get(dir)
	ino, ok := l.find(name)
	if !ok {
		if l.err != nil {
			return fs.status(dir, l.err)
		}
		out.SetEntryTimeout(valid)
		return fuse.OK
	}
	return fs.entry(ino, out)
}

// entry tells all about an inode.
func (fs *filesystem) entry(ino uint64, out *fuse.EntryOut) fuse.Status {
	n, err := fs.fsys.Inode(ino)
	if err != nil {
		return fs.status(ino, err)
	}
	out.NodeId, out.Generation = fs.node(ino), uint64(n.Generation)
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
	fs.attributes(&n, &out.Attr)
	return fuse.OK
}

func (fs *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ino := fs.node(in.NodeId)
	n, err := fs.fsys.Inode(ino)
	if err != nil {
		return fs.status(ino, err)
	}
	out.SetTimeout(valid)
	fs.attributes(&n, &out.Attr)
	return fuse.OK
}

func (fs *filesystem) attributes(n *disk.Inode, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino: n.Ino, Size: uint64(n.Size), Blocks: fs.blocksOf(n), Mode: n.Mode, Nlink: n.Links,
		Owner: fuse.Owner{Uid: n.UID, Gid: n.GID}, Rdev: deviceNumber(n.Rdev), Blksize: fs.blockSize(),
		Atime: uint64(n.Access.Sec), Atimensec: n.Access.Nsec,
		Mtime: uint64(n.Modify.Sec), Mtimensec: n.Modify.Nsec,
		Ctime: uint64(n.Change.Sec), Ctimensec: n.Change.Nsec,
	}
}

// deviceNumber encodes a device number as Linux's new_encode_dev does: bits 8 to
// 19 are the major number, the others the minor.
func deviceNumber(d disk.Device) uint32 {
	return d.Minor&0xff | d.Major&0xfff<<8 | d.Minor&^0xff<<12
}

// blockSize is the filesystem's, where the kernel can have it: it wants a power
// of two, and programs take it as the size of their buffers.
func (fs *filesystem) blockSize() uint32 {
	if b := fs.info.BlockSize; b >= 512 && b <= maxTransfer && bits.OnesCount64(uint64(b)) == 1 {
		return uint32(b)
	}
	return 4096
}

// Statx is asked when a program wants the time of birth.
func (fs *filesystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	ino := fs.node(in.NodeId)
	n, err := fs.fsys.Inode(ino)
	if err != nil {
		return fs.status(ino, err)
	}
	out.SetTimeout(valid)
	out.Statx = fuse.Statx{
		Mask: statxBasic, Blksize: fs.blockSize(), Nlink: n.Links, Uid: n.UID, Gid: n.GID, Mode: uint16(n.Mode),
		Ino: n.Ino, Size: uint64(n.Size), Blocks: fs.blocksOf(&n),
		Atime: statxTime(n.Access), Mtime: statxTime(n.Modify), Ctime: statxTime(n.Change),
		RdevMajor: n.Rdev.Major, RdevMinor: n.Rdev.Minor,
	}
	if n.Birth != (disk.Time{}) {
		out.Mask |= statxBirth
		out.Btime = statxTime(n.Birth)
	}
	return fuse.OK
}

// The masks of statx(2).
const (
	statxBasic = 0x7ff
	statxBirth = 0x800
)

func statxTime(t disk.Time) fuse.SxTime { return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }

// maxTarget is Linux's limit on the target of a symlink, in bytes.
const maxTarget = 4095

func (fs *filesystem) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	ino := fs.node(header.NodeId)
	target, err := fs.fsys.Readlink(ino)
	if err != nil {
		return nil, fs.status(ino, err)
	}
	if len(target) > maxTarget {
		return nil, fuse.Status(unix.ENAMETOOLONG)
	}
	return target, fuse.OK
}

// StatFs tells the sizes. Nothing is free, since nothing can be written.
func (fs *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	b := fs.blockSize()
	*out = fuse.StatfsOut{
		Blocks: uint64(fs.info.Size) / uint64(b), Bsize: b, Frsize: b,
		Files: fs.info.InodeCount, NameLen: maxNameLength,
	}
	return fuse.OK
}

// Flush is not needed; see [filesystem].
func (fs *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }
