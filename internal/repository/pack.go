package repository

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// A pack is sealed blobs, one after the other, and a sealed header that lists
// them (doc/design.rst, "Pack Format"):
//
//	blob 1 || … || blob n || header || length of the header, 4 bytes
//
// The header, once opened, has one entry a blob, in the order of the blobs:
//
//	offset  size  field
//	0       1     0 data, 1 tree, 2 compressed data, 3 compressed tree
//	1       4     length of the sealed blob
//	5       4     length of the content; only in types 2 and 3
//	5 or 9  32    ID
//
// Numbers are little-endian.
const (
	headerLengthSize = 4
	plainEntrySize   = 1 + 4 + 32
	fullEntrySize    = plainEntrySize + 4

	typeTree       = 1
	typeCompressed = 2

	// maxHeaderSize is restic's limit of a sealed header.
	maxHeaderSize = 16 << 20
	// eagerHeader is how much of a pack's end is read at first: the header of nearly all
	// packs, whose blobs are large, in one request.
	eagerHeader = 4 << 10
	// maxPackBlobs is how many blobs a pack may get: as many as go into an index file,
	// since all that is known of a pack is held at once, by who makes it and by who
	// checks it. Its header has 2 MiB.
	maxPackBlobs = indexBlobs
)

// entrySize returns the bytes of an entry in a pack's header.
func (e *blobEntry) entrySize() int {
	if e.compressed() {
		return fullEntrySize
	}
	return plainEntrySize
}

// encodeHeader returns the plaintext of the header of blobs.
func encodeHeader(blobs []blobEntry) []byte {
	header := make([]byte, 0, len(blobs)*fullEntrySize)
	for i := range blobs {
		e := &blobs[i]
		var t byte
		if e.blobType() == TreeBlob {
			t |= typeTree
		}
		if e.compressed() {
			t |= typeCompressed
		}
		header = append(header, t)
		header = binary.LittleEndian.AppendUint32(header, e.length)
		if e.compressed() {
			header = binary.LittleEndian.AppendUint32(header, e.size)
		}
		header = append(header, e.id[:]...)
	}
	return header
}

// decodeHeader reads the plaintext of a header. The blobs must fill exactly the
// bytes before the header.
func decodeHeader(header []byte, dataSize int64) ([]blobEntry, error) {
	blobs := make([]blobEntry, 0, len(header)/plainEntrySize)
	var offset uint64
	for len(header) > 0 {
		kind := header[0]
		size := plainEntrySize
		if kind&typeCompressed != 0 {
			size = fullEntrySize
		}
		if kind > typeTree|typeCompressed || len(header) < size {
			return nil, fmt.Errorf("entry %d has the unknown type %d, or is cut off", len(blobs), kind)
		}
		var uncompressed uint64
		if kind&typeCompressed != 0 {
			uncompressed = uint64(binary.LittleEndian.Uint32(header[5:]))
			if uncompressed == 0 {
				return nil, fmt.Errorf("entry %d is compressed and empty", len(blobs))
			}
		}
		length := uint64(binary.LittleEndian.Uint32(header[1:]))
		e, err := newBlobEntry(BlobType(kind&typeTree), ID(header[size-len(ID{}):size]), offset, length, uncompressed)
		if err != nil {
			return nil, err
		}
		offset += length
		blobs = append(blobs, e)
		header = header[size:]
	}
	if offset != uint64(dataSize) {
		return nil, fmt.Errorf("the blobs take %d bytes of %d", offset, dataSize)
	}
	return blobs, nil
}

// readHeader reads the header of a pack of that size. Op is what an error says
// was going on.
func readHeader(ctx context.Context, be backend.Backend, op string, key *crypto.Key, h backend.Handle, size int64) ([]blobEntry, error) {
	if size < headerLengthSize+crypto.Overhead {
		return nil, damaged(op, h, "%d bytes are too short for a pack", size)
	}
	tail := make([]byte, min(size, eagerHeader))
	if err := readFull(ctx, be, op, h, tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	tail, last := tail[:len(tail)-headerLengthSize], tail[len(tail)-headerLengthSize:]
	length := int64(binary.LittleEndian.Uint32(last))
	if length < crypto.Overhead || length > min(maxHeaderSize, size-headerLengthSize) {
		return nil, damaged(op, h, "a header of %d bytes cannot be in a pack of %d", length, size)
	}
	dataSize := size - headerLengthSize - length
	sealed := tail[max(0, int64(len(tail))-length):]
	if length > int64(len(tail)) {
		sealed = make([]byte, length)
		if err := readFull(ctx, be, op, h, sealed, dataSize); err != nil {
			return nil, err
		}
	}
	header, err := key.Open(sealed)
	if err != nil {
		return nil, damaged(op, h, "header: %w", err)
	}
	blobs, err := decodeHeader(header, dataSize)
	if err != nil {
		return nil, damaged(op, h, "header: %w", err)
	}
	return blobs, nil
}

// packer is a pack that is being filled.
type packer struct {
	t     BlobType
	buf   []byte
	blobs []blobEntry
	done  chan struct{} // closed when it is stored, or has failed
}

// add appends a sealed blob, and returns its entry. The first one it takes as its buffer
// if it has none.
func (p *packer) add(id ID, sealed []byte, size int, compressed bool) (*blobEntry, error) {
	var uncompressed uint64
	if compressed {
		uncompressed = uint64(size)
	}
	e, err := newBlobEntry(p.t, id, uint64(len(p.buf)), uint64(len(sealed)), uncompressed)
	if err != nil {
		return nil, err
	}
	if p.buf == nil {
		p.buf = sealed
	} else {
		p.buf = append(p.buf, sealed...)
	}
	p.blobs = append(p.blobs, e)
	return &e, nil
}

// full reports whether the pack has reached its size.
func (p *packer) full(size int) bool { return len(p.buf) >= size || len(p.blobs) >= maxPackBlobs }

// finish appends the header. The pack is then ready to be stored.
func (p *packer) finish(key *crypto.Key) {
	start := len(p.buf)
	p.buf = key.Seal(p.buf, encodeHeader(p.blobs))
	p.buf = binary.LittleEndian.AppendUint32(p.buf, uint32(len(p.buf)-start)) // at most maxHeaderSize
}
