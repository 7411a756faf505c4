package newimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The structures of ext4 that are changed (Documentation/filesystems/ext4). All
// numbers are little-endian.
//
//	superblock, at 1024                     group descriptor
//	0x14  4  s_first_data_block             0x08  4  bg_inode_table_lo
//	0x18  4  s_log_block_size               0x28  4  bg_inode_table_hi
//	0x28  4  s_inodes_per_group             inode
//	0x38  2  s_magic                        0x20  4  i_flags
//	0x58  2  s_inode_size                   0x28 60  i_block: the extents' root
//	0x60  4  s_feature_incompat             0x64  4  i_generation
//	0x64  4  s_feature_ro_compat            0x7c  2  l_i_checksum_lo
//	0x68 16  s_uuid                         0x80  2  i_extra_isize
//	0xfe  2  s_desc_size                    0x82  2  i_checksum_hi
//	0x270 4  s_checksum_seed
//
//	ext4_extent_header                      ext4_extent, ext4_extent_idx
//	0  2  eh_magic                          0  4  ee_block            ei_block
//	2  2  eh_entries                        4  2  ee_len              4  ei_leaf_lo
//	4  2  eh_max                            6  2  ee_start_hi
//	6  2  eh_depth                          8  4  ee_start_lo         2  ei_leaf_hi
//
// Behind the eh_max entries of a block of extents are 4 bytes of checksum.
const (
	ext4Magic     = 0xef53
	extentMagic   = 0xf30a
	maxExtentTree = 5       // eh_depth
	maxWritten    = 1 << 15 // ee_len above it is of blocks that were not written

	incompat64Bit     = 0x80
	incompatMetaBG    = 0x10
	incompatCSumSeed  = 0x2000
	roMetadataCSum    = 0x400
	inodeExtents      = 0x80000
	extentEntry       = 12 // also of the header, in bytes
	inodeRoot         = 0x28
	inodeRootSize     = 60
	inodeChecksumLo   = 0x7c
	inodeChecksumHi   = 0x82
	goodOldInode      = 128
	maxInodeSize      = blockSize
	superblock        = 1024
	superblockSize    = 1024
	superblockLog4096 = 2
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errExtents = errors.New("the extents that debugfs made are not as they should be")
)

// ext4Sum is the checksum of ext4, which is not inverted at its ends.
func ext4Sum(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli, p) }

// readWriterAt is the image of a filesystem that this package has made.
type readWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// extents changes the extents of files in a filesystem that mke2fs and debugfs have
// made a moment ago, with blocks of [blockSize].
type extents struct {
	image     readWriterAt
	perGroup  uint64
	inodeSize int
	descSize  int64
	sums      bool // it has metadata_csum
	seed      uint32
}

func openExtents(image readWriterAt) (*extents, error) {
	var sb [superblockSize]byte
	if _, err := image.ReadAt(sb[:], superblock); err != nil {
		return nil, err
	}
	incompat := le.Uint32(sb[0x60:])
	e := &extents{
		image: image, perGroup: uint64(le.Uint32(sb[0x28:])), inodeSize: int(le.Uint16(sb[0x58:])), descSize: 32,
		sums: le.Uint32(sb[0x64:])&roMetadataCSum != 0, seed: ext4Sum(^uint32(0), sb[0x68:0x78]),
	}
	if incompat&incompat64Bit != 0 {
		e.descSize = int64(le.Uint16(sb[0xfe:]))
	}
	if incompat&incompatCSumSeed != 0 {
		e.seed = le.Uint32(sb[0x270:])
	}
	switch {
	case le.Uint16(sb[0x38:]) != ext4Magic, le.Uint32(sb[0x18:]) != superblockLog4096, le.Uint32(sb[0x14:]) != 0,
		e.perGroup == 0, e.inodeSize < goodOldInode, e.inodeSize > maxInodeSize, e.descSize < 32, e.descSize > blockSize:
		return nil, fmt.Errorf("%w: the superblock", errExtents)
	case incompat&incompatMetaBG != 0:
		return nil, fmt.Errorf("%w: mke2fs has used meta_bg", errExtents)
	}
	return e, nil
}

// write marks all blocks of inode ino as written, and tells which they are: n blocks
// of the file from block on are those of the disk from at on.
func (e *extents) write(ino uint64, tell func(block, at, n int64)) error {
	off, err := e.inodeAt(ino)
	if err != nil {
		return err
	}
	inode := make([]byte, e.inodeSize)
	if _, err := e.image.ReadAt(inode, off); err != nil {
		return err
	}
	if le.Uint32(inode[0x20:])&inodeExtents == 0 {
		return fmt.Errorf("%w: there are none", errExtents)
	}
	var number [4]byte
	le.PutUint32(number[:], uint32(ino))
	seed := ext4Sum(ext4Sum(e.seed, number[:]), inode[0x64:0x68])
	root := inode[inodeRoot : inodeRoot+inodeRootSize]
	if err := e.node(root, seed, maxExtentTree+1, tell); err != nil {
		return err
	}
	if e.sums {
		sumInode(inode, seed)
	}
	_, err = e.image.WriteAt(inode, off)
	return err
}

func (e *extents) inodeAt(ino uint64) (int64, error) {
	if ino == 0 || ino > 1<<32-1 {
		return 0, fmt.Errorf("%w: its number", errExtents)
	}
	group, index := (ino-1)/e.perGroup, (ino-1)%e.perGroup
	desc := make([]byte, e.descSize)
	if _, err := e.image.ReadAt(desc, blockSize+int64(group)*e.descSize); err != nil {
		return 0, err
	}
	table := int64(le.Uint32(desc[0x08:]))
	if e.descSize >= 64 {
		table |= int64(le.Uint32(desc[0x28:])&0xffff) << 32
	}
	return table*blockSize + int64(index)*int64(e.inodeSize), nil
}

// node marks the extents of one node of the tree, whose depth is below limit.
func (e *extents) node(p []byte, seed uint32, limit uint16, tell func(block, at, n int64)) error {
	entries, depth := int(le.Uint16(p[2:])), le.Uint16(p[6:])
	if le.Uint16(p) != extentMagic || (entries+1)*extentEntry > len(p) || depth >= limit {
		return fmt.Errorf("%w: the head of a node", errExtents)
	}
	for i := range entries {
		x := p[(i+1)*extentEntry:][:extentEntry]
		if depth > 0 {
			at := int64(le.Uint32(x[4:])) | int64(le.Uint16(x[8:]))<<32
			if err := e.block(at, seed, depth, tell); err != nil {
				return err
			}
			continue
		}
		n := le.Uint16(x[4:])
		if n > maxWritten {
			n -= maxWritten
			le.PutUint16(x[4:], n)
		}
		tell(int64(le.Uint32(x)), int64(le.Uint32(x[8:]))|int64(le.Uint16(x[6:]))<<32, int64(n))
	}
	return nil
}

// block marks the extents in a block of the tree.
func (e *extents) block(at int64, seed uint32, limit uint16, tell func(block, at, n int64)) error {
	p := make([]byte, blockSize)
	if _, err := e.image.ReadAt(p, at*blockSize); err != nil {
		return err
	}
	if err := e.node(p, seed, limit, tell); err != nil {
		return err
	}
	if e.sums {
		tail := (int(le.Uint16(p[4:])) + 1) * extentEntry
		if tail+4 > len(p) {
			return fmt.Errorf("%w: a node has no room for its checksum", errExtents)
		}
		le.PutUint32(p[tail:], ext4Sum(seed, p[:tail]))
	}
	_, err := e.image.WriteAt(p, at*blockSize)
	return err
}

// sumInode puts the checksum into an inode.
func sumInode(inode []byte, seed uint32) {
	le.PutUint16(inode[inodeChecksumLo:], 0)
	high := len(inode) > goodOldInode && le.Uint16(inode[0x80:]) >= 4
	if high {
		le.PutUint16(inode[inodeChecksumHi:], 0)
	}
	sum := ext4Sum(seed, inode)
	le.PutUint16(inode[inodeChecksumLo:], uint16(sum))
	if high {
		le.PutUint16(inode[inodeChecksumHi:], uint16(sum>>16))
	}
}
