package xfs

import (
	"encoding/binary"
	"math/bits"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	superblockMagic = 0x58465342 // "XFSB"
	superblockSize  = 272        // what the fields that are used here take
	superblockCRC   = 224
)

// The limits of the format (xfs_fs.h).
const (
	minBlockShift  = 9
	maxBlockShift  = 16
	minSectorShift = 9
	maxSectorShift = 15
	minInodeShift  = 8
	maxInodeShift  = 11
	minAGBlocks    = 64
	maxAGBytes     = 1 << 40
	maxLogBytes    = 1 << 31
	maxInode       = 1<<56 - 1
)

const superblockName = "superblock"

// superblock is what the reader uses of struct xfs_dsb, checked: every method and
// every field can be relied on.
//
// Layout ("Superblocks"), at byte 0 of the filesystem:
//
//	0 4 sb_magicnum      102 2 sb_sectsize    180 4 sb_inoalignmt
//	4 4 sb_blocksize     104 2 sb_inodesize   192 1 sb_dirblklog
//	8 8 sb_dblocks       106 2 sb_inopblock   193 1 sb_logsectlog
//	16 8 sb_rblocks      108 12 sb_fname      194 2 sb_logsectsize
//	32 16 sb_uuid        120 1 sb_blocklog    196 4 sb_logsunit
//	48 8 sb_logstart     121 1 sb_sectlog     200 4 sb_features2
//	56 8 sb_rootino      122 1 sb_inodelog    204 4 sb_bad_features2
//	64 8 sb_rbmino       123 1 sb_inopblog    208 16 sb_features_compat, _ro_compat,
//	72 8 sb_rsumino      124 1 sb_agblklog           _incompat, _log_incompat
//	84 4 sb_agblocks     126 1 sb_inprogress  224 4 sb_crc, little endian
//	88 4 sb_agcount      128 8 sb_icount      232 8 sb_pquotino
//	96 4 sb_logblocks    160 8 sb_uquotino    240 8 sb_lsn
//	100 2 sb_versionnum  168 8 sb_gquotino    248 16 sb_meta_uuid
//	                     179 1 sb_shared_vn
type superblock struct {
	version   int // 4 or 5
	versions  uint16
	features2 uint32

	compat, ro, incompat, logIncompat uint32

	blocks, realtimeBlocks uint64
	agBlocks, agCount      uint32
	agShift                uint // bits of a block number within its group
	blockShift             uint
	sectorShift            uint
	inodeShift             uint
	dirShift               uint // of the blocks that a directory block has
	inodeAlignment         uint32

	logStart    uint64 // block number
	logBlocks   uint32
	logUnit     uint32
	root        uint64
	inodeCount  uint64
	reserved    [5]uint64 // inodes that no directory names
	uuid        [16]byte
	metaUUID    [16]byte // in the structures
	label       [12]byte
	lsn         uint64
	hasFtype    bool
	inProgress  bool
	checksummed bool
}

func sbDamaged(format string, args ...any) error {
	return layer.Damaged(superblockName, 0, format, args...)
}

// parseSuperblock reads the superblock of a disk of diskSize bytes, all but its
// checksum.
func parseSuperblock(raw []byte, diskSize int64) (*superblock, error) {
	sb := &superblock{}
	if err := sb.read(raw); err != nil {
		return nil, err
	}
	if err := sb.checkGeometry(diskSize); err != nil {
		return nil, err
	}
	return sb, nil
}

func (sb *superblock) read(raw []byte) error {
	c := ondisk.NewCursor(raw, binary.BigEndian)
	if magic := c.U32(); magic != superblockMagic {
		return sbDamaged("the magic number is %#08x, not %#08x", magic, uint32(superblockMagic))
	}
	blockSize := c.U32()
	sb.blocks, sb.realtimeBlocks = c.U64(), c.U64()
	c.Skip(8)
	copy(sb.uuid[:], c.Bytes(16))
	sb.logStart, sb.root = c.U64(), c.U64()
	sb.reserved[0], sb.reserved[1] = c.U64(), c.U64()
	c.Skip(4) // sb_rextsize
	sb.agBlocks, sb.agCount = c.U32(), c.U32()
	c.Skip(4) // sb_rbmblocks
	sb.logBlocks = c.U32()
	sb.versions = c.U16()
	sectorSize, inodeSize, inodesPerBlock := c.U16(), c.U16(), c.U16()
	copy(sb.label[:], c.Bytes(12))
	sb.blockShift, sb.sectorShift, sb.inodeShift = uint(c.U8()), uint(c.U8()), uint(c.U8())
	inodesShift := uint(c.U8())
	sb.agShift = uint(c.U8())
	c.Skip(1) // sb_rextslog
	sb.inProgress = c.U8() != 0
	c.Skip(1) // sb_imax_pct
	sb.inodeCount = c.U64()
	c.Seek(160)
	sb.reserved[2], sb.reserved[3] = c.U64(), c.U64()
	c.Skip(3) // sb_qflags, sb_flags
	shared := c.U8()
	sb.inodeAlignment = c.U32()
	c.Skip(8) // sb_unit, sb_width
	sb.dirShift = uint(c.U8())
	logSectorShift := uint(c.U8())
	logSectorSize := c.U16()
	sb.logUnit, sb.features2 = c.U32(), c.U32()
	sb.features2 |= c.U32() // where kernels with another alignment put it
	sb.compat, sb.ro, sb.incompat, sb.logIncompat = c.U32(), c.U32(), c.U32(), c.U32()
	c.Skip(8) // sb_crc, sb_spino_align
	sb.reserved[4], sb.lsn = c.U64(), c.U64()
	copy(sb.metaUUID[:], c.Bytes(16))
	if c.Err() != nil {
		return sbDamaged("%v", c.Err())
	}
	sb.setVersion()
	if err := sb.checkFeatures(); err != nil {
		return err
	}
	return sb.checkShifts(blockSize, uint32(sectorSize), uint32(inodeSize), uint32(inodesPerBlock), inodesShift,
		uint32(logSectorSize), logSectorShift, shared)
}

// setVersion forgets the fields that a filesystem of this version does not have.
func (sb *superblock) setVersion() {
	sb.version = int(sb.versions & versionMask)
	if sb.versions&versionMoreBits == 0 {
		sb.features2 = 0
	}
	sb.checksummed = sb.version == 5
	if !sb.checksummed {
		sb.compat, sb.ro, sb.incompat, sb.logIncompat, sb.lsn = 0, 0, 0, 0, 0
		sb.reserved[4] = 0
		sb.hasFtype = sb.features2&features2Ftype != 0
	} else {
		sb.hasFtype = sb.incompat&incompatFtype != 0
	}
	if sb.incompat&incompatMetaUUID == 0 {
		sb.metaUUID = sb.uuid
	}
}

// checkShifts checks the sizes that the superblock has twice, as a number and
// as a power of two.
func (sb *superblock) checkShifts(block, sector, inode, perBlock uint32, perBlockShift uint, logSector uint32, logSectorShift uint, shared uint8) error {
	minBlock, minInode := uint(minBlockShift), uint(minInodeShift)
	if sb.version == 5 {
		minBlock, minInode = 10, 9
	}
	switch {
	case sb.blockShift < minBlock || sb.blockShift > maxBlockShift || block != 1<<sb.blockShift:
		return sbDamaged("blocks of %d bytes, or 2^%d", block, sb.blockShift)
	case sb.sectorShift < minSectorShift || sb.sectorShift > min(maxSectorShift, sb.blockShift) || sector != 1<<sb.sectorShift:
		return sbDamaged("sectors of %d bytes, or 2^%d, with blocks of %d", sector, sb.sectorShift, block)
	case sb.inodeShift < minInode || sb.inodeShift > min(maxInodeShift, sb.blockShift-1) || inode != 1<<sb.inodeShift:
		return sbDamaged("inodes of %d bytes, or 2^%d, with blocks of %d", inode, sb.inodeShift, block)
	case perBlockShift != sb.blockShift-sb.inodeShift || perBlock != 1<<perBlockShift:
		return sbDamaged("%d inodes of %d bytes in a block of %d", perBlock, inode, block)
	case sb.dirShift > maxBlockShift-sb.blockShift:
		return sbDamaged("directory blocks of 2^%d bytes", sb.dirShift+sb.blockShift)
	case shared != 0:
		return sbDamaged("sb_shared_vn is %d", shared)
	case sb.inProgress:
		return sbDamaged("mkfs.xfs did not finish this filesystem")
	}
	if sb.versions&versionSector != 0 && (logSectorShift < minSectorShift || logSectorShift > maxSectorShift || logSector != 1<<logSectorShift) {
		return sbDamaged("log sectors of %d bytes, or 2^%d", logSector, logSectorShift)
	}
	return nil
}

func (sb *superblock) checkFeatures() error {
	refuse := func(format string, args ...any) error {
		return layer.Unsupported(superblockName, 0, "back this disk up as an image", format, args...)
	}
	known := uint16(versionSupported)
	switch {
	case sb.version != 4 && sb.version != 5:
		return refuse("version %d of XFS", sb.version)
	case sb.versions&^known != 0:
		return refuse("feature %s", ondisk.FeatureNames(uint32(sb.versions&^known), nil, "version"))
	case sb.versions&versionDirV2 == 0:
		return refuse("directories of version 1")
	case sb.features2&^features2Supported != 0:
		return refuse("feature %s", ondisk.FeatureNames(sb.features2&^features2Supported, nil, "features2"))
	case sb.incompat&incompatNeedsRepair != 0:
		return layer.Unsupported(superblockName, 0, layer.Repair, "feature needsrepair: an xfs_repair of this filesystem did not finish")
	case sb.incompat&^incompatSupported != 0:
		return refuse("feature %s", ondisk.FeatureNames(sb.incompat&^incompatSupported, incompatNames, "incompat"))
	case sb.ro&^roSupported != 0:
		return refuse("feature %s", ondisk.FeatureNames(sb.ro&^roSupported, nil, "ro_compat"))
	case sb.compat != 0:
		return refuse("feature %s", ondisk.FeatureNames(sb.compat, nil, "compat"))
	case sb.logIncompat&^logIncompatXattrs != 0:
		return refuse("feature %s", ondisk.FeatureNames(sb.logIncompat&^logIncompatXattrs, nil, "log_incompat"))
	}
	return nil
}

func (sb *superblock) checkGeometry(diskSize int64) error {
	agBytes := uint64(sb.agBlocks) << sb.blockShift
	switch {
	case sb.agCount == 0 || sb.agBlocks < minAGBlocks || agBytes > maxAGBytes:
		return sbDamaged("%d allocation groups of %d blocks", sb.agCount, sb.agBlocks)
	case sb.agShift != uint(bits.Len32(sb.agBlocks-1)):
		return sbDamaged("groups of %d blocks, numbered in %d bits", sb.agBlocks, sb.agShift)
	case sb.blocks > uint64(sb.agCount)*uint64(sb.agBlocks) || sb.blocks < uint64(sb.agCount-1)*uint64(sb.agBlocks)+minAGBlocks:
		return sbDamaged("%d blocks in %d groups of %d", sb.blocks, sb.agCount, sb.agBlocks)
	case sb.blocks > uint64(diskSize)>>sb.blockShift:
		return sbDamaged("the filesystem has %d blocks of %d bytes, but the disk ends after %d bytes", sb.blocks, sb.blockSize(), diskSize)
	case uint64(sb.logBlocks)<<sb.blockShift > maxLogBytes || sb.logBlocks == 0:
		return sbDamaged("a log of %d blocks", sb.logBlocks)
	case sb.logStart != 0 && !sb.validBlocks(sb.logStart, uint64(sb.logBlocks)):
		return sbDamaged("the log, %d blocks from %#x on, is outside", sb.logBlocks, sb.logStart)
	case !sb.validInode(sb.root):
		return sbDamaged("the root is inode %d", sb.root)
	}
	return nil
}

func (sb *superblock) blockSize() int64 { return 1 << sb.blockShift }

func (sb *superblock) inodeSize() int { return 1 << sb.inodeShift }

// literal is where the forks start in an inode: behind its fixed fields.
func (sb *superblock) literal() int {
	if sb.version == 5 {
		return 176
	}
	return 100
}

// agLength is the number of blocks of a group: the last may be shorter.
func (sb *superblock) agLength(group uint32) uint64 {
	if group == sb.agCount-1 {
		return sb.blocks - uint64(group)*uint64(sb.agBlocks)
	}
	return uint64(sb.agBlocks)
}

// validBlocks reports whether count blocks from block on lie in one group.
func (sb *superblock) validBlocks(block, count uint64) bool {
	group := block >> sb.agShift
	return group < uint64(sb.agCount) && ondisk.WithinU(block&(1<<sb.agShift-1), count, sb.agLength(uint32(group)))
}

// offset is where a valid block starts, in bytes.
func (sb *superblock) offset(block uint64) int64 {
	group, within := block>>sb.agShift, block&(1<<sb.agShift-1)
	return int64((group*uint64(sb.agBlocks) + within) << sb.blockShift)
}

// splitInode takes an inode number apart: its group, and its number there.
func (sb *superblock) splitInode(ino uint64) (group uint64, within uint64) {
	shift := sb.agShift + sb.blockShift - sb.inodeShift
	return ino >> shift, ino & (1<<shift - 1)
}

// validInode reports whether there is a block where inode ino would be.
func (sb *superblock) validInode(ino uint64) bool {
	group, within := sb.splitInode(ino)
	return ino != 0 && ino <= maxInode && group < uint64(sb.agCount) &&
		within>>(sb.blockShift-sb.inodeShift) < sb.agLength(uint32(group))
}
