package ext4

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// groupSlots bounds the table of groups in use: 4,096 groups of 128 MiB are
// half a terabyte, and a group that lost its slot costs one more lookup.
const groupSlots = 4096

// groupTable keeps parsed group descriptors, group g in slot g%groupSlots, so
// that a disk of any size costs the same.
type groupTable [groupSlots]atomic.Pointer[group]

// group is what the reader uses of struct ext4_group_desc.
//
// Layout (Documentation/filesystems/ext4/group_descr.rst), little endian, 32
// bytes, or s_desc_size with the 64bit feature:
//
//	0x00 4 bg_block_bitmap_lo        0x20 4 bg_block_bitmap_hi
//	0x04 4 bg_inode_bitmap_lo        0x24 4 bg_inode_bitmap_hi
//	0x08 4 bg_inode_table_lo         0x28 4 bg_inode_table_hi
//	0x0C 2 bg_free_blocks_count_lo   0x2C 2 bg_free_blocks_count_hi
//	0x12 2 bg_flags                  0x38 2 bg_block_bitmap_csum_hi
//	0x18 2 bg_block_bitmap_csum_lo
//	0x1C 2 bg_itable_unused_lo       0x32 2 bg_itable_unused_hi
//	0x1E 2 bg_checksum
type group struct {
	number      uint64
	blockBitmap uint64 // block number, not checked
	inodeBitmap uint64 // block number, not checked
	inodeTable  uint64 // block number
	free        uint32 // clusters
	flags       uint16
	bitmapSum   uint32
	// unusedInodes at the end of the table were never written, where the filesystem
	// has checksums of descriptors.
	unusedInodes uint32
}

const (
	groupFreeOffset     = 0x0c
	groupFlagsOffset    = 0x12
	groupBitmapSumLow   = 0x18
	groupUnusedOffset   = 0x1c
	groupChecksumOffset = 0x1e
	groupHighOffset     = 0x20 // of the upper halves of block numbers
	groupFreeHighOffset = 0x2c
	groupUnusedHigh     = 0x32
	groupBitmapSumHigh  = 0x38
)

func (fs *Filesystem) group(number uint64) (*group, error) {
	slot := &fs.groups[number%groupSlots]
	if g := slot.Load(); g != nil && g.number == number {
		return g, nil
	}
	g, err := fs.readGroup(number)
	if err != nil {
		return nil, err
	}
	slot.Store(g)
	return g, nil
}

func (fs *Filesystem) readGroup(number uint64) (*group, error) {
	block, at := fs.descPlace(number)
	off := int64(block)<<fs.sb.blockShift + int64(at)
	if !fs.sb.validBlocks(block, 1) {
		return nil, layer.Damaged(descName(number), ondisk.Nowhere, "its block %d is outside the filesystem", block)
	}
	raw, err := fs.dev.metadata(fs.blockSpan(block))
	if err != nil {
		return nil, layer.Unreadable(descName(number), off, err)
	}
	desc := raw[at : at+fs.sb.descSize]
	if fs.sb.ro&(roMetadataCsum|roGdtCsum) != 0 {
		want := binary.LittleEndian.Uint16(desc[groupChecksumOffset:])
		if got := fs.groupChecksum(number, desc); got != want {
			return nil, layer.Damaged(descName(number), off, "checksum is %#04x, the descriptor says %#04x", got, want)
		}
	}
	g := parseGroup(number, desc)
	if !fs.sb.validBlocks(g.inodeTable, fs.tableBlocks()) {
		return nil, layer.Damaged(descName(number), off, "the inode table at block %d is outside the filesystem", g.inodeTable)
	}
	return g, nil
}

func descName(number uint64) string { return fmt.Sprintf("group descriptor %d", number) }

// descPlace returns the block that holds a group's descriptor, and its place in it.
func (fs *Filesystem) descPlace(number uint64) (block uint64, at int) {
	perBlock := uint64(fs.sb.blockSize()) / uint64(fs.sb.descSize)
	return fs.descBlock(number / perBlock), int(number%perBlock) * fs.sb.descSize
}

// parseGroup reads a group descriptor, which is long enough to have upper halves
// or does not have them.
func parseGroup(number uint64, desc []byte) *group {
	g := &group{
		number:    number,
		free:      uint32(binary.LittleEndian.Uint16(desc[groupFreeOffset:])),
		flags:     binary.LittleEndian.Uint16(desc[groupFlagsOffset:]),
		bitmapSum: uint32(binary.LittleEndian.Uint16(desc[groupBitmapSumLow:])),

		unusedInodes: uint32(binary.LittleEndian.Uint16(desc[groupUnusedOffset:])),
	}
	for i, block := range [...]*uint64{&g.blockBitmap, &g.inodeBitmap, &g.inodeTable} {
		*block = uint64(binary.LittleEndian.Uint32(desc[4*i:]))
		if len(desc) > descSize32 {
			*block |= uint64(binary.LittleEndian.Uint32(desc[groupHighOffset+4*i:])) << 32
		}
	}
	if len(desc) > descSize32 {
		g.free |= uint32(binary.LittleEndian.Uint16(desc[groupFreeHighOffset:])) << 16
		g.unusedInodes |= uint32(binary.LittleEndian.Uint16(desc[groupUnusedHigh:])) << 16
		g.bitmapSum |= uint32(binary.LittleEndian.Uint16(desc[groupBitmapSumHigh:])) << 16
	}
	return g
}

// tableBlocks is the number of blocks of one group's inode table.
func (fs *Filesystem) tableBlocks() uint64 {
	size := uint64(fs.sb.groupInodes) * uint64(fs.sb.inodeSize)
	return (size + uint64(fs.sb.blockSize()) - 1) >> fs.sb.blockShift
}

func (fs *Filesystem) groupChecksum(number uint64, desc []byte) uint16 {
	if fs.sb.hasChecksum() {
		return uint16(fs.sb.seed.addUint32(uint32(number)).addWithout(desc, groupChecksumOffset, 2))
	}
	crc := crc16(0xffff, fs.sb.uuid[:])
	crc = crc16(crc, binary.LittleEndian.AppendUint32(nil, uint32(number)))
	crc = crc16(crc, desc[:groupChecksumOffset])
	if fs.sb.incompat&incompat64Bit != 0 {
		crc = crc16(crc, desc[groupChecksumOffset+2:])
	}
	return crc
}

// descBlock is the block that holds block number nr of group descriptors:
// behind the superblock, or, with meta_bg, in the first of the groups that it
// describes. (Documentation/filesystems/ext4/blockgroup.rst; Linux,
// descriptor_loc in fs/ext4/super.c.)
func (fs *Filesystem) descBlock(nr uint64) uint64 {
	superblock := uint64(superblockOffset >> fs.sb.blockShift)
	if fs.sb.incompat&incompatMetaBG == 0 || nr < fs.sb.firstMetaBG {
		return superblock + 1 + nr
	}
	perBlock := uint64(fs.sb.blockSize()) / uint64(fs.sb.descSize)
	first := nr * perBlock
	block := fs.sb.firstBlock + first*fs.sb.groupBlocks
	if fs.hasSuperblock(first) {
		block++
	}
	if nr == 0 && superblock > fs.sb.firstBlock {
		block++ // bigalloc with blocks of 1 KiB: the boot block is in group 0
	}
	return block
}

// hasSuperblock reports whether group number starts with a superblock or a
// copy of it.
func (fs *Filesystem) hasSuperblock(number uint64) bool {
	switch {
	case number == 0:
		return true
	case fs.sb.compat&compatSparseSuper2 != 0:
		return number == fs.sb.backupGroups[0] || number == fs.sb.backupGroups[1]
	case number == 1 || fs.sb.ro&roSparseSuper == 0:
		return true
	default:
		return isPower(number, 3) || isPower(number, 5) || isPower(number, 7)
	}
}

func isPower(n, base uint64) bool {
	for n > 1 && n%base == 0 {
		n /= base
	}
	return n == 1
}

// blockSpan is the range of one block.
func (fs *Filesystem) blockSpan(block uint64) span {
	return span{off: int64(block) << fs.sb.blockShift, len: 1 << fs.sb.blockShift}
}

// inodeSpan returns the part of an inode table in which inode ino lies, and the
// inode's place in it. ino is one of the filesystem's.
func (fs *Filesystem) inodeSpan(ino uint32) (span, int, error) {
	g, err := fs.group(uint64((ino - 1) / fs.sb.groupInodes))
	if err != nil {
		return span{}, 0, err
	}
	at := int64((ino-1)%fs.sb.groupInodes) * int64(fs.sb.inodeSize)
	tableSize := int64(fs.tableBlocks()) << fs.sb.blockShift
	chunk := max(inodeChunk, fs.sb.blockSize())
	start := at - at%chunk
	n := min(chunk, tableSize-start)
	return span{off: int64(g.inodeTable)<<fs.sb.blockShift + start, len: int(n)}, int(at - start), nil
}
