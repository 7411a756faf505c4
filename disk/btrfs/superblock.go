package btrfs

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	superblockOffset = 64 << 10
	superblockSize   = 4096
	superblockMagic  = "_BHRfS_M"
	magicOffset      = 0x40

	maxSystemChunks = 2048 // bytes of sys_chunk_array
	labelSize       = 256

	minSectorSize = 512
	minNodeSize   = 4096
	maxNodeSize   = 64 << 10 // BTRFS_MAX_METADATA_BLOCKSIZE
	maxLevel      = 7        // BTRFS_MAX_LEVEL - 1
)

// Bits of the superblock's flags.
const (
	superSeeding        = 1 << 32
	superMetadump       = 1 << 33
	superMetadumpV2     = 1 << 34
	superChangingFSID   = 1 << 35
	superChangingFSIDV2 = 1 << 36
	superChangingBG     = 1 << 38
	superChangingData   = 1 << 39
	superChangingMeta   = 1 << 40

	superError = 1 << 2
)

// superblock is what the reader uses of struct btrfs_super_block, checked.
//
// Layout (btrfs.readthedocs.io, "On-disk format", Superblock), little endian, at
// byte 65536 of each device:
//
//	0x00 32 csum          0x98 4 leafsize (unused)       0xC6 1 root_level
//	0x20 16 fsid          0x9C 4 stripesize              0xC7 1 chunk_root_level
//	0x30 8 bytenr         0xA0 4 sys_chunk_array_size    0xC8 1 log_root_level
//	0x38 8 flags          0xA4 8 chunk_root_generation   0xC9 98 dev_item
//	0x40 8 magic          0xAC 8 compat_flags            0x12B 256 label
//	0x48 8 generation     0xB4 8 compat_ro_flags         0x22B 8 cache_generation
//	0x50 8 root           0xBC 8 incompat_flags          0x233 8 uuid_tree_generation
//	0x58 8 chunk_root     0xC4 2 csum_type               0x23B 16 metadata_uuid
//	0x60 8 log_root       0x70 8 total_bytes             0x32B 2048 sys_chunk_array
//	0x68 8 log_root_transid (unused)                     0xB2B 672 super_roots
//	0x78 8 bytes_used     0x80 8 root_dir_objectid
//	0x88 8 num_devices    0x90 4 sectorsize              0x94 4 nodesize
type superblock struct {
	fsid         [16]byte
	metadataFSID [16]byte // what tree blocks and devices carry
	offset       uint64   // where it says that it lies
	flags        uint64
	generation   uint64
	totalBytes   uint64
	deviceCount  uint64
	sectorSize   uint32
	nodeSize     uint32
	compatRO     feature
	incompat     feature
	checksum     *checksum
	device       deviceItem
	label        [labelSize]byte
	systemChunks []byte

	root, chunkRoot, logRoot pointer
}

// pointer is where a tree block lies, and what it must be.
type pointer struct {
	block      uint64 // logical address; 0 where there is none
	generation uint64
	level      uint8
}

// deviceItem is what the reader uses of struct btrfs_dev_item.
//
// Layout, little endian:
//
//	0x00 8 devid   0x08 8 total_bytes   0x10 8 bytes_used   0x18 4 io_align
//	0x1C 4 io_width   0x20 4 sector_size   0x24 8 type   0x2C 8 generation
//	0x34 8 start_offset   0x3C 4 dev_group   0x40 1 seek_speed   0x41 1 bandwidth
//	0x42 16 uuid   0x52 16 fsid
type deviceItem struct {
	id         uint64
	totalBytes uint64
	uuid       [16]byte
	fsid       [16]byte
}

const deviceItemSize = 98

func parseDeviceItem(c *ondisk.Cursor) (item deviceItem) {
	item.id = c.U64()
	item.totalBytes = c.U64()
	c.Skip(0x42 - 0x10)
	copy(item.uuid[:], c.Bytes(16))
	copy(item.fsid[:], c.Bytes(16))
	return item
}

// asImage is the way out of what is refused.
const asImage = "back this disk up as an image"

func sbDamaged(format string, args ...any) error {
	return layer.Damaged("superblock", superblockOffset, format, args...)
}

func sbUnsupported(hint, format string, args ...any) error {
	return layer.Unsupported("superblock", superblockOffset, hint, format, args...)
}

// readSuperblock reads the superblock of d and checks it. The copies further
// back are not used, as Linux does not: which of them is the newest is a guess.
func readSuperblock(d disk.Sparse) (*superblock, error) {
	raw := make([]byte, superblockSize)
	if err := ondisk.ReadFull(d, raw, superblockOffset); err != nil {
		return nil, layer.Unreadable("superblock", superblockOffset, err)
	}
	if string(raw[magicOffset:magicOffset+8]) != superblockMagic {
		return nil, sbDamaged("magic number %x, not %q; if this is btrfs, btrfs rescue super-recover may find a copy", raw[magicOffset:magicOffset+8], superblockMagic)
	}
	kind := binary.LittleEndian.Uint16(raw[0xc4:])
	if int(kind) >= len(checksums) {
		return nil, sbUnsupported(asImage, "checksum of type %d", kind)
	}
	sum := &checksums[kind]
	if !sum.matches(raw[:maxChecksumSize], raw[maxChecksumSize:]) {
		return nil, sbDamaged("its %s is wrong; btrfs rescue super-recover may find a copy that is right", sum.name)
	}
	sb := decodeSuperblock(raw)
	sb.checksum = sum
	if err := sb.check(); err != nil {
		return nil, err
	}
	return sb, nil
}

// decodeSuperblock takes the fields of raw, of superblockSize bytes.
func decodeSuperblock(raw []byte) *superblock {
	c := ondisk.NewCursor(raw, binary.LittleEndian)
	sb := &superblock{}
	c.Seek(0x20)
	copy(sb.fsid[:], c.Bytes(16))
	sb.offset, sb.flags = c.U64(), c.U64()
	c.Seek(0x48)
	sb.generation = c.U64()
	sb.root.block, sb.chunkRoot.block, sb.logRoot.block = c.U64(), c.U64(), c.U64()
	c.Skip(8)
	sb.totalBytes = c.U64()
	c.Seek(0x88)
	sb.deviceCount = c.U64()
	sb.sectorSize, sb.nodeSize = c.U32(), c.U32()
	c.Seek(0xa0)
	systemChunks := c.U32()
	sb.chunkRoot.generation = c.U64()
	c.Skip(8)
	sb.compatRO, sb.incompat = feature(c.U64()), feature(c.U64())
	c.Skip(2)
	sb.root.level, sb.chunkRoot.level, sb.logRoot.level = c.U8(), c.U8(), c.U8()
	sb.device = parseDeviceItem(c)
	copy(sb.label[:], c.Bytes(labelSize))
	sb.metadataFSID = sb.fsid
	if sb.incompat&incompatMetadataUUID != 0 {
		c.Seek(0x23b)
		copy(sb.metadataFSID[:], c.Bytes(16))
	}
	c.Seek(0x32b)
	sb.systemChunks = c.Bytes(maxSystemChunks)[:min(systemChunks, maxSystemChunks)]
	sb.root.generation = sb.generation
	sb.logRoot.generation = sb.generation + 1
	return sb
}

func (sb *superblock) check() error {
	if err := sb.checkFeatures(); err != nil {
		return err
	}
	sector, node := uint64(sb.sectorSize), uint64(sb.nodeSize)
	switch {
	case sb.offset != superblockOffset:
		return sbDamaged("it says that it lies at %#x", sb.offset)
	case bits.OnesCount32(sb.sectorSize) != 1 || sector < minSectorSize || sector > maxNodeSize:
		return sbDamaged("sectors of %d bytes", sector)
	case bits.OnesCount32(sb.nodeSize) != 1 || node < minNodeSize || node < sector || node > maxNodeSize:
		return sbDamaged("tree blocks of %d bytes with sectors of %d", node, sector)
	case sb.root.level > maxLevel || sb.chunkRoot.level > maxLevel || sb.logRoot.level > maxLevel:
		return sbDamaged("trees of levels %d, %d and %d, at most %d is possible", sb.root.level, sb.chunkRoot.level, sb.logRoot.level, maxLevel)
	case sb.generation == 0 || sb.generation == maxOffset:
		return sbDamaged("generation %d", sb.generation)
	case sb.deviceCount == 0 || sb.deviceCount > maxDevices:
		return sbDamaged("%d devices, at most %d are possible", sb.deviceCount, maxDevices)
	case sb.totalBytes == 0 || sb.totalBytes > 1<<62:
		return sbDamaged("a size of %d bytes", sb.totalBytes)
	case len(sb.systemChunks) == 0:
		return sbDamaged("sys_chunk_array is empty")
	case sb.device.fsid != sb.metadataFSID:
		return sbDamaged("the device belongs to filesystem %x, the superblock to %x", sb.device.fsid, sb.metadataFSID)
	case sb.device.totalBytes > 1<<62:
		return sbDamaged("a device of %d bytes", sb.device.totalBytes)
	}
	for _, p := range []pointer{sb.root, sb.chunkRoot, sb.logRoot} {
		if p.block%sector != 0 || p.block == 0 && p != sb.logRoot {
			return sbDamaged("a tree at %#x", p.block)
		}
	}
	return nil
}

func (sb *superblock) checkFeatures() error {
	if unknown := sb.incompat &^ incompatSupported; unknown != 0 {
		return sbUnsupported(asImage, "features: %s", ondisk.FeatureNames(unknown, incompatNames, "incompat"))
	}
	if unknown := sb.compatRO &^ roSupported; unknown != 0 {
		return sbUnsupported(asImage, "features: %s", ondisk.FeatureNames(unknown, nil, "compat_ro"))
	}
	for _, f := range []struct {
		bits uint64
		what string
	}{
		{superSeeding, "it is a seed device (seeding)"},
		{superChangingFSID | superChangingFSIDV2, "a change of its UUID was interrupted: let btrfstune in the guest finish it"},
		{superChangingBG, "a conversion to the block group tree was interrupted: let btrfstune in the guest finish it"},
		{superChangingData | superChangingMeta, "a change of its checksums was interrupted: let btrfstune in the guest finish it"},
	} {
		if sb.flags&f.bits != 0 {
			return sbUnsupported(asImage, "%s", f.what)
		}
	}
	return nil
}

// remarks are what an administrator should know of the flags.
func (sb *superblock) remarks() (list []string) {
	if sb.flags&superError != 0 {
		list = append(list, "errors were recorded by the guest's kernel")
	}
	if sb.flags&(superMetadump|superMetadumpV2) != 0 {
		list = append(list, "this is a copy made by btrfs-image: it has no content of files")
	}
	return list
}

func formatUUID(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
