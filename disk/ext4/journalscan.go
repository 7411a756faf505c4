package ext4

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Flags of a block tag.
const (
	tagEscaped  = 0x1
	tagSameUUID = 0x2
	tagLast     = 0x8
)

// logContent is what a scan finds in the committed transactions.
type logContent struct {
	tags    []tag
	revokes []revokeBlock
	end     uint32 // the sequence behind the last committed transaction
}

// tag says that a block of the journal is the new content of block target.
type tag struct {
	target   uint64
	block    uint32 // in the journal
	sequence uint32
	checksum uint32
	escaped  bool

	// Set by applyRevokes, in the first tag of a target: that target's blocks
	// of transactions up to revokedBy are not to be replayed.
	revoked   bool
	revokedBy uint32
}

type revokeBlock struct{ block, sequence uint32 }

// scanner walks the log once, from its start to the last committed
// transaction. It follows jbd2's scan pass (Linux, do_one_pass in
// fs/jbd2/recovery.c), which has to tell the end of the log from damage: both
// look like a wrong block.
type scanner struct {
	*journal
	log logContent

	pos      uint32 // the next block to read
	left     uint32 // blocks of the ring that were not stepped over yet
	sequence uint32 // the transaction that is due at pos
	buf      []byte
	data     []byte // for checksums of version 1, which cover the blocks

	tags, revokes int    // how many of log's are committed
	sum           uint32 // version 1 checksum of the open transaction
	doubtful      bool   // one of its blocks has a wrong checksum
	lastCommit    uint64 // time of the last commit, in seconds
}

func (j *journal) scan() (*logContent, error) {
	s := &scanner{
		journal: j, pos: j.start, left: j.end - j.first, sequence: j.sequence,
		sum: startV1, buf: make([]byte, j.fs.sb.blockSize()),
	}
	for more := true; more; {
		var err error
		if more, err = s.step(); err != nil {
			return nil, err
		}
	}
	s.log.tags, s.log.revokes = s.log.tags[:s.tags], s.log.revokes[:s.revokes]
	s.log.end = s.sequence
	return &s.log, nil
}

const startV1 = 0xffffffff

// advance steps over the block at pos. It returns false where the log would be
// longer than the ring that it lies in: then its last transaction has no end.
func (s *scanner) advance() bool {
	if s.left == 0 {
		return false
	}
	s.left--
	s.pos = s.next(s.pos)
	return true
}

// step reads one descriptor, revoke or commit block, with what belongs to it.
// more is false at the end of the log.
func (s *scanner) step() (more bool, err error) {
	at := s.pos
	if !s.advance() {
		return false, nil
	}
	if err := s.read(s.buf, at); err != nil {
		return false, err
	}
	c := ondisk.NewCursor(s.buf, binary.BigEndian)
	magic, kind, sequence := c.U32(), c.U32(), c.U32()
	if c.Err() != nil || magic != journalMagic || sequence != s.sequence {
		return false, nil
	}
	switch kind {
	case journalDescriptor:
		s.doubtful = s.doubtful || !s.tailMatches()
		return s.descriptor(at)
	case journalRevoke:
		s.doubtful = s.doubtful || !s.tailMatches()
		if len(s.log.revokes) >= maxRevokeBlocks {
			return false, layer.Beyond(journalBlockName(at), ondisk.Nowhere, "more than %d revoke blocks", maxRevokeBlocks)
		}
		s.log.revokes = append(s.log.revokes, revokeBlock{at, sequence})
		return true, nil
	case journalCommit:
		return s.commit(at)
	default:
		return false, nil
	}
}

// tailMatches checks the checksum at the end of a descriptor or revoke block.
func (s *scanner) tailMatches() bool {
	if !s.hasChecksum() {
		return true
	}
	at := len(s.buf) - journalTailSize
	return binary.BigEndian.Uint32(s.buf[at:]) == uint32(s.seed.addWithout(s.buf, at, journalTailSize))
}

// descriptor collects the tags of a descriptor block. The blocks they tell of
// follow it in the log.
func (s *scanner) descriptor(at uint32) (more bool, err error) {
	v1 := s.compat&journalCompatChecksum != 0
	if v1 {
		s.sum = crc32BE(s.sum, s.buf)
	}
	room := len(s.buf)
	if s.hasChecksum() {
		room -= journalTailSize
	}
	for pos, last := journalHeaderSize, false; !last && pos+s.tagSize() <= room; {
		t, flags := s.parseTag(s.buf[pos:])
		t.block, t.sequence = s.pos, s.sequence
		if !s.advance() {
			return false, nil
		}
		if len(s.log.tags) >= maxReplayed {
			return false, layer.Beyond(journalBlockName(at), ondisk.Nowhere, "more than %d blocks to replay", maxReplayed)
		}
		s.log.tags = append(s.log.tags, t)
		if v1 {
			if err := s.addToSum(t.block); err != nil {
				return false, err
			}
		}
		pos += s.tagSize()
		if flags&tagSameUUID == 0 {
			pos += 16
		}
		last = flags&tagLast != 0
	}
	return true, nil
}

func (s *scanner) addToSum(block uint32) error {
	if s.data == nil {
		s.data = make([]byte, len(s.buf))
	}
	if err := s.read(s.data, block); err != nil {
		return err
	}
	s.sum = crc32BE(s.sum, s.data)
	return nil
}

// tagSize is the length of a tag: 16 with checksums of version 3; else 8, 4
// more with 64bit, 2 more with version 2, which has a place for its checksum
// twice.
func (j *journal) tagSize() int {
	if j.incompat&journalIncompatCsumV3 != 0 {
		return 16
	}
	size := 8
	if j.incompat&journalIncompatCsumV2 != 0 {
		size += 2
	}
	if j.incompat&journalIncompat64Bit != 0 {
		size += 4
	}
	return size
}

// parseTag reads a tag of at least tagSize bytes. Layouts, big endian:
//
//	version 3: 0x0 4 blocknr   0x4 4 flags      0x8 4 blocknr_high  0xC 4 checksum
//	others:    0x0 4 blocknr   0x4 2 checksum   0x6 2 flags         0x8 4 blocknr_high
func (j *journal) parseTag(raw []byte) (t tag, flags uint32) {
	t.target = uint64(binary.BigEndian.Uint32(raw))
	if j.incompat&journalIncompatCsumV3 != 0 {
		flags = binary.BigEndian.Uint32(raw[4:])
		t.checksum = binary.BigEndian.Uint32(raw[12:])
	} else {
		t.checksum = uint32(binary.BigEndian.Uint16(raw[4:]))
		flags = uint32(binary.BigEndian.Uint16(raw[6:]))
	}
	if j.incompat&journalIncompat64Bit != 0 {
		t.target |= uint64(binary.BigEndian.Uint32(raw[8:])) << 32
	}
	t.escaped = flags&tagEscaped != 0
	return t, flags
}

// commit ends a transaction: what it holds counts, unless it is damaged or a
// leftover of the journal's earlier life, which a commit time before that of
// the transaction in front betrays.
//
// Layout (Documentation/filesystems/ext4/journal.rst), big endian:
//
//	0x0C 1 h_chksum_type  0x0D 1 h_chksum_size  0x10 4 h_chksum[0]  0x30 8 h_commit_sec
func (s *scanner) commit(at uint32) (more bool, err error) {
	when := binary.BigEndian.Uint64(s.buf[0x30:])
	good := !s.doubtful && s.commitMatches()
	switch {
	case good:
	case when < s.lastCommit:
		return false, nil
	case !s.doubtful && s.incompat&journalIncompatAsyncCommit != 0:
		// The commit block may have reached the disk before the rest.
		return false, nil
	default:
		return false, layer.Damaged(journalBlockName(at), ondisk.Nowhere, "a checksum of transaction %d is wrong", s.sequence)
	}
	s.tags, s.revokes = len(s.log.tags), len(s.log.revokes)
	s.sum, s.lastCommit = startV1, when
	s.sequence++
	return true, nil
}

func (s *scanner) commitMatches() bool {
	const sumOffset = 0x10
	want := binary.BigEndian.Uint32(s.buf[sumOffset:])
	if s.hasChecksum() {
		return uint32(s.seed.addWithout(s.buf, sumOffset, 4)) == want
	}
	if s.compat&journalCompatChecksum == 0 {
		return true
	}
	const crc32Type, crc32Size = 1, 4
	kind, size := s.buf[0x0c], s.buf[0x0d]
	unused := kind == 0 && size == 0 && want == 0
	return unused || kind == crc32Type && size == crc32Size && want == s.sum
}
