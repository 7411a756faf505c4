package ext4_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// sealer makes the checksums of the seed "csum" right again after damage: of the
// structure that the damage is in.
type sealer struct {
	original []byte
	seed     uint32
	table    int // byte offset of the inode table; the inodes have 256 bytes
	owners   map[int]func(block []byte)
}

const sealedInodes = 96

func newSealer(raw []byte) *sealer {
	le := binary.LittleEndian
	s := &sealer{
		original: raw, seed: rawCRC(^uint32(0), raw[1024+0x68:][:16]), table: int(le.Uint32(raw[2048+8:])) * 1024,
		owners: make(map[int]func([]byte)),
	}
	for at := 3 * 1024; at < len(raw); at += 1024 {
		if at < s.table || at >= s.table+sealedInodes*256 {
			if seal := s.owner(at); seal != nil {
				s.owners[at] = seal
			}
		}
	}
	return s
}

// owner finds out what seals a block, by trying: the right way leaves the block
// as it is.
func (s *sealer) owner(at int) func([]byte) {
	le := binary.LittleEndian
	ways := []func([]byte){func(p []byte) { // extended attributes
		number := le.AppendUint64(nil, uint64(at/1024))
		clear(p[16:20])
		le.PutUint32(p[16:], rawCRC(rawCRC(s.seed, number), p))
	}}
	for ino := uint32(1); ino <= sealedInodes; ino++ {
		seed := s.inodeSeed(s.original, ino)
		ways = append(ways,
			func(p []byte) { le.PutUint32(p[1020:], rawCRC(seed, p[:1012])) }, // a directory's leaf
			func(p []byte) { sealNode(p, 8, seed) },
			func(p []byte) { sealNode(p, 32, seed) },
			func(p []byte) { // a node of an extent tree
				if tail := 12 + 12*int(le.Uint16(p[4:])); tail+4 <= len(p) {
					le.PutUint32(p[tail:], rawCRC(seed, p[:tail]))
				}
			})
	}
	block := s.original[at : at+1024]
	for _, way := range ways {
		p := bytes.Clone(block)
		way(p)
		if bytes.Equal(p, block) && reacts(way, block) {
			return way
		}
	}
	return nil
}

// reacts reports whether a way takes notice of a change at the start of a block.
func reacts(way func([]byte), block []byte) bool {
	p := bytes.Clone(block)
	p[0] ^= 1
	before := bytes.Clone(p)
	way(p)
	return !bytes.Equal(p, before)
}

// sealNode seals a node of a hash tree whose count of entries is at the given
// offset.
func sealNode(p []byte, at int, seed uint32) {
	le := binary.LittleEndian
	limit, count := int(le.Uint16(p[at:])), int(le.Uint16(p[at+2:]))
	tail := at + limit*8
	if tail+8 > len(p) || count > limit {
		return
	}
	clear(p[tail+4 : tail+8])
	le.PutUint32(p[tail+4:], rawCRC(rawCRC(seed, p[:at+count*8]), p[tail:tail+8]))
}

func (s *sealer) inodeSeed(raw []byte, ino uint32) uint32 {
	n := raw[s.table+int(ino-1)*256:]
	return rawCRC(rawCRC(s.seed, binary.LittleEndian.AppendUint32(nil, ino)), n[0x64:0x68])
}

// seal makes the checksum right of the structure at byte at.
func (s *sealer) seal(raw []byte, at int) {
	le := binary.LittleEndian
	switch {
	case at < 1024:
	case at < 2048:
		sealSuperblock(raw[1024:2048])
	case at < 2048+64: // the group descriptor
		p := raw[2048 : 2048+64]
		clear(p[0x1e:0x20])
		le.PutUint16(p[0x1e:], uint16(rawCRC(rawCRC(s.seed, make([]byte, 4)), p)))
	case at >= s.table && at < s.table+sealedInodes*256:
		ino := uint32((at-s.table)/256) + 1
		p := raw[s.table+int(ino-1)*256:][:256]
		clear(p[0x7c:0x7e])
		clear(p[0x82:0x84])
		sum := rawCRC(s.inodeSeed(raw, ino), p)
		le.PutUint16(p[0x7c:], uint16(sum))
		le.PutUint16(p[0x82:], uint16(sum>>16))
	default:
		if seal := s.owners[at/1024*1024]; seal != nil {
			seal(raw[at/1024*1024:][:1024])
		}
	}
}

// TestSealedDamage damages each field of each structure, behind checksums that
// are right: the rest of the reader is all that stands between.
func TestSealedDamage(t *testing.T) {
	m := disktest.LoadSeed(t, "csum")
	original := make([]byte, m.Length)
	if _, err := m.ReadAt(original, 0); err != nil {
		t.Fatal(err)
	}
	s := newSealer(bytes.Clone(original))
	if len(s.owners) < 8 { // two directories with their nodes, an extent tree, attributes
		t.Fatalf("%d blocks with checksums", len(s.owners))
	}
	h := damage()
	raw := bytes.Clone(original)
	turn, read := 0, 0
	for _, r := range h.Structures(t, m) {
		for at := int(r.Offset); at < int(r.Offset+r.Length); at += 2 {
			if at%16 == 0 && at >= 16 && bytes.Equal(original[at-16:at], original[at:at+16]) {
				at += 14
				continue
			}
			for _, v := range []uint16{0, 1, 0xffff, 0x8000, binary.LittleEndian.Uint16(original[at:]) + 1} {
				if turn++; turn%h.Share != 0 {
					continue
				}
				copy(raw, original)
				binary.LittleEndian.PutUint16(raw[at:], v)
				s.seal(raw, at)
				got := h.Read(disktest.Image{ReaderAt: bytes.NewReader(raw), Length: m.Length})
				h.Check(t, fmt.Sprintf("%#x = %#x", at, v), got)
				if got.Err == nil {
					read++
				}
			}
		}
	}
	// Much of what is damaged does not matter, if only the checksums are right.
	if tried := turn / h.Share; tried < 100 || read < tried/4 {
		t.Errorf("%d of %d damaged images were read", read, tried)
	}
}
