package ext4

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Fast commits follow the journal's last transaction in an area of their own,
// at the end of the journal. They do not hold blocks but say what was done: which
// inodes changed, which entries were added to which directory.
// (Documentation/filesystems/ext4/journal.rst; the layouts are those of
// fs/ext4/fast_commit.h.)

const (
	// maxFastCommitSize bounds what is read of the area, in bytes: what mke2fs
	// makes by itself is a 64th of a journal of at most 1 GiB.
	maxFastCommitSize = 16 << 20
	// maxFastCommitTags bounds the model of changes, which takes some 150 bytes
	// for each.
	maxFastCommitTags = 1 << 17
)

// The kinds of tags.
const (
	tagAddRange = 1
	tagDelRange = 2
	tagCreate   = 3
	tagLink     = 4
	tagUnlink   = 5
	tagInode    = 6
	tagPad      = 7
	tagTail     = 8
	tagHead     = 9
)

// The sizes of tags' values: as they are, or what is in front of a name or an
// inode.
const (
	tagHeaderSize  = 4
	addRangeSize   = 16
	delRangeSize   = 12
	entryTagSize   = 8
	inodeTagSize   = 4
	tailSize       = 8
	headSize       = 8
	tailCRCOffset  = 4 // in the value
	fastFeatures   = 0 // none is defined
	fastPrealloced = 1 // jbd2 leaves that many blocks free in front of the area
)

// fastTag is one change. Layout, little endian:
//
//	0x0 2 fc_tag   0x2 2 fc_len, of the value   0x4 the value
type fastTag struct {
	kind  uint16
	value []byte
}

// fastScanner reads the fast commits that belong to the end of the log.
type fastScanner struct {
	*journal
	sequence uint32 // of the transaction behind the log
	sum      checksum

	tags      []fastTag
	committed int // how many of tags are
	commits   int
	begun     bool // a fast commit of this sequence was written, at least in part
}

// torn reports whether what was begun has no good end, not even the first fast
// commit. Behind the first one, a piece of the next cannot be told from what an
// earlier life of the journal left there.
func (s *fastScanner) torn() bool { return s.begun && s.commits == 0 }

// scanFast returns the changes of all complete fast commits. They are meant for
// a filesystem in which the transactions before sequence have been replayed.
func (j *journal) scanFast(sequence uint32) (*fastScanner, error) {
	s := &fastScanner{journal: j, sequence: sequence}
	if j.incompat&journalIncompatFastCommit == 0 {
		return s, nil
	}
	size := 0
	for at := j.end + fastPrealloced; at < j.length; at++ {
		raw := make([]byte, j.fs.sb.blockSize()) // what the tags hold lies in it
		if size += len(raw); size > maxFastCommitSize {
			return nil, layer.Beyond(journalBlockName(at), ondisk.Nowhere, "more than %d bytes of fast commits", maxFastCommitSize)
		}
		if err := j.read(raw, at); err != nil {
			return nil, err
		}
		if !s.begun && binary.LittleEndian.Uint16(raw) != tagHead {
			break
		}
		more, err := s.block(raw, at)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	s.tags = s.tags[:s.committed]
	return s, nil
}

// block takes the tags of one block of the area. more is false at the end of the
// fast commits: at what is no tag, or belongs to an earlier transaction.
func (s *fastScanner) block(raw []byte, at uint32) (more bool, err error) {
	for len(raw) >= tagHeaderSize {
		kind, length := binary.LittleEndian.Uint16(raw), int(binary.LittleEndian.Uint16(raw[2:]))
		if length > len(raw)-tagHeaderSize || !s.validTag(kind, length) {
			return false, nil
		}
		whole, value := raw[:tagHeaderSize+length], raw[tagHeaderSize:tagHeaderSize+length]
		raw = raw[len(whole):]
		switch kind {
		case tagHead:
			if features := binary.LittleEndian.Uint32(value); features&^fastFeatures != 0 {
				return false, layer.Unsupported(journalBlockName(at), ondisk.Nowhere, hintClean, "features %#x of fast commits", features)
			}
			if binary.LittleEndian.Uint32(value[4:]) != s.sequence {
				return false, nil // of an earlier life
			}
			s.begun = true
			s.sum = s.sum.add(whole)
		case tagTail:
			if !s.tail(whole, value) {
				return false, nil
			}
		case tagPad:
			s.sum = s.sum.add(whole)
		default:
			if len(s.tags) >= maxFastCommitTags {
				return false, layer.Beyond(journalBlockName(at), ondisk.Nowhere, "more than %d changes in fast commits", maxFastCommitTags)
			}
			s.tags = append(s.tags, fastTag{kind, value})
			s.sum = s.sum.add(whole)
		}
	}
	return true, nil
}

// tail ends a fast commit. It returns false for one that is incomplete, or of
// another transaction. The value: 0x0 4 fc_tid   0x4 4 fc_crc.
func (s *fastScanner) tail(whole, value []byte) bool {
	sum := s.sum.add(whole[:tagHeaderSize+tailCRCOffset])
	s.sum = 0
	if binary.LittleEndian.Uint32(value) != s.sequence || binary.LittleEndian.Uint32(value[tailCRCOffset:]) != uint32(sum) {
		return false
	}
	s.committed = len(s.tags)
	s.commits++
	return true
}

// validTag reports whether a tag can have a value of the given length.
func (s *fastScanner) validTag(kind uint16, length int) bool {
	switch kind {
	case tagAddRange:
		return length == addRangeSize
	case tagDelRange:
		return length == delRangeSize
	case tagCreate, tagLink, tagUnlink:
		return length > entryTagSize && length <= entryTagSize+maxNameLen
	case tagInode:
		return length >= inodeTagSize+oldInodeSize && length <= inodeTagSize+s.fs.sb.inodeSize
	case tagPad:
		return true
	case tagTail:
		return length >= tailSize
	case tagHead:
		return length == headSize
	}
	return false
}
