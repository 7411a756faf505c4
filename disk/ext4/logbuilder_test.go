package ext4_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

const (
	logMagic     = 0xc03b3998
	logBlockSize = 1024
	logLength    = 1024 // blocks of the journal of the seed journal-clean
)

// logBuilder writes a journal block by block, in the test's own words, into the
// seed journal-clean.
type logBuilder struct {
	t      *testing.T
	raw    []byte // the image
	places []int  // byte offsets of the journal's blocks
	target map[byte]uint64

	version  int // of checksums: 0 is none
	wide     bool
	async    bool
	pos, seq uint32
	sum      uint32 // version 1
}

func newLogBuilder(t *testing.T) *logBuilder {
	t.Helper()
	m := disktest.LoadSeed(t, "journal-clean")
	b := &logBuilder{t: t, raw: make([]byte, m.Length), target: make(map[byte]uint64), version: 3, wide: true}
	if _, err := m.ReadAt(b.raw, 0); err != nil {
		t.Fatal(err)
	}
	// One group, whose descriptor is in block 2; inode 8 has up to four extents.
	table := int(binary.LittleEndian.Uint32(b.raw[2*logBlockSize+8:])) * logBlockSize
	tree := b.raw[table+7*256+0x28:]
	for i := range int(tree[2]) {
		extent := tree[12+i*12:]
		for j := range int(binary.LittleEndian.Uint16(extent[4:])) {
			b.places = append(b.places, (int(binary.LittleEndian.Uint32(extent[8:]))+j)*logBlockSize)
		}
	}
	if len(b.places) != logLength || tree[6] != 0 || binary.BigEndian.Uint32(b.block(0)) != logMagic {
		t.Fatal("the seed has another journal")
	}
	for i := range holesBlocks {
		letter := 'a' + byte(i)
		at := bytes.Index(b.raw, bytes.Repeat([]byte{letter}, logBlockSize))
		if at < 0 || at%logBlockSize != 0 {
			t.Fatalf("the seed has no block of %q", letter)
		}
		b.target[letter] = uint64(at / logBlockSize)
	}
	b.raw[1024+0x60] |= 4 // needs_recovery
	sealSuperblock(b.raw[1024:2048])
	return b
}

func (b *logBuilder) block(pos uint32) []byte {
	return b.raw[b.places[pos]:][:logBlockSize]
}

// start empties the log, and makes it start at pos with transaction seq.
func (b *logBuilder) start(pos, seq uint32) {
	for i := uint32(1); i < logLength; i++ {
		clear(b.block(i))
	}
	b.pos, b.seq, b.sum = pos, seq, ^uint32(0)
	sb := b.block(0)
	var compat, incompat uint32 = 0, 1
	switch b.version {
	case 1:
		compat = 1
	case 2:
		incompat |= 8
	case 3:
		incompat |= 0x10
	}
	if b.wide {
		incompat |= 2
	}
	if b.async {
		incompat |= 4
	}
	for at, v := range map[int]uint32{0x14: 1, 0x18: seq, 0x1c: pos, 0x24: compat, 0x28: incompat} {
		binary.BigEndian.PutUint32(sb[at:], v)
	}
	sb[0x50] = 4
	b.sealJournal()
}

func (b *logBuilder) sealJournal() {
	sb := b.block(0)
	clear(sb[0xfc:0x100])
	binary.BigEndian.PutUint32(sb[0xfc:], rawCRC(^uint32(0), sb))
}

func (b *logBuilder) seed() uint32 { return rawCRC(^uint32(0), b.block(0)[0x30:0x40]) }

// next returns the next block of the log, emptied, and where it is.
func (b *logBuilder) next() []byte {
	p := b.block(b.pos)
	clear(p)
	if b.pos++; b.pos == logLength {
		b.pos = 1
	}
	return p
}

func (b *logBuilder) header(kind uint32) []byte {
	p := b.next()
	binary.BigEndian.PutUint32(p, logMagic)
	binary.BigEndian.PutUint32(p[4:], kind)
	binary.BigEndian.PutUint32(p[8:], b.seq)
	return p
}

func (b *logBuilder) sealTail(p []byte) {
	if b.version >= 2 {
		binary.BigEndian.PutUint32(p[logBlockSize-4:], rawCRC(b.seed(), p))
	}
}

// write journals blocks full of one letter for the blocks that the letters of
// targets name. The letter 0x98 stands for the magic number and zeros.
func (b *logBuilder) write(letter byte, targets string) {
	list := make([]uint64, len(targets))
	for i := range targets {
		list[i] = b.target[targets[i]]
	}
	b.writeTo(letter, list...)
}

func (b *logBuilder) writeTo(letter byte, targets ...uint64) {
	p := b.header(1)
	blocks := make([][]byte, len(targets))
	at := 12
	for i, target := range targets {
		data := bytes.Repeat([]byte{letter}, logBlockSize)
		flags := uint32(2)
		if i == 0 {
			flags = 0 // a UUID follows
		}
		if letter == 0x98 {
			clear(data) // the magic number is left out
			flags |= 1
		}
		if i == len(targets)-1 {
			flags |= 8
		}
		blocks[i] = b.next()
		copy(blocks[i], data)
		at += b.tag(p[at:], target, flags, data)
		if flags&2 == 0 {
			at += 16
		}
	}
	b.sealTail(p)
	b.sum = crcBE(b.sum, p)
	for _, data := range blocks {
		b.sum = crcBE(b.sum, data)
	}
}

// tag writes one tag, and returns its length.
func (b *logBuilder) tag(p []byte, target uint64, flags uint32, data []byte) int {
	sum := rawCRC(rawCRC(b.seed(), binary.BigEndian.AppendUint32(nil, b.seq)), data)
	binary.BigEndian.PutUint32(p, uint32(target))
	if b.wide {
		binary.BigEndian.PutUint32(p[8:], uint32(target>>32))
	}
	size := 8
	if b.version == 3 {
		binary.BigEndian.PutUint32(p[4:], flags)
		binary.BigEndian.PutUint32(p[12:], sum)
		return 16
	}
	binary.BigEndian.PutUint16(p[6:], uint16(flags))
	if b.version == 2 {
		binary.BigEndian.PutUint16(p[4:], uint16(sum))
		size += 2
	}
	if b.wide {
		size += 4
	}
	return size
}

// revoke writes a revoke block for the blocks that the letters name.
func (b *logBuilder) revoke(targets string) {
	p := b.header(5)
	at := 16
	for i := range targets {
		if b.wide {
			binary.BigEndian.PutUint64(p[at:], b.target[targets[i]])
			at += 8
		} else {
			binary.BigEndian.PutUint32(p[at:], uint32(b.target[targets[i]]))
			at += 4
		}
	}
	binary.BigEndian.PutUint32(p[12:], uint32(at))
	b.sealTail(p)
}

// commit ends the transaction at the given time.
func (b *logBuilder) commit(when uint64) []byte {
	p := b.header(2)
	binary.BigEndian.PutUint64(p[0x30:], when)
	switch b.version {
	case 1:
		p[0x0c], p[0x0d] = 1, 4
		binary.BigEndian.PutUint32(p[0x10:], b.sum)
	case 2, 3:
		binary.BigEndian.PutUint32(p[0x10:], rawCRC(b.seed(), p))
	}
	b.seq++
	b.sum = ^uint32(0)
	return p
}

// crcBE is CRC-32 with the most significant bit first, made of the usual one,
// whose bits are the other way round.
func crcBE(crc uint32, p []byte) uint32 {
	reversed := make([]byte, len(p))
	for i, v := range p {
		reversed[i] = bits.Reverse8(v)
	}
	return bits.Reverse32(^crc32.Update(^bits.Reverse32(crc), crc32.IEEETable, reversed))
}
