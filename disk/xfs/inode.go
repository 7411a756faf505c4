package xfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const inodeMagic = 0x494e // "IN"

// inodeChunk is how much is read at once where inodes are: what a directory's
// files need is mostly together, and a miss must stay cheap.
const inodeChunk = 16 << 10

// Inode flags (di_flags).
const (
	flagRealtime  = 0x1
	flagImmutable = 0x8
	flagAppend    = 0x10
	flagNoDump    = 0x80
)

// More inode flags (di_flags2).
const (
	flag2Reflink  = 0x2
	flag2Bigtime  = 0x8
	flag2Nrext64  = 0x10
	flag2Metadata = 0x20
)

const (
	maxNanoseconds = 999_999_999
	inodeCRC       = 100
	maxSymlink     = 1024
)

// inode is one inode, parsed and verified. Nobody changes it then.
//
// Layout ("Inode Core"):
//
//	0 2 di_magic        48 8 di_ctime         90 2 di_flags
//	2 2 di_mode         56 8 di_size          92 4 di_gen
//	4 1 di_version      64 8 di_nblocks       96 4 di_next_unlinked
//	5 1 di_format       72 4 di_extsize       100 4 di_crc, little endian
//	6 2 di_onlink       76 4 di_nextents      104 8 di_changecount
//	8 4 di_uid          80 2 di_anextents     112 8 di_lsn
//	12 4 di_gid         82 1 di_forkoff       120 8 di_flags2
//	16 4 di_nlink       83 1 di_aformat       144 8 di_crtime
//	32 8 di_atime       84 6 for DMAPI        152 8 di_ino
//	40 8 di_mtime                             160 16 di_uuid
//
// From 100 on only in version 3 of inodes, which version 5 of XFS has. With
// nrext64, 24 8 is the number of extents, and 76 4 that of the attributes'.
type inode struct {
	disk.Inode
	version byte
	flags   uint16
	flags2  uint64
	data    fork
	attr    fork
	hasAttr bool
}

// file returns inode ino if it is one that a directory entry may name. Whoever
// walks a tree asks for each several times in a row.
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
	for _, reserved := range fs.sb.reserved {
		if ino == reserved {
			return nil, layer.Absent(inodeName(ino), "it is reserved for the filesystem")
		}
	}
	if !fs.sb.validInode(ino) {
		return nil, layer.Absent(inodeName(ino), "the filesystem has no place for it")
	}
	first, end, err := fs.neighboursOf(ino)
	if err != nil {
		return nil, err
	}
	raw, off, err := fs.rawInode(ino, first, end)
	if err != nil {
		return nil, err
	}
	n := &inode{}
	n.Ino = ino
	if err := fs.verifyInode(n, raw, off); err != nil {
		return nil, err
	}
	if err := fs.parseInode(n, raw, off); err != nil {
		return nil, err
	}
	return n, nil
}

// neighboursOf returns which inodes of its group may be read together with ino, which
// is one of them: [first, end). It refuses an inode that is free.
//
// In version 5 an inode says by itself which one it is and whether it is in use, and for
// one that a directory names the kernel looks at nothing else. So there a tree of inodes
// that is damaged costs none of them.
func (fs *Filesystem) neighboursOf(ino uint64) (first, end uint64, err error) {
	sb := fs.sb
	group, within := sb.splitInode(ino)
	perBlock := uint64(1) << (sb.blockShift - sb.inodeShift)
	first, err = fs.chunkOf(ino)
	end = first + inodesPerChunk
	switch {
	case err == nil && end <= sb.agLength(uint32(group))*perBlock:
		return first, end, nil
	case err == nil: // a sparse chunk may go beyond the end of the group
	case !sb.checksummed || errors.Is(err, disk.ErrNotExist):
		return 0, 0, err
	default:
		why := err
		fs.badTree.CompareAndSwap(nil, &why)
	}
	first = within &^ (perBlock - 1)
	return first, first + perBlock, nil
}

// chunkForm is of runs of inodes, each of which is verified by itself.
var chunkForm = &form{}

// rawInode reads an inode together with its neighbours.
func (fs *Filesystem) rawInode(ino, first, end uint64) ([]byte, int64, error) {
	sb := fs.sb
	group, within := sb.splitInode(ino)
	step := uint64(max(sb.blockSize(), inodeChunk)) >> sb.inodeShift
	first += (within - first) / step * step
	start := sb.offset(group << sb.agShift)
	count := min(step, end-first)
	key := blockKey{chunkForm, start + int64(first)<<sb.inodeShift, int(count) << sb.inodeShift}
	off := start + int64(within)<<sb.inodeShift
	data := fs.dev.cache.Get(key)
	if data == nil {
		data = make([]byte, key.length)
		if _, err := fs.dev.readAt(data, key.off); err != nil {
			return nil, 0, layer.Unreadable(inodeName(ino), off, err)
		}
		fs.dev.cache.Add(key, data)
	}
	return data[off-key.off:][:sb.inodeSize()], off, nil
}

// verifyInode settles that raw is the inode that it should be, and in use.
func (fs *Filesystem) verifyInode(n *inode, raw []byte, off int64) error {
	damaged := func(format string, args ...any) error {
		return layer.Damaged(inodeName(n.Ino), off, format, args...)
	}
	if magic := binary.BigEndian.Uint16(raw); magic != inodeMagic {
		return damaged("the magic number is %#04x, not %#04x", magic, inodeMagic)
	}
	n.version = raw[4]
	if fs.sb.checksummed {
		if n.version != 3 {
			return damaged("version %d of inodes in version 5 of XFS", n.version)
		}
		if got, want := checksum(raw, inodeCRC), binary.LittleEndian.Uint32(raw[inodeCRC:]); got != want {
			return damaged("checksum is %#08x, the inode says %#08x", got, want)
		}
		if ino := binary.BigEndian.Uint64(raw[152:]); ino != n.Ino {
			return damaged("the inode says that it is %d", ino)
		}
		if !bytes.Equal(raw[160:176], fs.sb.metaUUID[:]) {
			return damaged("it belongs to filesystem %x, this one is %x", raw[160:176], fs.sb.metaUUID)
		}
	} else if n.version != 1 && n.version != 2 {
		return damaged("version %d of inodes in version 4 of XFS", n.version)
	}
	if binary.BigEndian.Uint16(raw[2:]) == 0 {
		return layer.Absent(inodeName(n.Ino), "it is not in use, though something refers to it")
	}
	return nil
}

// core is what of an inode's fixed fields needs more than to be read.
type core struct {
	size, blocks                  uint64
	access, modify, change, birth uint64
	forkOffset                    int
}

func (fs *Filesystem) parseInode(n *inode, raw []byte, off int64) error {
	k, err := n.readCore(raw)
	if err != nil {
		return layer.Damaged(inodeName(n.Ino), off, "%v", err)
	}
	n.Flags = chattrFlags(n.flags)
	if k.size > math.MaxInt64 {
		return layer.Damaged(inodeName(n.Ino), off, "its size is %d", k.size)
	}
	n.Size = int64(k.size)
	if err := fs.checkInode(n, off, k.blocks); err != nil {
		return err
	}
	if err := n.setTimes(off, &k); err != nil {
		return err
	}
	if err := fs.setForks(n, raw, off, k.forkOffset); err != nil {
		return err
	}
	return n.checkFormat(off)
}

func (n *inode) readCore(raw []byte) (k core, err error) {
	c := ondisk.NewCursor(raw, binary.BigEndian)
	c.Skip(2)
	n.Mode = uint32(c.U16())
	c.Skip(1)
	n.data.format = c.U8()
	oldLinks := uint32(c.U16())
	n.UID, n.GID, n.Links = c.U32(), c.U32(), c.U32()
	c.Skip(4) // project
	manyExtents := c.U64()
	k.access, k.modify, k.change = c.U64(), c.U64(), c.U64()
	k.size, k.blocks = c.U64(), c.U64()
	c.Skip(4) // di_extsize
	extents, attrExtents := c.U32(), c.U16()
	k.forkOffset = int(c.U8())
	n.attr.format = c.U8()
	c.Skip(6)
	n.flags, n.Generation = c.U16(), c.U32()
	if n.version == 3 {
		c.Seek(120)
		n.flags2 = c.U64()
		c.Seek(144)
		k.birth = c.U64()
	}
	if n.version == 1 {
		n.Links = oldLinks
	}
	n.data.count, n.attr.count = uint64(extents), uint64(attrExtents)
	if n.flags2&flag2Nrext64 != 0 {
		n.data.count, n.attr.count = manyExtents, uint64(extents)
	}
	return k, c.Err()
}

// checkInode checks what does not depend on the forks.
func (fs *Filesystem) checkInode(n *inode, off int64, blocks uint64) error {
	damaged := func(format string, args ...any) error {
		return layer.Damaged(inodeName(n.Ino), off, format, args...)
	}
	switch {
	case n.Links == 0:
		return damaged("it has no links, though something refers to it")
	case n.Links > math.MaxInt32:
		return damaged("it has %d links", n.Links)
	case n.flags2&flag2Bigtime != 0 && fs.sb.incompat&incompatBigtime == 0:
		return damaged("times of the form bigtime, which the filesystem does not have")
	case n.flags2&flag2Nrext64 != 0 && fs.sb.incompat&incompatNrext64 == 0:
		return damaged("counters of the form nrext64, which the filesystem does not have")
	case n.flags2&flag2Reflink != 0 && (fs.sb.ro&roReflink == 0 || n.Type() != disk.ModeRegular):
		return damaged("it says that it shares blocks, but it cannot")
	case n.flags2&flag2Metadata != 0:
		return damaged("it belongs to a metadata directory, which the filesystem does not have")
	case n.data.count > blocks || n.attr.count > blocks-n.data.count:
		return damaged("%d and %d extents of %d blocks", n.data.count, n.attr.count, blocks)
	}
	return nil
}

// setForks finds the forks: behind the fixed fields that of the data, and at
// eight times di_forkoff behind it that of the attributes, if not 0.
func (fs *Filesystem) setForks(n *inode, raw []byte, off int64, forkOffset int) error {
	area := raw[fs.sb.literal():]
	n.attr.attr = true
	if forkOffset == 0 {
		n.data.raw = area
		if n.attr.count != 0 || n.attr.format != formatExtents && n.attr.format != 0 {
			return layer.Damaged(inodeName(n.Ino), off, "attributes of format %d in %d extents, without a fork", n.attr.format, n.attr.count)
		}
		return nil
	}
	if forkOffset*8 >= len(area) {
		return layer.Damaged(inodeName(n.Ino), off, "the attributes are said to be at %d of %d bytes", forkOffset*8, len(area))
	}
	n.data.raw, n.attr.raw, n.hasAttr = area[:forkOffset*8], area[forkOffset*8:], true
	switch n.attr.format {
	case formatLocal:
		if n.attr.count != 0 {
			return layer.Damaged(inodeName(n.Ino), off, "attributes in the inode, and in %d extents", n.attr.count)
		}
	case formatExtents, formatTree:
	default:
		return layer.Damaged(inodeName(n.Ino), off, "attributes of format %d", n.attr.format)
	}
	return nil
}

// checkFormat checks that the data fork is as the file's type has it.
func (n *inode) checkFormat(off int64) error {
	switch n.Type() {
	case disk.ModeBlock, disk.ModeChar, disk.ModeFIFO, disk.ModeSocket:
		if n.data.format != formatDevice {
			break
		}
		if n.Type() == disk.ModeBlock || n.Type() == disk.ModeChar {
			// As IRIX had it: 14 bits and 18.
			v := binary.BigEndian.Uint32(n.data.raw)
			n.Rdev = disk.Device{Major: v >> 18, Minor: v & (1<<18 - 1)}
		}
		return nil
	case disk.ModeRegular, disk.ModeDir, disk.ModeSymlink:
		switch n.data.format {
		case formatLocal:
			if n.Type() != disk.ModeRegular {
				return n.checkLocal(off)
			}
		case formatExtents, formatTree:
			return nil
		}
	default:
		return layer.Damaged(inodeName(n.Ino), off, "mode %#o has no known file type", n.Mode)
	}
	return layer.Damaged(inodeName(n.Ino), off, "mode %#o with format %d", n.Mode, n.data.format)
}

func (n *inode) checkLocal(off int64) error {
	if n.Size > int64(len(n.data.raw)) || n.data.count != 0 {
		return layer.Damaged(inodeName(n.Ino), off, "%d bytes in the inode, which has room for %d, and %d extents", n.Size, len(n.data.raw), n.data.count)
	}
	return nil
}

func chattrFlags(flags uint16) disk.InodeFlags {
	var f disk.InodeFlags
	if flags&flagNoDump != 0 {
		f |= disk.FlagNoDump
	}
	if flags&flagImmutable != 0 {
		f |= disk.FlagImmutable
	}
	if flags&flagAppend != 0 {
		f |= disk.FlagAppend
	}
	return f
}

func (n *inode) setTimes(off int64, k *core) error {
	n.Access, n.Modify, n.Change = n.time(k.access), n.time(k.modify), n.time(k.change)
	if n.version == 3 {
		n.Birth = n.time(k.birth)
	}
	for _, t := range [...]disk.Time{n.Access, n.Modify, n.Change, n.Birth} {
		if t.Nsec > maxNanoseconds {
			return layer.Damaged(inodeName(n.Ino), off, "a time has %d nanoseconds", t.Nsec)
		}
	}
	return nil
}

// time decodes a time: 4 seconds, 4 nanoseconds; or, with bigtime, nanoseconds
// since 2^31 seconds before 1970.
func (n *inode) time(v uint64) disk.Time {
	if n.flags2&flag2Bigtime != 0 {
		return disk.Time{Sec: int64(v/1e9) - 1<<31, Nsec: uint32(v % 1e9)}
	}
	return disk.Time{Sec: int64(int32(v >> 32)), Nsec: uint32(v)}
}
