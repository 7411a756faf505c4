package ext4

import (
	"encoding/base64"
	"encoding/binary"

	"crypto/sha256"
)

const (
	dirTailType = 0xde // file_type of the entry with the checksum

	// Where the count of a hash tree node's entries lies: behind one empty
	// entry, or, in the root, behind "." and ".." and eight bytes of
	// dx_root_info.
	nodeCountOffset = 8
	rootCountOffset = 32

	hashEntrySize    = 8
	hashTailSize     = 8
	hashTailChecksum = 4 // offset of dt_checksum in the tail
)

// verify checks the checksum of a directory block: in a leaf it is the last
// entry's, in a node of the hash tree it lies behind the room for the node's
// entries. (Documentation/filesystems/ext4/directory.rst)
func (r *dirReader) verify(b *dirBlock) error {
	if r.dir.flags&flagIndex != 0 {
		isNode := binary.LittleEndian.Uint32(b.data) == 0 && r.recordLength(b.data) == len(b.data)
		if b.index == 0 || isNode {
			return r.verifyNode(b)
		}
	}
	tail := b.data[len(b.data)-dirTailSize:]
	if binary.LittleEndian.Uint32(tail) != 0 || binary.LittleEndian.Uint16(tail[4:]) != dirTailSize || tail[6] != 0 || tail[7] != dirTailType {
		return r.damaged(b, "it has no checksum")
	}
	want := binary.LittleEndian.Uint32(tail[8:])
	if got := uint32(r.dir.seed.add(b.data[:len(b.data)-dirTailSize])); got != want {
		return r.damaged(b, "checksum is %#08x, the block says %#08x", got, want)
	}
	return nil
}

// verifyNode checks a node of the hash tree. Nothing else in it is used.
func (r *dirReader) verifyNode(b *dirBlock) error {
	at := nodeCountOffset
	if b.index == 0 {
		at = rootCountOffset
	}
	limit := int(binary.LittleEndian.Uint16(b.data[at:]))
	count := int(binary.LittleEndian.Uint16(b.data[at+2:]))
	tailAt := at + limit*hashEntrySize
	if count > limit || tailAt > len(b.data)-hashTailSize {
		return r.damaged(b, "a hash tree node has %d entries of %d", count, limit)
	}
	tail := b.data[tailAt : tailAt+hashTailSize]
	want := binary.LittleEndian.Uint32(tail[hashTailChecksum:])
	got := r.dir.seed.add(b.data[:at+count*hashEntrySize]).addWithout(tail, hashTailChecksum, 4)
	if uint32(got) != want {
		return r.damaged(b, "checksum is %#08x, the hash tree node says %#08x", uint32(got), want)
	}
	return nil
}

// maxPlainEncrypted is how much of an encrypted name Linux shows as it is.
const maxPlainEncrypted = 149

// encodeEncrypted is the printable form of a name of which only the ciphertext
// is known: base64url of eight bytes for its hash, zero where h is nil, the
// first 149 bytes of the name, and the SHA-256 of what is behind them. It has
// at most 252 bytes. (Linux, struct fscrypt_nokey_name in fs/crypto/fname.c.)
func encodeEncrypted(name []byte, h *nameHash) []byte {
	raw := make([]byte, 8, 8+maxPlainEncrypted+sha256.Size)
	if h != nil {
		hash, minor := h.sum(name)
		binary.LittleEndian.PutUint32(raw, hash)
		binary.LittleEndian.PutUint32(raw[4:], minor)
	}
	raw = append(raw, name[:min(len(name), maxPlainEncrypted)]...)
	if len(name) > maxPlainEncrypted {
		sum := sha256.Sum256(name[maxPlainEncrypted:])
		raw = append(raw, sum[:]...)
	}
	return base64.RawURLEncoding.AppendEncode(nil, raw)
}
