// Package wire is the language between drydock and a disk reader worker: what
// may be asked, what may be answered, and what an answer must look like to be
// believed.
//
// Messages travel over a stream socket as frames: a header of [HeaderSize]
// bytes, then as many bytes of payload as it says. Numbers are little-endian.
//
//	offset  size  field
//	     0     4  length of the payload
//	     4     4  id: chosen by the asker, repeated by the answer
//	     8     1  op of a request, or status of an answer
//	     9     7  zero
//
// Any number of requests up to [MaxInFlight] may be open at once; answers come
// in any order, one for each. A request or answer that breaks a rule of this
// package ends the conversation: there is no resynchronising with a liar.
//
// Content beyond [InlineData] bytes does not go through the socket: parent and
// worker share a memory of [Slots] slots of [SlotSize] bytes, and a request for
// content names the slot where it is to be. What lies there may change at any
// moment, so the parent copies it before it looks at it, and it holds content
// alone: nothing in it has a form that could be wrong.
//
// Every length has a named limit. Decoders accept exactly what the encoders
// produce, allocate no more than the bytes they were given justify, and never
// panic. The Check functions hold the promises that package disk makes about
// what its readers return; the worker applies them before it answers, which
// turns a reader's slip into an honest error, so the parent, applying the same
// ones, knows that an answer that fails them was not sent by honest code.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of the conversation.
const (
	// HeaderSize is the size of a frame's header.
	HeaderSize = 16
	// MaxInFlight bounds how many requests the worker serves at once, and so
	// what it needs to remember of them.
	MaxInFlight = 32
	// MaxRequest bounds a request's payload; the largest is a [ReadMany].
	MaxRequest = 64 << 10
	// MaxData is the most content that one answer carries. It is large enough
	// that the cost of a round trip (15 µs) vanishes beside that of copying.
	MaxData = 1 << 20
	// MaxFetch is the most content that a [Fetch] asks for. It is what the worker
	// keeps as one block.
	MaxFetch = 64 << 10
	// InlineData is the most content that is part of an answer's payload. The
	// kernel wakes the reader of a socket for each 32 KiB.
	InlineData = 32 << 10
	// Slots and SlotSize are the shape of the shared memory.
	Slots    = 8
	SlotSize = MaxData
	// MaxAnswer bounds an answer's payload; the largest is MaxXattrBytes with
	// room for what describes them.
	MaxAnswer = MaxXattrBytes + 256<<10
)

// Limits of single items, which the kernel's own limits justify.
const (
	// MaxName is NAME_MAX, for file names and names of attributes.
	MaxName = 255
	// MaxTarget is PATH_MAX, the longest target a symlink can have.
	MaxTarget = 4096
	// MaxXattrValue is XATTR_SIZE_MAX.
	MaxXattrValue = 64 << 10
	// MaxXattrs and MaxXattrBytes bound what one file can carry: the kernel
	// lists at most 64 KiB of names (XATTR_LIST_MAX), far above what exists.
	MaxXattrs     = 4096
	MaxXattrBytes = 1 << 20
	// MaxLabel bounds labels and partition names (36 characters in a GPT,
	// 256 bytes in btrfs).
	MaxLabel = 256
	// MaxImages is the longest backing chain that a disk may have.
	MaxImages = 16
	// MaxDisks is how many disks one worker reads. QEMU's virtio and SCSI
	// buses go on for longer; people do not.
	MaxDisks = 32
	// MaxFiles bounds the files of all disks together. It must stay below
	// [NoFile].
	MaxFiles = 128
	// MaxSnapshotName bounds the ID and the name of a qcow2 snapshot, as
	// QEMU does.
	MaxSnapshotName = 1023
	// MaxSnapshots is how many snapshots one answer lists.
	MaxSnapshots = 128
	// MaxBitmaps is how many dirty bitmaps one answer lists.
	MaxBitmaps = 128
	// MaxVolumes is how many volumes all disks of a VM may have.
	MaxVolumes = 4096
	// MaxVolumePage is how many volumes one answer lists.
	MaxVolumePage = 16
	// MaxMembers is how many volumes a logical volume, or a filesystem, may
	// lie on.
	MaxMembers = 64
	// MaxRemarks is how many remarks there may be about one thing.
	MaxRemarks = 32
	// MaxMounts is how many filesystems make up a guest's tree, as package
	// guest has it.
	MaxMounts = 128
	// MaxSubvolumes is how many subvolumes one answer lists.
	MaxSubvolumes = 64
	// MaxSums bounds the bytes of all checksums in the answer to [Pieces]: with
	// blocks of 4 KiB they are of 256 MiB.
	MaxSums = 256 << 10
	// MaxPieces is how many pieces one answer lists.
	MaxPieces = 4096
	// MaxInlinePieces is how many pieces of a file a directory page carries:
	// what a file that is not fragmented has, holes and all.
	MaxInlinePieces = 8
	// MaxMany is how many files a [ReadMany] may ask for.
	MaxMany = 512
	// MaxManyPieces is how many pieces a file in a [ReadMany] may have.
	MaxManyPieces = 64
	// MaxInlineXattrs is how many bytes of attributes a directory page
	// carries for one entry. Labels and capabilities need a few dozen.
	MaxInlineXattrs = 4 << 10
	// MaxDirEntries is how many entries of one directory are listed; each
	// costs the memory to notice that a name comes twice.
	MaxDirEntries = 4 << 20
	// DirPageSize is the payload after which a directory page is sent off.
	DirPageSize = 128 << 10
	// MaxInlineContent is the largest file whose content is told with its entry. What
	// filesystems keep within their metadata is smaller.
	MaxInlineContent = 4 << 10
	// ContentSize is how many bytes of content an answer holds, beside DirPageSize,
	// when it is sent off: 1 KiB of each of MaxDescribe files.
	ContentSize = 512 << 10
	// MaxThen is how many directories a request may name beside the one that
	// is to be listed.
	MaxThen = 64
	// MaxDescribe is how many files one request asks to describe: about as many as
	// an answer of DirPageSize has room for.
	MaxDescribe = 512
	// MaxDirPages is how many directories one answer lists.
	MaxDirPages = 1024
	// maxText bounds each string of an error.
	maxText = 512
	// maxErrorDepth bounds how many layers of errors are told.
	maxErrorDepth = 6
	// maxMeasures bounds the answer to [Setup].
	maxMeasures = 16
)

// Op is what a request asks for.
type Op uint8

// The requests. Setup comes first, then Open; each once.
const (
	OpSetup Op = iota + 1
	OpOpen
	OpSnapshots
	OpBitmaps
	OpDirty
	OpVolumes
	OpMount
	OpGuest
	OpSubvolumes
	OpReadDir
	OpDescribe
	OpInode
	OpReadlink
	OpXattrs
	OpRead
	OpPieces
	OpReadMany
	OpUnused
	OpPlaces
	// OpFetch is the only request that the worker makes.
	OpFetch
	// OpTest is the first of the requests that tests add to the language.
	// No worker that is built into drydock answers it.
	OpTest Op = 0x80
)

// The statuses of an answer.
const (
	StatusOK    = 0
	StatusError = 1 // the payload is an encoded error
)

// ErrBroken says that a message breaks the rules of this package.
var ErrBroken = errors.New("broken message")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBroken, fmt.Sprintf(format, args...))
}

// Header is the header of a frame.
type Header struct {
	Length uint32
	ID     uint32
	Code   uint8 // an Op or a status
}

// PutHeader writes h to the first HeaderSize bytes of b.
func PutHeader(b []byte, h Header) {
	binary.LittleEndian.PutUint32(b[0:], h.Length)
	binary.LittleEndian.PutUint32(b[4:], h.ID)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.Code))
}

// ParseHeader reads a header from b, which has HeaderSize bytes. limit is the
// most payload that the receiver takes.
func ParseHeader(b []byte, limit uint32) (Header, error) {
	h := Header{
		Length: binary.LittleEndian.Uint32(b[0:]),
		ID:     binary.LittleEndian.Uint32(b[4:]),
		Code:   b[8],
	}
	if binary.LittleEndian.Uint64(b[8:])>>8 != 0 {
		return Header{}, broken("reserved header bytes are set")
	}
	if h.Length > limit {
		return Header{}, broken("payload of %d bytes, at most %d are taken", h.Length, limit)
	}
	return h, nil
}
