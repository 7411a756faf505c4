package btrfs

import (
	"fmt"
	"math"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxObject bounds the numbers of inodes in a subvolume: the bits that an inode
// number leaves for them. The last [disk.MaxIno]>>[disk.SubvolumeShift] stand for
// subvolumes that are not there, see stub.go.
const (
	maxObject = 1<<disk.SubvolumeShift - 1
	firstStub = maxObject - maxSubvolumeID
)

// The inode flags that matter, and where another word of flags begins.
const (
	flagNoDataSum = 1 << 0
	flagImmutable = 1 << 6
	flagAppend    = 1 << 7
	flagNoDump    = 1 << 8
)

// inode is a file: its attributes and where it lies.
//
// Layout of struct btrfs_inode_item, little endian:
//
//	0x00 8 generation   0x20 8 block_group   0x38 8 rdev       0x70 12 atime
//	0x08 8 transid      0x28 4 nlink         0x40 8 flags      0x7C 12 ctime
//	0x10 8 size         0x2C 4 uid           0x48 8 sequence   0x88 12 mtime
//	0x18 8 nbytes       0x30 4 gid           0x50 32 reserved  0x94 12 otime
//	                    0x34 4 mode
//
// A time is 8 bytes of seconds and 4 of nanoseconds.
type inode struct {
	disk.Inode
	volume *subvolume
	object uint64 // the inode's number in the subvolume
	flags  uint64
	at     int64 // of the inode item, for errors
}

const (
	inodeItemSize = 160
	sizeOffset    = 0x10
	linksOffset   = 0x28
	modeOffset    = 0x34
)

func inodeName(subvolume, object uint64) string {
	return fmt.Sprintf("inode %d of subvolume %d", object, subvolume)
}

func (n *inode) name() string { return inodeName(n.volume.id, n.object) }

// makeIno makes the number under which others know an inode.
func makeIno(subvolume, object uint64) uint64 { return subvolume<<disk.SubvolumeShift | object }

// file returns inode ino. Whoever walks a tree asks for each several times in a row.
func (fs *Filesystem) file(ino uint64) (*inode, error) {
	if n := fs.last.Load(); n != nil && n.Ino == ino {
		return n, nil
	}
	n, err := fs.readInode(ino)
	if err != nil {
		return nil, err
	}
	fs.last.Store(n)
	return n, nil
}

func (fs *Filesystem) readInode(ino uint64) (*inode, error) {
	id, object := ino>>disk.SubvolumeShift, ino&maxObject
	if ino >= disk.MaxIno || object < firstFree {
		return nil, layer.Absent(fmt.Sprintf("inode %d", ino), "no file has that number")
	}
	s, err := fs.subvolume(id)
	if err != nil {
		return nil, err
	}
	if object >= firstStub {
		return fs.stub(s, object)
	}
	v, err := s.get(key{object, kindInode, 0})
	if err != nil {
		return nil, err
	}
	if v.raw == nil {
		return nil, layer.Absent(inodeName(id, object), "there is no such inode")
	}
	return s.parseInode(object, v)
}

// parseInode reads and checks an inode item.
func (s *subvolume) parseInode(object uint64, v value) (*inode, error) {
	if len(v.raw) != inodeItemSize {
		return nil, layer.Damaged(inodeName(s.id, object), v.at, "it has %d bytes, not %d", len(v.raw), inodeItemSize)
	}
	c := newCursor(v.raw)
	n := &inode{volume: s, object: object, at: v.at}
	n.Ino = makeIno(s.id, object)
	n.Generation = uint32(c.U64())
	c.Seek(sizeOffset)
	size := c.U64()
	c.Seek(linksOffset)
	n.Links, n.UID, n.GID, n.Mode = c.U32(), c.U32(), c.U32(), c.U32()
	rdev := c.U64()
	n.flags = c.U64()
	c.Seek(0x70)
	for _, t := range []*disk.Time{&n.Access, &n.Change, &n.Modify, &n.Birth} {
		t.Sec, t.Nsec = int64(c.U64()), c.U32()
		if t.Nsec >= 1e9 {
			t.Nsec = 0 // Linux shows what is there; nobody could set it
		}
	}
	if size > math.MaxInt64 {
		return nil, layer.Damaged(n.name(), n.at, "a size of %d bytes", size)
	}
	n.Size = int64(size)
	if n.Flags = s.marks(object); n.Flags != 0 {
		n.Subvolume = uint32(s.id) // at most maxSubvolumeID
	}
	switch n.Type() {
	case disk.ModeChar, disk.ModeBlock:
		// The kernel's own form of a device number: 12 bits and 20.
		n.Rdev = disk.Device{Major: uint32(rdev) >> 20, Minor: uint32(rdev) & (1<<20 - 1)}
	case disk.ModeRegular, disk.ModeDir, disk.ModeSymlink, disk.ModeFIFO, disk.ModeSocket:
	default:
		return nil, layer.Damaged(n.name(), n.at, "mode %#o", n.Mode)
	}
	for _, f := range []struct {
		bit  uint64
		flag disk.InodeFlags
	}{{flagNoDump, disk.FlagNoDump}, {flagImmutable, disk.FlagImmutable}, {flagAppend, disk.FlagAppend}} {
		if n.flags&f.bit != 0 {
			n.Flags |= f.flag
		}
	}
	return n, nil
}

// marks are the flags that an inode has as the root of its subvolume.
func (s *subvolume) marks(object uint64) disk.InodeFlags {
	if object != subvolumeRoot || s.id == TopLevel {
		return 0
	}
	marks := disk.FlagSubvolume
	if s.item.flags&rootReadOnly != 0 {
		marks |= disk.FlagReadOnly
	}
	if s.isDefault {
		marks |= disk.FlagDefault
	}
	return marks
}

// Inode implements [disk.Filesystem].
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	n, err := fs.file(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	return n.Inode, nil
}

// Readlink implements [disk.Filesystem].
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeSymlink {
		return nil, layer.Absent(n.name(), "mode %#o is not a symlink", n.Mode)
	}
	if n.Size == 0 || n.Size > maxTarget {
		return nil, layer.Damaged(n.name(), n.at, "a symlink of %d bytes, 1 to %d are possible", n.Size, maxTarget)
	}
	target := make([]byte, n.Size)
	if err := ondisk.ReadFull(newFile(fs, n), target, 0); err != nil {
		return nil, err
	}
	for _, b := range target {
		if b == 0 {
			return nil, layer.Damaged(n.name(), n.at, "the target of a symlink has NUL in it")
		}
	}
	return target, nil
}

// maxTarget is the longest target of a symlink that Linux can follow: PATH_MAX
// without the NUL.
const maxTarget = 4095
