package ext4

import (
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const journalMagic = 0xc03b3998

// The kinds of journal blocks (h_blocktype).
const (
	journalDescriptor   = 1
	journalCommit       = 2
	journalSuperblockV1 = 3
	journalSuperblockV2 = 4
	journalRevoke       = 5
)

// The journal's own features.
const (
	journalCompatChecksum feature = 0x1 // checksums, version 1

	journalIncompatRevoke      feature = 0x1
	journalIncompat64Bit       feature = 0x2
	journalIncompatAsyncCommit feature = 0x4
	journalIncompatCsumV2      feature = 0x8
	journalIncompatCsumV3      feature = 0x10
	journalIncompatFastCommit  feature = 0x20

	journalIncompatSupported = journalIncompatRevoke | journalIncompat64Bit |
		journalIncompatAsyncCommit | journalIncompatCsumV2 |
		journalIncompatCsumV3 | journalIncompatFastCommit
)

const (
	journalHeaderSize     = 12
	journalSuperblockSize = 1024
	journalTailSize       = 4 // the checksum at the end of descriptors and revokes

	// maxReplayed bounds the table of blocks to replay, which takes some 100
	// bytes for each while it is made: with blocks of 4 KiB, 2 GiB of journal,
	// twice what mke2fs makes at most by itself.
	maxReplayed = 1 << 19
	// maxRevokeBlocks and maxRevokes bound the time for revoke records: with
	// blocks of 4 KiB, these are for 64 GiB of metadata.
	maxRevokeBlocks = 1 << 16
	maxRevokes      = 1 << 24

	// defaultFastCommitBlocks and minJournalBlocks are those of jbd2.
	defaultFastCommitBlocks = 256
	minJournalBlocks        = 1024

	hintClean = "shut the guest down cleanly, or start it once so that it recovers the filesystem, and try again"
)

const journalName = "journal superblock"

// journal is the log of jbd2 as the filesystem's inode holds it.
//
// Layout of its superblock (Documentation/filesystems/ext4/journal.rst), big
// endian, in the journal's block 0:
//
//	0x00 4 h_magic      0x18 4 s_sequence   0x2C 4 s_feature_ro_compat
//	0x04 4 h_blocktype  0x1C 4 s_start      0x30 16 s_uuid
//	0x0C 4 s_blocksize  0x20 4 s_errno      0x50 1 s_checksum_type
//	0x10 4 s_maxlen     0x24 4 s_feature_compat
//	0x14 4 s_first      0x28 4 s_feature_incompat
//	0x54 4 s_num_fc_blks                    0xFC 4 s_checksum
type journal struct {
	fs     *Filesystem
	blocks *mapping

	compat, incompat feature
	sequence         uint32 // of the first transaction in the log
	start            uint32 // its block, or 0: the log is empty
	first, end       uint32 // the log is blocks [first, end), as a ring
	length           uint32 // of the journal
	errno            uint32
	seed             checksum
}

// replayed is what the journal holds for the filesystem.
type replayed struct {
	counts
	blocks []replacement // by transactions
	fast   []fastTag
}

// counts say how much was replayed.
type counts struct {
	transactions, fastCommits int
	torn                      bool   // a fast commit was begun, and is left out
	errno                     uint32 // why the guest's kernel gave the journal up, or 0
}

// replay returns what the journal would put in place.
func (fs *Filesystem) replay() (replayed, error) {
	j, err := fs.openJournal()
	if err != nil {
		return replayed{}, err
	}
	if j.start == 0 {
		return replayed{counts: counts{errno: j.errno}}, nil
	}
	log, err := j.scan()
	if err != nil {
		return replayed{}, err
	}
	log.sort()
	if err := j.applyRevokes(log); err != nil {
		return replayed{}, err
	}
	blocks, err := j.replacements(log)
	if err != nil {
		return replayed{}, err
	}
	fast, err := j.scanFast(log.end)
	if err != nil {
		return replayed{}, err
	}
	return replayed{
		counts: counts{int(log.end - j.sequence), fast.commits, fast.torn(), j.errno},
		blocks: blocks, fast: fast.tags,
	}, nil
}

func (fs *Filesystem) openJournal() (*journal, error) {
	if fs.sb.compat&compatHasJournal == 0 {
		return nil, sbDamaged("needs_recovery is set, but there is no journal")
	}
	if fs.sb.journalInode == 0 {
		return nil, layer.Unsupported("superblock", superblockOffset, hintClean,
			"feature needs_recovery with an external journal: the newest changes are on another disk")
	}
	n, err := fs.inode(uint64(fs.sb.journalInode))
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular || n.flags&(flagInlineData|flagEncrypt) != 0 {
		return nil, layer.Damaged(inodeName(n.Ino), ondisk.Nowhere, "it is the journal's, but not a plain file")
	}
	j := &journal{fs: fs, blocks: newMapping(fs, n)}
	raw := make([]byte, fs.sb.blockSize())
	if err := j.read(raw, 0); err != nil {
		return nil, err
	}
	return j, j.parseSuperblock(raw[:journalSuperblockSize], n.Size)
}

func (j *journal) parseSuperblock(raw []byte, size int64) error {
	c := ondisk.NewCursor(raw, binary.BigEndian)
	magic, kind := c.U32(), c.U32()
	c.Skip(4)
	blockSize := c.U32()
	j.length, j.first, j.sequence, j.start = c.U32(), c.U32(), c.U32(), c.U32()
	j.errno = c.U32()
	var ro feature
	if kind == journalSuperblockV2 {
		j.compat, j.incompat, ro = feature(c.U32()), feature(c.U32()), feature(c.U32())
	}
	if c.Err() != nil {
		return layer.Damaged(journalName, ondisk.Nowhere, "%v", c.Err())
	}
	switch {
	case magic != journalMagic:
		return layer.Damaged(journalName, ondisk.Nowhere, "the magic number is %#08x, not %#08x", magic, uint32(journalMagic))
	case kind != journalSuperblockV1 && kind != journalSuperblockV2:
		return layer.Damaged(journalName, ondisk.Nowhere, "the block type is %d", kind)
	case int64(blockSize) != j.fs.sb.blockSize():
		return layer.Damaged(journalName, ondisk.Nowhere, "blocks of %d bytes, the filesystem has %d", blockSize, j.fs.sb.blockSize())
	case j.incompat&^journalIncompatSupported != 0 || ro != 0:
		return layer.Unsupported(journalName, ondisk.Nowhere, hintClean, "the journal's feature %s",
			ondisk.FeatureNames(j.incompat&^journalIncompatSupported|ro, nil, "incompat"))
	case j.incompat&journalIncompatCsumV2 != 0 && j.incompat&journalIncompatCsumV3 != 0:
		return layer.Damaged(journalName, ondisk.Nowhere, "checksums of version 2 and 3 at once")
	case int64(j.length) > size>>j.fs.sb.blockShift:
		return layer.Damaged(journalName, ondisk.Nowhere, "%d blocks, but the inode has %d", j.length, size>>j.fs.sb.blockShift)
	}
	if err := j.verifySuperblock(raw); err != nil {
		return err
	}
	j.end = j.length
	if j.incompat&journalIncompatFastCommit != 0 {
		fast := binary.BigEndian.Uint32(raw[0x54:])
		if fast == 0 {
			fast = defaultFastCommitBlocks
		}
		if int64(j.end)-int64(fast) < minJournalBlocks {
			return layer.Damaged(journalName, ondisk.Nowhere, "%d of %d blocks are for fast commits", fast, j.end)
		}
		j.end -= fast
	}
	if j.first == 0 || j.first >= j.end || j.start != 0 && (j.start < j.first || j.start >= j.end) {
		return layer.Damaged(journalName, ondisk.Nowhere, "the log starts in block %d of %d to %d", j.start, j.first, j.end)
	}
	return nil
}

// hasChecksum reports checksums of version 2 or 3, which are CRC-32C.
func (j *journal) hasChecksum() bool {
	return j.incompat&(journalIncompatCsumV2|journalIncompatCsumV3) != 0
}

func (j *journal) verifySuperblock(raw []byte) error {
	if !j.hasChecksum() {
		return nil
	}
	if kind := raw[0x50]; kind != 4 {
		return layer.Unsupported(journalName, ondisk.Nowhere, hintClean, "checksum type %d, only 4 (crc32c) is known", kind)
	}
	want := binary.BigEndian.Uint32(raw[0xfc:])
	if got := uint32(startChecksum.addWithout(raw, 0xfc, 4)); got != want {
		return layer.Damaged(journalName, ondisk.Nowhere, "checksum is %#08x, the superblock says %#08x", got, want)
	}
	j.seed = startChecksum.add(raw[0x30:0x40])
	return nil
}

func journalBlockName(block uint32) string { return fmt.Sprintf("journal block %d", block) }

// place returns where a block of the journal lies on disk.
func (j *journal) place(block uint32) (uint64, error) {
	s, err := j.blocks.at(uint64(block))
	if err != nil {
		return 0, err
	}
	if s.kind != disk.ExtentData {
		return 0, layer.Damaged(journalBlockName(block), ondisk.Nowhere, "it is a hole")
	}
	return s.physical, nil
}

func (j *journal) read(p []byte, block uint32) error {
	physical, err := j.place(block)
	if err != nil {
		return err
	}
	off := int64(physical) << j.fs.sb.blockShift
	if err := ondisk.ReadFull(j.fs.dev.disk, p, off); err != nil {
		return layer.Unreadable(journalBlockName(block), off, err)
	}
	return nil
}

// next is the block of the log behind block.
func (j *journal) next(block uint32) uint32 {
	if block+1 >= j.end {
		return j.first
	}
	return block + 1
}
