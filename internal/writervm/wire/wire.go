// Package wire is what drydock and the guest that writes a filesystem say to each
// other, over a serial port.
//
// Both say messages: a kind of one byte, a length of four, little-endian, and so many
// bytes. Both are of one build of drydock, and start together: the encoding promises
// nothing to others, and has no version.
//
// The guest speaks first, [Ready]. Then drydock walks the tree, depth first:
//
//	Node (root) Node (folder) Node (file) Data Data End … Up … Up Finish
//
// and the guest says [Progress] and [Warning] meanwhile, and at last [Done] or [Failed].
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Kind is what a message says.
type Kind byte

// What drydock says.
const (
	// Subvolumes comes before all else, if at all: the numbers, encoded, of the subvolumes
	// of btrfs that will come, in ascending order.
	Subvolumes Kind = 'v'
	// Node makes a file of any type, an encoded [Node]. The first is the root
	// directory; what follows a folder lies in it; content follows a regular file.
	Node Kind = 'n'
	// Data is content of the file: its offset, and the bytes.
	Data Kind = 'd'
	// Room is content that is not told, an encoded [Range]: zeros are written there.
	Room Kind = 'r'
	// Same is all content of the file: that of another, by the inode number that was in its
	// End.
	Same Kind = 's'
	// End is the end of the file; with its inode number, others may have the Same content.
	End Kind = 'e'
	// Abandon removes the file: the rest of it cannot be read.
	Abandon Kind = 'a'
	// Link is a further name of what was made: its inode number, and the name.
	Link Kind = 'l'
	// Up is the end of the folder.
	Up Kind = 'u'
	// Finish is the end of the tree.
	Finish Kind = 'f'
)

// What the guest says.
const (
	// Ready: the filesystem is mounted.
	Ready Kind = 'R'
	// Progress is a number of 64 bits that grows while there is progress.
	Progress Kind = 'P'
	// Warning is a [Complaint] of what is not as it was asked for.
	Warning Kind = 'W'
	// Failed is a [Complaint] of what ended the work.
	Failed Kind = 'F'
	// Done: all is on the disk, and the filesystem is not mounted any more.
	Done Kind = 'D'
)

const (
	// MaxData is the most content of one message, in bytes.
	MaxData = 1 << 20
	// MaxToGuest bounds a message to the guest: content, or a node with its
	// extended attributes.
	MaxToGuest = 2 << 20
	// MaxToHost bounds a message of the guest: a path and a sentence.
	MaxToHost = 64 << 10
	// MaxWarnings is how many warnings are told. The comparison that follows finds all.
	MaxWarnings = 100

	headerSize = 1 + 4
)

// ErrBroken is of a message that says nothing.
var ErrBroken = errors.New("the message makes no sense")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBroken, fmt.Sprintf(format, args...))
}

// Append appends a message to b.
func Append(b []byte, kind Kind, payload ...[]byte) []byte {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	b = binary.LittleEndian.AppendUint32(append(b, byte(kind)), uint32(size))
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

// Reader reads messages.
type Reader struct {
	from  io.Reader
	limit int
	buf   []byte
}

// NewReader returns a reader of messages of at most limit bytes.
func NewReader(from io.Reader, limit int) *Reader { return &Reader{from: from, limit: limit} }

// Next returns the next message. Its payload holds until the next call.
func (r *Reader) Next() (Kind, []byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r.from, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(header[1:])
	if uint64(size) > uint64(r.limit) {
		return 0, nil, broken("it has %d bytes, more than %d", size, r.limit)
	}
	if int(size) > cap(r.buf) {
		r.buf = make([]byte, size)
	}
	p := r.buf[:size]
	if _, err := io.ReadFull(r.from, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(header[0]), p, nil
}

// Range is a part of a file, in bytes.
type Range struct{ Offset, Length int64 }

// AppendRange encodes a Range.
func AppendRange(b []byte, r Range) []byte {
	return AppendNumber(AppendNumber(b, uint64(r.Offset)), uint64(r.Length))
}

// DecodeRange decodes a part of a file of size bytes.
func DecodeRange(payload []byte, size int64) (r Range, err error) {
	off, rest, err := Number(payload)
	if err != nil {
		return r, err
	}
	length, rest, err := Number(rest)
	if err != nil {
		return r, err
	}
	if off > uint64(size) || length > uint64(size)-off || len(rest) > 0 {
		return r, broken("%d bytes at %d of a file of %d", length, off, size)
	}
	return Range{int64(off), int64(length)}, nil
}

// AppendNumber encodes a number: of [Progress], the offset of [Data], the inode number
// of [Link], [Same] and [End].
func AppendNumber(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

// AppendSubvolumes encodes the numbers of subvolumes.
func AppendSubvolumes(b []byte, ids []uint32) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// DecodeSubvolumes decodes them.
func DecodeSubvolumes(payload []byte) ([]uint32, error) {
	const size = 4
	if len(payload)%size != 0 {
		return nil, broken("%d bytes are no numbers of subvolumes", len(payload))
	}
	var ids []uint32
	for p := range slices.Chunk(payload, size) {
		ids = append(ids, binary.LittleEndian.Uint32(p))
	}
	return ids, nil
}

// Number decodes a number, and returns what is behind it.
func Number(payload []byte) (n uint64, rest []byte, err error) {
	const size = 8
	if len(payload) < size {
		return 0, nil, broken("%d bytes are no number", len(payload))
	}
	return binary.LittleEndian.Uint64(payload), payload[size:], nil
}
