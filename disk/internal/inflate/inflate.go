// Package inflate decodes raw DEFLATE streams (RFC 1951) from memory to memory, as
// the compressed clusters of qcow2 and the extents of btrfs are: the whole input is
// there, the size of the output is known, and there are hundreds of thousands of small
// streams.
//
// Knowing both ends, it decodes 8 bytes of input at a time into tables that are used
// again, and takes about half of the time of a decoder that reads from an io.Reader.
// The input is hostile: whatever it is, [Decode] ends after at most one step for each
// bit of it, writes nothing outside dst, takes no memory beyond its tables, and does
// not panic. It refuses what zlib refuses.
package inflate

import (
	"encoding/binary"
	"errors"
	"sync"
)

// Errors of [Decode].
var (
	// ErrShort: the input ends before the stream does.
	ErrShort = errors.New("the deflate stream is cut off")
	// ErrFull: the stream goes on when dst is full.
	ErrFull = errors.New("the deflate stream has more than there is room for")
	// ErrCorrupt: no compressor makes such a stream.
	ErrCorrupt = errors.New("the deflate stream is damaged")
)

// Decode decodes the stream that src starts with into dst. It returns how many bytes of
// dst are filled and how many of src were used, with any error: those before it are
// right. Bytes of dst behind n may have been written to. What follows the stream in src
// is not looked at.
func Decode(dst, src []byte) (n, used int, err error) {
	d := decoders.Get().(*decoder)
	d.dst, d.n, d.in = dst, 0, bits{src: src}
	err = d.stream()
	n, used = d.n, d.in.used()
	d.dst, d.in.src = nil, nil
	decoders.Put(d)
	return n, used, err
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decoder is the state of one stream. It costs 18 KiB, which is why it is kept.
type decoder struct {
	dst []byte
	n   int // filled of dst
	in  bits

	literals  literalTable
	distances distanceTable
	lengths   [maxSymbols]uint8 // of the codes of a block
}

// The types of a block (RFC 1951, 3.2.3).
const (
	blockStored = iota
	blockFixed
	blockDynamic
)

func (d *decoder) stream() error {
	for {
		// 1 bit: the last block; 2 bits: its type.
		head, err := d.in.take(3)
		if err != nil {
			return err
		}
		switch head >> 1 {
		case blockStored:
			err = d.stored()
		case blockFixed:
			fixed := fixedTables()
			err = d.compressed(&fixed.literals, &fixed.distances)
		case blockDynamic:
			if err = d.readTables(); err == nil {
				err = d.compressed(&d.literals, &d.distances)
			}
		default:
			err = ErrCorrupt
		}
		if err != nil || head&1 != 0 {
			return err
		}
	}
}

// stored copies a block that is not compressed (RFC 1951, 3.2.4): from the next byte
// on, its length, the complement of that, and its bytes.
func (d *decoder) stored() error {
	d.in.align()
	head, err := d.in.take(32)
	if err != nil {
		return err
	}
	length := int(head & 0xffff)
	if uint64(length) != ^head>>16&0xffff {
		return ErrCorrupt
	}
	data := d.in.rest()
	short := length > len(data)
	if short {
		length = len(data)
	}
	copied := copy(d.dst[d.n:], data[:length])
	d.n += copied
	d.in.skip(copied)
	switch {
	case copied < length:
		return ErrFull
	case short:
		return ErrShort
	}
	return nil
}

// The fast loop of a block needs this much room, in bytes: 8 of input are loaded at
// once, twice a turn; a turn makes at most four literals and a match, whose copy
// may write up to 16 bytes too many.
const (
	fastInput  = 16
	fastOutput = 4 + maxMatch + 16
	// shortMatch is up to where copying 8 bytes at a time beats calling copy.
	shortMatch = 40
)

// compressed decodes a block up to its end.
func (d *decoder) compressed(literals *literalTable, distances *distanceTable) error {
	if len(d.in.src)-d.in.pos >= fastInput && len(d.dst)-d.n >= fastOutput {
		if end, err := d.fast(literals, distances); end || err != nil {
			return err
		}
	}
	return d.careful(literals, distances)
}

// fast decodes as long as there is room at both ends. It reports the end of the block.
// Its state is in local variables, of which no closure may know: they would be in memory
// and not in registers.
func (d *decoder) fast(literals *literalTable, distances *distanceTable) (end bool, err error) {
	var (
		dst, src = d.dst, d.in.src
		n        = d.n
		pos      = d.in.pos
		buf, has = d.in.buf, d.in.has
	)
	lastIn, lastOut := len(src)-fastInput, len(dst)-fastOutput
loop:
	for pos <= lastIn && n <= lastOut {
		// At least 56 bits. What lies above them in buf is what comes next in the
		// input, too.
		buf |= binary.LittleEndian.Uint64(src[pos:]) << (has & 63)
		pos += int(63-has) >> 3
		has |= 56

		e := literals[buf&literalMask]
		if e&isLiteral != 0 { // at most 11 bits each
			out := (*[4]byte)(dst[n:])
			buf >>= e & lengthMask
			has -= uint(e & lengthMask)
			out[0] = byte(e >> 16)
			if e = literals[buf&literalMask]; e&isLiteral == 0 {
				n++
			} else {
				buf >>= e & lengthMask
				has -= uint(e & lengthMask)
				out[1] = byte(e >> 16)
				if e = literals[buf&literalMask]; e&isLiteral == 0 {
					n += 2
				} else {
					buf >>= e & lengthMask
					has -= uint(e & lengthMask)
					out[2] = byte(e >> 16)
					if e = literals[buf&literalMask]; e&isLiteral == 0 {
						n += 3
					} else {
						buf >>= e & lengthMask
						has -= uint(e & lengthMask)
						out[3] = byte(e >> 16)
						n += 4
						continue
					}
				}
			}
			// A match takes up to 48 bits.
			buf |= binary.LittleEndian.Uint64(src[pos:]) << (has & 63)
			pos += int(63-has) >> 3
			has |= 56
		}
		if e&(isSubtable|isEnd|isInvalid) != 0 {
			if e&isSubtable != 0 {
				e = literals[(e>>16+uint32(buf>>literalBits)&(1<<(e>>8&extraMask)-1))%uint32(len(literals))]
				if e&isLiteral != 0 {
					buf >>= e & lengthMask
					has -= uint(e & lengthMask)
					dst[n] = byte(e >> 16)
					n++
					continue
				}
			}
			if e&(isEnd|isInvalid) != 0 {
				if e&isInvalid != 0 {
					err = ErrCorrupt
					break loop
				}
				buf >>= e & lengthMask
				has -= uint(e & lengthMask)
				end = true
				break loop
			}
		}
		buf >>= e & lengthMask
		extra := e >> 8 & extraMask
		length := int(e>>16) + int(buf&(1<<extra-1))
		buf >>= extra
		has -= uint(e&lengthMask + extra)

		e = distances[buf&distanceMask]
		if e&(isSubtable|isInvalid) != 0 {
			if e&isSubtable != 0 {
				e = distances[(e>>16+uint32(buf>>distanceBits)&(1<<(e>>8&extraMask)-1))%uint32(len(distances))]
			}
			if e&isInvalid != 0 {
				err = ErrCorrupt
				break loop
			}
		}
		buf >>= e & lengthMask
		extra = e >> 8 & extraMask
		distance := int(e>>16) + int(buf&(1<<extra-1))
		buf >>= extra
		has -= uint(e&lengthMask + extra)

		if distance > n {
			err = ErrCorrupt
			break loop
		}
		if distance >= 8 && length <= shortMatch {
			// dst has room for 16 bytes more than the longest match.
			from, to := dst[n-distance:], dst[n:]
			binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(from))
			binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(from[8:]))
			for i := 16; i < length; i += 8 {
				binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
			}
		} else {
			repeat(dst, n, distance, length)
		}
		n += length
	}
	d.n, d.in.pos, d.in.buf, d.in.has = n, pos, buf, has
	return end, err
}

// repeat copies a match that may overlap what it is copied to. dst has room for it.
func repeat(dst []byte, n, distance, length int) {
	to := dst[n : n+length]
	for from := dst[n-distance : n]; len(to) > 0; from = dst[n-distance : n] {
		copied := copy(to, from)
		to, n, distance = to[copied:], n+copied, distance+copied
	}
}

// careful decodes symbol by symbol, where an end is near, up to the end of the block.
func (d *decoder) careful(literals *literalTable, distances *distanceTable) error {
	for {
		symbol, err := d.in.symbol(literals[:], literalBits)
		if err != nil {
			return err
		}
		switch {
		case symbol&isEnd != 0:
			return nil
		case symbol&isLiteral != 0:
			if d.n == len(d.dst) {
				return ErrFull
			}
			d.dst[d.n] = byte(symbol >> 16)
			d.n++
		default:
			if err := d.match(symbol, distances); err != nil {
				return err
			}
		}
	}
}

// match copies what a length symbol and the distance behind it stand for.
func (d *decoder) match(symbol uint32, distances *distanceTable) error {
	extra, err := d.in.take(uint(symbol >> 8 & extraMask))
	if err != nil {
		return err
	}
	length := int(symbol>>16) + int(extra)
	if symbol, err = d.in.symbol(distances[:], distanceBits); err != nil {
		return err
	}
	if extra, err = d.in.take(uint(symbol >> 8 & extraMask)); err != nil {
		return err
	}
	distance := int(symbol>>16) + int(extra)
	if distance > d.n {
		return ErrCorrupt
	}
	room := min(length, len(d.dst)-d.n)
	repeat(d.dst, d.n, distance, room)
	d.n += room
	if room < length {
		return ErrFull
	}
	return nil
}
