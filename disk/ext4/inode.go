package ext4

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// inodeChunk is how much of an inode table is read at once: what a directory's
// files need is mostly together, and a miss must stay cheap.
const inodeChunk int64 = 16 << 10

// The inode flags that matter here (i_flags).
const (
	flagImmutable  = 0x10
	flagAppend     = 0x20
	flagNoDump     = 0x40
	flagEncrypt    = 0x800
	flagIndex      = 0x1000
	flagHugeFile   = 0x40000
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagCasefold   = 0x40000000
)

const maxNanoseconds = 999_999_999

// inode is one inode, parsed and verified.
//
// Layout (Documentation/filesystems/ext4/inodes.rst), little endian:
//
//	0x00 2 i_mode          0x24 4 osd1             0x80 2 i_extra_isize
//	0x02 2 i_uid           0x28 60 i_block         0x82 2 i_checksum_hi
//	0x04 4 i_size_lo       0x64 4 i_generation     0x84 4 i_ctime_extra
//	0x08 4 i_atime         0x68 4 i_file_acl_lo    0x88 4 i_mtime_extra
//	0x0C 4 i_ctime         0x6C 4 i_size_high      0x8C 4 i_atime_extra
//	0x10 4 i_mtime         0x70 4 i_obso_faddr     0x90 4 i_crtime
//	0x14 4 i_dtime         0x74 2 i_blocks_high    0x94 4 i_crtime_extra
//	0x18 2 i_gid           0x76 2 i_file_acl_high  0x98 4 i_version_hi
//	0x1A 2 i_links_count   0x78 2 i_uid_high       0x9C 4 i_projid
//	0x1C 4 i_blocks_lo     0x7A 2 i_gid_high
//	0x20 4 i_flags         0x7C 2 i_checksum_lo
type inode struct {
	disk.Inode
	flags   uint32
	sectors uint64   // i_blocks, in 512-byte units
	xattrs  uint64   // block of the extended attributes, or 0
	seed    checksum // of the structures that belong to this inode
	block   [blockFieldSize]byte
	raw     []byte // all of it, shared with the cache
	end     int    // where the fixed fields end: 128 + i_extra_isize
}

const (
	linksOffset        = 0x1a
	flagsOffset        = 0x20
	blockFieldOffset   = 0x28
	blockFieldSize     = 60
	generationOffset   = 0x64
	extraSizeOffset    = 0x80
	checksumLowOffset  = 0x7c
	checksumHighOffset = 0x82
)

func inodeName(ino uint64) string { return fmt.Sprintf("inode %d", ino) }

// file returns inode ino if it is one that a directory entry may name. Whoever
// walks a tree asks for each several times in a row.
func (fs *Filesystem) file(ino uint64) (*inode, error) {
	if fs.last == nil {
		return fs.readFile(ino)
	}
	if n := fs.last.Load(); n != nil && n.Ino == ino {
		return n, nil
	}
	n, err := fs.readFile(ino)
	if err != nil {
		return nil, err
	}
	fs.last.Store(n)
	return n, nil
}

func (fs *Filesystem) readFile(ino uint64) (*inode, error) {
	if fs.reserved(ino) {
		return nil, layer.Absent(inodeName(ino), "it is reserved for the filesystem")
	}
	n, err := fs.inode(ino)
	if err != nil {
		return nil, err
	}
	if n.flags&flagEAInode != 0 {
		return nil, layer.Absent(inodeName(ino), "it holds an extended attribute, not a file")
	}
	return n, nil
}

// reserved reports whether ino is an inode that no directory entry may name.
func (fs *Filesystem) reserved(ino uint64) bool {
	return ino < uint64(fs.sb.firstInode) && ino != rootInode
}

// inode reads and verifies any inode in use.
func (fs *Filesystem) inode(ino uint64) (*inode, error) {
	raw, off, err := fs.rawInode(ino)
	if err != nil {
		return nil, err
	}
	changed := fs.changes.inode(ino)
	if changed != nil {
		raw = changed.raw(raw)
	}
	n := &inode{raw: raw}
	n.Ino = ino
	n.Links = uint32(binary.LittleEndian.Uint16(n.raw[linksOffset:]))
	if n.Links == 0 {
		// A free inode need not have a checksum.
		return nil, layer.Absent(inodeName(ino), "it is not in use, though something refers to it")
	}
	if err := n.setEnd(off); err != nil {
		return nil, err
	}
	n.seed = fs.sb.seed.addUint32(uint32(ino)).add(n.raw[generationOffset : generationOffset+4])
	if fs.sb.hasChecksum() && changed == nil { // the checksum of the fast commit covers the others
		if err := n.verify(off); err != nil {
			return nil, err
		}
	}
	if err := fs.parseInode(n, off); err != nil {
		return nil, err
	}
	return n, nil
}

// rawInode returns an inode as it is on disk, and its byte offset there.
func (fs *Filesystem) rawInode(ino uint64) ([]byte, int64, error) {
	if ino == 0 || ino > uint64(fs.sb.inodeCount) {
		return nil, 0, layer.Absent(inodeName(ino), "the filesystem has inodes 1 to %d", fs.sb.inodeCount)
	}
	where, at, err := fs.inodeSpan(uint32(ino))
	if err != nil {
		return nil, 0, err
	}
	off := where.off + int64(at)
	chunk, err := fs.dev.metadata(where)
	if err != nil {
		return nil, 0, layer.Unreadable(inodeName(ino), off, err)
	}
	return chunk[at : at+fs.sb.inodeSize], off, nil
}

// setEnd settles where the inode's fixed fields end.
func (n *inode) setEnd(off int64) error {
	n.end = oldInodeSize
	if len(n.raw) > oldInodeSize {
		extra := int(binary.LittleEndian.Uint16(n.raw[extraSizeOffset:]))
		if extra%4 != 0 || oldInodeSize+extra > len(n.raw) {
			return layer.Damaged(inodeName(n.Ino), off, "i_extra_isize is %d in an inode of %d bytes", extra, len(n.raw))
		}
		n.end += extra
	}
	return nil
}

// verify checks the inode's checksum.
func (n *inode) verify(off int64) error {
	want := uint32(binary.LittleEndian.Uint16(n.raw[checksumLowOffset:]))
	mask := uint32(math.MaxUint16)
	got := n.seed.addWithout(n.raw[:oldInodeSize], checksumLowOffset, 2)
	if n.end >= checksumHighOffset+2 {
		want |= uint32(binary.LittleEndian.Uint16(n.raw[checksumHighOffset:])) << 16
		mask = math.MaxUint32
		got = got.addWithout(n.raw[oldInodeSize:], checksumHighOffset-oldInodeSize, 2)
	} else {
		got = got.add(n.raw[oldInodeSize:])
	}
	if uint32(got)&mask != want {
		return layer.Damaged(inodeName(n.Ino), off, "checksum is %#08x, the inode says %#08x", uint32(got)&mask, want)
	}
	return nil
}

func (fs *Filesystem) parseInode(n *inode, off int64) error {
	c := ondisk.NewCursor(n.raw, binary.LittleEndian)
	n.Mode = uint32(c.U16())
	uid := uint32(c.U16())
	sizeLow := c.U32()
	access, change, modify := c.U32(), c.U32(), c.U32()
	c.Skip(4) // deletion time
	gid := uint32(c.U16())
	c.Skip(2) // links
	blocksLow := c.U32()
	n.flags = c.U32()
	c.Skip(4) // osd1
	copy(n.block[:], c.Bytes(blockFieldSize))
	n.Generation = c.U32()
	xattrsLow := c.U32()
	sizeHigh := c.U32()
	c.Skip(4) // fragment address
	blocksHigh, xattrsHigh := c.U16(), c.U16()
	n.UID = uid | uint32(c.U16())<<16
	n.GID = gid | uint32(c.U16())<<16
	if c.Err() != nil {
		return layer.Damaged(inodeName(n.Ino), off, "%v", c.Err())
	}

	n.xattrs = uint64(xattrsLow)
	if fs.sb.incompat&incompat64Bit != 0 {
		n.xattrs |= uint64(xattrsHigh) << 32
	}
	n.sectors = fs.sectors(n.flags, blocksLow, blocksHigh)
	n.Flags = chattrFlags(n.flags)
	if err := fs.setSize(n, off, sizeLow, sizeHigh); err != nil {
		return err
	}
	if err := setTimes(n, off, access, change, modify); err != nil {
		return err
	}
	switch n.Type() {
	case disk.ModeBlock, disk.ModeChar:
		n.Rdev = deviceNumber(&n.block)
	case disk.ModeRegular, disk.ModeDir, disk.ModeSymlink, disk.ModeFIFO, disk.ModeSocket:
	default:
		return layer.Damaged(inodeName(n.Ino), off, "mode %#o has no known file type", n.Mode)
	}
	return nil
}

// sectors is i_blocks, whose unit and width depend on huge_file.
func (fs *Filesystem) sectors(flags, low uint32, high uint16) uint64 {
	if fs.sb.ro&roHugeFile == 0 {
		return uint64(low)
	}
	n := uint64(high)<<32 | uint64(low)
	if flags&flagHugeFile != 0 {
		n <<= fs.sb.blockShift - 9
	}
	return n
}

func (fs *Filesystem) setSize(n *inode, off int64, low, high uint32) error {
	size := uint64(low)
	// In other types, the upper half is a leftover of ext2's directory ACLs.
	if n.Type() == disk.ModeRegular || fs.sb.incompat&incompatLargeDir != 0 && n.Type() == disk.ModeDir {
		size |= uint64(high) << 32
	}
	if limit := fs.maxFileSize(n); size > limit {
		return layer.Damaged(inodeName(n.Ino), off, "its size is %d, at most %d is possible", size, limit)
	}
	n.Size = int64(size)
	return nil
}

func chattrFlags(flags uint32) disk.InodeFlags {
	var f disk.InodeFlags
	for _, pair := range [...]struct {
		bit  uint32
		flag disk.InodeFlags
	}{
		{flagNoDump, disk.FlagNoDump},
		{flagImmutable, disk.FlagImmutable},
		{flagAppend, disk.FlagAppend},
		{flagEncrypt, disk.FlagEncrypted},
	} {
		if flags&pair.bit != 0 {
			f |= pair.flag
		}
	}
	return f
}

// setTimes joins the classic times with their extra halves, where the inode is
// large enough to have them.
func setTimes(n *inode, off int64, access, change, modify uint32) error {
	n.Change = joinTime(change, n.extra(0x84))
	n.Modify = joinTime(modify, n.extra(0x88))
	n.Access = joinTime(access, n.extra(0x8c))
	n.Birth = joinTime(n.extra(0x90), n.extra(0x94))
	for _, t := range [...]disk.Time{n.Change, n.Modify, n.Access, n.Birth} {
		if t.Nsec > maxNanoseconds {
			return layer.Damaged(inodeName(n.Ino), off, "a time has %d nanoseconds", t.Nsec)
		}
	}
	return nil
}

// extra returns the four bytes at offset at of the inode's upper half, or 0
// where this inode's fixed fields end before.
func (n *inode) extra(at int) uint32 {
	if at+4 > n.end {
		return 0
	}
	return binary.LittleEndian.Uint32(n.raw[at:])
}

// joinTime makes a time of a signed 32-bit second and its extra field: two bits
// of 2^32 seconds, thirty of nanoseconds.
func joinTime(sec, extra uint32) disk.Time {
	return disk.Time{Sec: int64(int32(sec)) + int64(extra&3)<<32, Nsec: extra >> 2}
}

// deviceNumber decodes the old form (16 bits) or the new one (12:20 bits).
func deviceNumber(block *[blockFieldSize]byte) disk.Device {
	if old := binary.LittleEndian.Uint32(block[0:]); old != 0 {
		return disk.Device{Major: old >> 8 & 0xff, Minor: old & 0xff}
	}
	v := binary.LittleEndian.Uint32(block[4:])
	return disk.Device{Major: v >> 8 & 0xfff, Minor: v&0xff | v>>12&0xfff00}
}
