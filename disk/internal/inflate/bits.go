package inflate

import "encoding/binary"

// bits are the bits of src, the lowest of each byte first.
type bits struct {
	src []byte
	pos int    // of src that is in buf
	buf uint64 // the next bits; above has, zeros or what comes next in src
	has uint   // bits of buf that count
}

// fill has at least 56 bits in buf, or all that are left.
func (b *bits) fill() {
	if len(b.src)-b.pos >= 8 {
		b.buf |= binary.LittleEndian.Uint64(b.src[b.pos:]) << (b.has & 63)
		b.pos += int(63-b.has) >> 3
		b.has |= 56
		return
	}
	for ; b.has < 56 && b.pos < len(b.src); b.pos++ {
		b.buf |= uint64(b.src[b.pos]) << b.has
		b.has += 8
	}
}

// take returns the next n bits, of which there are at most 32.
func (b *bits) take(n uint) (uint64, error) {
	if b.has < n {
		if b.fill(); b.has < n {
			return 0, ErrShort
		}
	}
	v := b.buf & (1<<n - 1)
	b.buf >>= n
	b.has -= n
	return v, nil
}

// symbol returns the table's entry for the next symbol, and moves on behind it.
func (b *bits) symbol(table []uint32, primary uint) (uint32, error) {
	b.fill()
	e := table[b.buf&(1<<primary-1)]
	if e&isSubtable != 0 {
		e = table[e>>16+uint32(b.buf>>primary)&(1<<(e>>8&extraMask)-1)]
	}
	length := uint(e & lengthMask)
	if length > b.has {
		return 0, ErrShort
	}
	if e&isInvalid != 0 {
		if b.has < maxCodeLength && b.pos == len(b.src) {
			return 0, ErrShort // what is missing could have made it another one
		}
		return 0, ErrCorrupt
	}
	b.buf >>= length
	b.has -= length
	return e, nil
}

// align goes on to the next whole byte.
func (b *bits) align() {
	b.buf >>= b.has & 7
	b.has &^= 7
}

// rest returns the bytes from here on. The bits are aligned.
func (b *bits) rest() []byte { return b.src[b.used():] }

// skip goes n bytes on from where rest begins.
func (b *bits) skip(n int) {
	b.pos = b.used() + n
	b.buf, b.has = 0, 0
}

// used returns how many bytes are used, the last perhaps in part.
func (b *bits) used() int { return b.pos - int(b.has>>3) }
