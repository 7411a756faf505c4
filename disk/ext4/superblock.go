package ext4

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	superblockOffset = 1024
	superblockSize   = 1024
	superblockMagic  = 0xef53
	magicOffset      = 0x38
	checksumOffset   = 0x3fc
)

const (
	rootInode = 2

	minBlockShift = 10
	maxBlockShift = 16 // 64 KiB: the most that mke2fs makes and Linux defines

	oldInodeSize  = 128 // of revision 0, and the least of all
	oldFirstInode = 11

	descSize32    = 32   // without 64bit
	minDescSize64 = 64   // with 64bit
	maxDescSize64 = 1024 // EXT4_MAX_DESC_SIZE
)

// superblock is what the reader uses of struct ext4_super_block, checked: every
// method and every field can be relied on.
//
// Layout (Documentation/filesystems/ext4/super.rst), little endian, at byte
// 1024 of the filesystem:
//
//	0x000 4 s_inodes_count          0x068 16 s_uuid
//	0x004 4 s_blocks_count_lo       0x078 16 s_volume_name
//	0x014 4 s_first_data_block      0x0E0 4 s_journal_inum
//	0x018 4 s_log_block_size        0x0E4 4 s_journal_dev
//	0x01C 4 s_log_cluster_size      0x0EC 16 s_hash_seed
//	0x020 4 s_blocks_per_group      0x0FE 2 s_desc_size
//	0x024 4 s_clusters_per_group    0x104 4 s_first_meta_bg
//	0x028 4 s_inodes_per_group      0x150 4 s_blocks_count_hi
//	0x038 2 s_magic                 0x160 4 s_flags
//	0x03A 2 s_state                 0x175 1 s_checksum_type
//	0x04C 4 s_rev_level             0x194 4 s_error_count
//	0x054 4 s_first_ino             0x198 4 s_first_error_time
//	0x058 2 s_inode_size            0x1CC 4 s_last_error_time
//	0x0CE 2 s_reserved_gdt_blocks   0x24C 8 s_backup_bgs[2]
//	0x0E8 4 s_last_orphan           0x270 4 s_checksum_seed
//	0x05C 12 s_feature_compat, _incompat, _ro_compat
//	0x278 1 s_first_error_time_hi   0x279 1 s_last_error_time_hi
//	0x3FC 4 s_checksum
type superblock struct {
	compat, incompat, ro feature

	inodeCount   uint32
	blockCount   uint64
	firstBlock   uint64 // first_data_block: where group 0 starts
	blockShift   uint
	clusterShift uint
	groupBlocks  uint64 // blocks_per_group
	reservedGDT  uint64 // blocks for more group descriptors
	groupInodes  uint32 // inodes_per_group
	firstInode   uint32 // the first that is not reserved
	inodeSize    int
	descSize     int
	firstMetaBG  uint64
	backupGroups [2]uint64

	state        uint16
	lastOrphan   uint32
	errors       recordedErrors
	journalInode uint32
	uuid         [16]byte
	label        [16]byte
	nameHash     nameHash // of directories that say nothing else
	seed         checksum // of all metadata but the superblock itself
}

func (sb *superblock) blockSize() int64  { return 1 << sb.blockShift }
func (sb *superblock) hasChecksum() bool { return sb.ro&roMetadataCsum != 0 }

// groupCount is at most 2^48: blockCount was checked against the disk.
func (sb *superblock) groupCount() uint64 {
	return (sb.blockCount - sb.firstBlock + sb.groupBlocks - 1) / sb.groupBlocks
}

// validBlocks reports whether n blocks from block lie where file content and
// metadata blocks can: behind the superblock, within the filesystem.
func (sb *superblock) validBlocks(block, n uint64) bool {
	return block > sb.firstBlock && ondisk.WithinU(block, n, sb.blockCount)
}

// kind is the name under which mount(8) knows the filesystem.
func (sb *superblock) kind() string {
	switch {
	case sb.incompat&^incompatExt3 != 0 || sb.ro&^roExt3 != 0:
		return "ext4"
	case sb.compat&compatHasJournal != 0:
		return "ext3"
	default:
		return "ext2"
	}
}

// parseSuperblock reads and checks a superblock of a disk of diskSize bytes.
func parseSuperblock(raw []byte, diskSize int64) (*superblock, error) {
	sb, clusterGroup, err := decodeSuperblock(raw)
	if err != nil {
		return nil, err
	}
	if err := sb.checkFeatures(raw); err != nil {
		return nil, err
	}
	if err := sb.checkSizes(clusterGroup, diskSize); err != nil {
		return nil, err
	}
	return sb, nil
}

// sbDamaged is the error of a bad superblock. Its copies are not tried: which of
// them is good, and as new as the rest of the disk, is for e2fsck to find out.
func sbDamaged(format string, args ...any) error {
	repair := ondisk.Layer{Name: layer.Name, Repair: "shut the guest down and let e2fsck repair it, from a copy with its option -b if need be"}
	return repair.Damaged("superblock", superblockOffset, format, args...)
}

// decodeSuperblock takes the fields, and checks those on which the reading of
// others depends. clusterGroup is clusters_per_group.
func decodeSuperblock(raw []byte) (sb *superblock, clusterGroup uint64, err error) {
	sb = new(superblock)
	c := ondisk.NewCursor(raw, binary.LittleEndian)
	sb.inodeCount = c.U32()
	blocksLow := c.U32()
	c.Seek(0x14)
	sb.firstBlock = uint64(c.U32())
	blockShift, clusterShift := c.U32(), c.U32()
	sb.groupBlocks = uint64(c.U32())
	clusterGroup = uint64(c.U32())
	sb.groupInodes = c.U32()
	c.Seek(magicOffset)
	magic := c.U16()
	sb.state = c.U16()
	c.Seek(0x4c)
	revision := c.U32()
	c.Seek(0x54)
	sb.firstInode = c.U32()
	sb.inodeSize = int(c.U16())
	c.Seek(0x5c)
	sb.compat, sb.incompat, sb.ro = feature(c.U32()), feature(c.U32()), feature(c.U32())
	copy(sb.uuid[:], c.Bytes(16))
	copy(sb.label[:], c.Bytes(16))
	c.Seek(0xce)
	sb.reservedGDT = uint64(c.U16())
	c.Seek(0xe0)
	sb.journalInode = c.U32()
	c.Skip(4) // device of the journal
	sb.lastOrphan = c.U32()
	for i := range sb.nameHash.seed {
		sb.nameHash.seed[i] = c.U32()
	}
	sb.nameHash.kind = c.U8()
	c.Seek(0xfe)
	sb.descSize = int(c.U16())
	c.Seek(0x104)
	sb.firstMetaBG = uint64(c.U32())
	c.Seek(0x150)
	blocksHigh := c.U32()
	sb.errors = parseErrors(c)
	c.Seek(0x160)
	sb.nameHash.unsigned = c.U32()&flagUnsignedHash != 0
	c.Seek(0x24c)
	sb.backupGroups = [2]uint64{uint64(c.U32()), uint64(c.U32())}
	c.Seek(0x270)
	ownSeed := c.U32()
	if c.Err() != nil {
		return nil, 0, sbDamaged("%v", c.Err())
	}

	if magic != superblockMagic {
		return nil, 0, sbDamaged("the magic number is %#04x, not %#04x", magic, superblockMagic)
	}
	if revision > 1 {
		return nil, 0, layer.Unsupported("superblock", superblockOffset, "", "revision %d", revision)
	}
	if revision == 0 {
		sb.inodeSize, sb.firstInode = oldInodeSize, oldFirstInode
	}
	sb.blockCount = uint64(blocksLow)
	if sb.incompat&incompat64Bit != 0 {
		sb.blockCount |= uint64(blocksHigh) << 32
	} else {
		sb.descSize = descSize32
	}
	sb.seed = startChecksum.add(sb.uuid[:])
	if sb.incompat&incompatCsumSeed != 0 {
		sb.seed = checksum(ownSeed)
	}
	if blockShift > maxBlockShift-minBlockShift || clusterShift > 32-minBlockShift {
		return nil, 0, sbDamaged("block size of 2^(10+%d), cluster size of 2^(10+%d) bytes", blockShift, clusterShift)
	}
	sb.blockShift = uint(blockShift) + minBlockShift
	sb.clusterShift = uint(clusterShift) + minBlockShift
	return sb, clusterGroup, nil
}

func (sb *superblock) checkFeatures(raw []byte) error {
	if sb.incompat&incompatJournalDev != 0 {
		return layer.Unsupported("superblock", superblockOffset, "name the disk with the filesystem instead",
			"feature journal_dev: this is the external journal of another filesystem")
	}
	if odd := sb.incompat &^ incompatSupported; odd != 0 {
		return layer.Unsupported("superblock", superblockOffset, "back this disk up as an image",
			"feature %s", ondisk.FeatureNames(odd, incompatNames, "incompat"))
	}
	if odd := sb.ro &^ roSupported; odd != 0 {
		return layer.Unsupported("superblock", superblockOffset, "back this disk up as an image",
			"feature %s", ondisk.FeatureNames(odd, roNames, "ro_compat"))
	}
	if !sb.hasChecksum() {
		return nil
	}
	if kind := raw[0x175]; kind != 1 {
		return layer.Unsupported("superblock", superblockOffset, "", "checksum type %d, only 1 (crc32c) is known", kind)
	}
	want := binary.LittleEndian.Uint32(raw[checksumOffset:])
	if got := startChecksum.add(raw[:checksumOffset]); uint32(got) != want {
		return sbDamaged("checksum is %#08x, the superblock says %#08x", uint32(got), want)
	}
	return nil
}

func (sb *superblock) checkSizes(clusterGroup uint64, diskSize int64) error {
	if err := sb.checkGroups(clusterGroup); err != nil {
		return err
	}
	if have := uint64(diskSize) >> sb.blockShift; sb.blockCount > have {
		return &disk.Error{
			Layer: layer.Name, Structure: "superblock", Offset: superblockOffset, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("%d blocks of %d bytes, but the disk ends after %d", sb.blockCount, sb.blockSize(), have),
			Hint:   "the image is cut short, or this is the wrong partition",
		}
	}
	if sb.blockCount <= sb.firstBlock {
		return sbDamaged("%d blocks, the first of which is number %d", sb.blockCount, sb.firstBlock)
	}
	if sb.inodeSize < oldInodeSize || int64(sb.inodeSize) > sb.blockSize() || bits.OnesCount(uint(sb.inodeSize)) != 1 {
		return sbDamaged("inode size %d", sb.inodeSize)
	}
	perBlock := uint32(sb.blockSize()) / uint32(sb.inodeSize)
	if sb.groupInodes < perBlock || int64(sb.groupInodes) > sb.blockSize()*8 {
		return sbDamaged("%d inodes per group", sb.groupInodes)
	}
	if high, total := bits.Mul64(sb.groupCount(), uint64(sb.groupInodes)); high != 0 || total != uint64(sb.inodeCount) {
		return sbDamaged("%d inodes, but %d groups of %d", sb.inodeCount, sb.groupCount(), sb.groupInodes)
	}
	if sb.firstInode < oldFirstInode || sb.firstInode > sb.inodeCount {
		return sbDamaged("the first inode is number %d of %d", sb.firstInode, sb.inodeCount)
	}
	if sb.incompat&incompat64Bit != 0 && (sb.descSize < minDescSize64 || sb.descSize > maxDescSize64 || bits.OnesCount(uint(sb.descSize)) != 1) {
		return sbDamaged("group descriptors of %d bytes", sb.descSize)
	}
	return nil
}

// checkGroups checks the geometry of blocks, clusters and groups.
func (sb *superblock) checkGroups(clusterGroup uint64) error {
	maxPerGroup := uint64(sb.blockSize()) * 8 // one block of bitmap
	bigalloc := sb.ro&roBigalloc != 0
	if bigalloc {
		if sb.clusterShift < sb.blockShift {
			return sbDamaged("clusters of %d bytes, blocks of %d", uint64(1)<<sb.clusterShift, sb.blockSize())
		}
		ratio := uint64(1) << (sb.clusterShift - sb.blockShift)
		if clusterGroup == 0 || clusterGroup > maxPerGroup || sb.groupBlocks != clusterGroup*ratio {
			return sbDamaged("%d clusters and %d blocks per group", clusterGroup, sb.groupBlocks)
		}
	} else {
		// Revision 0 calls this field the fragment size.
		if sb.clusterShift != sb.blockShift {
			return sbDamaged("clusters of %d bytes, blocks of %d, without bigalloc", uint64(1)<<sb.clusterShift, sb.blockSize())
		}
		if sb.groupBlocks == 0 || sb.groupBlocks > maxPerGroup || sb.groupBlocks%8 != 0 {
			return sbDamaged("%d blocks per group", sb.groupBlocks)
		}
	}
	first := uint64(0)
	if sb.blockShift == minBlockShift && sb.clusterShift == minBlockShift {
		first = 1 // the boot block is a block of its own
	}
	if sb.firstBlock != first {
		return sbDamaged("the first data block is %d, not %d", sb.firstBlock, first)
	}
	return nil
}
