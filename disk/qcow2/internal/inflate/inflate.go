// Package inflate decodes deflate (RFC 1951) from memory to memory, without
// trusting a bit of it.
//
// That is all that a compressed cluster needs, and it takes two thirds of the time
// of the decoders that serve streams, which keep a window of their own and take
// their input byte by byte. It supports all of deflate. It promises to fill its
// output with what the standard library's decoder would, which is the reference of
// its tests, or to return an error; and to write nowhere else.
package inflate

import (
	"encoding/binary"
	"errors"
)

// errShort ends a stream, or what there is of it, that is not enough.
var errShort = errors.New("the data ends before the output is full")

var (
	errBlockType = errors.New("a block of a reserved type")
	errStored    = errors.New("the length of a stored block and its complement disagree")
	errCode      = errors.New("a code that is not in use")
	errDistance  = errors.New("a match that begins before the output")
)

const (
	// maxMatch is the longest match, in bytes.
	maxMatch = 258
	// fastIn and fastOut are how far from the ends of its input and its output
	// the fast loop stays: it takes 8 bytes at a time, up to twice a round, and
	// writes three literals and a match, that in steps of 8 bytes.
	fastIn  = 16
	fastOut = 3 + maxMatch + 8
)

// Decoder decodes one stream at a time. It is large, and for use again; its zero
// value is ready.
type Decoder struct {
	in  []byte
	pos int // of the next byte of in
	// bits are the next ones, the first of them lowest, of which n count; what
	// lies above those is what will be there.
	bits uint64
	n    uint

	// literals and distances are the tables of the block: fixed, or the own ones.
	literals     *literalTable
	distances    *distanceTable
	ownLiterals  literalTable
	ownDistances distanceTable
	lengths      [maxLiterals + maxDistances]uint8
}

// Decode fills out from the stream that in starts with. As QEMU does, it asks that
// out be filled, and not that the stream end there; but what the stream goes on
// with must be possible, because that is what tells damage in the last bytes.
func (d *Decoder) Decode(out, in []byte) error {
	d.in, d.pos, d.bits, d.n = in, 0, 0, 0
	defer func() { d.in = nil }()
	done := 0
	for last := false; !last; {
		header, err := d.take(3)
		if err != nil {
			return d.end(err, done == len(out))
		}
		last = header&1 != 0
		switch header >> 1 {
		case 0:
			done, err = d.stored(out, done)
		case 1:
			d.fixed()
			done, err = d.block(out, done)
		case 2:
			if err = d.dynamic(); err == nil {
				done, err = d.block(out, done)
			}
		default:
			err = errBlockType
		}
		if errors.Is(err, errFull) {
			return nil
		}
		if err != nil {
			return d.end(err, done == len(out))
		}
	}
	return d.end(errShort, done == len(out))
}

// errFull ends a block that goes on behind the output.
var errFull = errors.New("the output is full")

// end is the outcome of a stream that cannot go on: running short is none
// if the output is full.
func (d *Decoder) end(err error, full bool) error {
	if full && errors.Is(err, errShort) {
		return nil
	}
	return err
}

// need makes n bits available, at most 32.
func (d *Decoder) need(n uint) error {
	for d.n < n {
		if d.pos == len(d.in) {
			return errShort
		}
		d.bits |= uint64(d.in[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
	return nil
}

func (d *Decoder) drop(n uint) {
	d.bits >>= n
	d.n -= n
}

// take returns the next n bits, at most 32.
func (d *Decoder) take(n uint) (uint, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := uint(d.bits & (1<<n - 1))
	d.drop(n)
	return v, nil
}

// stored copies a block that is not compressed: after padding to a byte, its
// length and the complement of that in 16 bits each, little-endian.
func (d *Decoder) stored(out []byte, done int) (int, error) {
	d.drop(d.n % 8)
	v, err := d.take(32)
	if err != nil {
		return done, err
	}
	length := int(v & 0xffff)
	if v>>16^0xffff != v&0xffff {
		return done, errStored
	}
	d.pos -= int(d.n / 8) // back to what has not been used
	d.bits, d.n = 0, 0
	n := copy(out[done:], d.in[d.pos:min(d.pos+length, len(d.in))])
	d.pos += n
	done += n
	switch {
	case n == length:
		return done, nil
	case done == len(out):
		return done, errFull
	}
	return done, errShort
}

// block decodes the symbols of a block, up to its end.
func (d *Decoder) block(out []byte, done int) (int, error) {
	for {
		if d.pos+fastIn <= len(d.in) && done+fastOut <= len(out) {
			next, ended, err := d.fast(out, done)
			if ended || err != nil {
				return next, err
			}
			done = next
		}
		next, ended, err := d.slow(out, done)
		if ended || err != nil {
			return next, err
		}
		done = next
	}
}

// fast decodes symbols as long as there is enough of everything not to look at
// each step. It works on copies of the state, which the compiler can keep in
// registers.
func (d *Decoder) fast(out []byte, done int) (_ int, ended bool, err error) {
	in, pos, b, n := d.in, d.pos, d.bits, d.n
	literals, distances := d.literals, d.distances
	for pos+fastIn <= len(in) && done+fastOut <= len(out) {
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56 // bits, enough for two literals and a length
		e := literals.find(b)
		if e&isLiteral != 0 {
			b, n = b>>(e&15), n-uint(e&15)
			out[done] = byte(e >> valueShift)
			done++
			if e = literals.find(b); e&isLiteral != 0 {
				b, n = b>>(e&15), n-uint(e&15)
				out[done] = byte(e >> valueShift)
				done++
				if e = literals.find(b); e&isLiteral != 0 {
					b, n = b>>(e&15), n-uint(e&15)
					out[done] = byte(e >> valueShift)
					done++
					continue
				}
			}
		}
		if e == 0 {
			err = errCode
			break
		}
		b, n = b>>(e&15), n-uint(e&15)
		if e&isEnd != 0 {
			ended = true
			break
		}
		extra := e >> extraShift & 15
		length := int(e>>valueShift&valueMask) + int(b&(1<<extra-1))
		b, n = b>>extra, n-uint(extra)

		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		if e = distances.find(b); e == 0 {
			err = errCode
			break
		}
		b, n = b>>(e&15), n-uint(e&15)
		extra = e >> extraShift & 15
		distance := int(e>>valueShift&valueMask) + int(b&(1<<extra-1))
		b, n = b>>extra, n-uint(extra)
		if distance > done {
			err = errDistance
			break
		}
		copyMatch(out, done, distance, length)
		done += length
	}
	d.pos, d.bits, d.n = pos, b, n
	return done, ended, err
}

// copyMatch copies length bytes of out from distance before done. It may
// write 7 bytes more.
func copyMatch(out []byte, done, distance, length int) {
	from := out[done-distance:]
	to := out[done : done+length+8]
	if distance >= 8 {
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
		return
	}
	for i := range length {
		to[i] = from[i]
	}
}

// slow decodes one symbol, and looks at each step.
func (d *Decoder) slow(out []byte, done int) (int, bool, error) {
	e, err := d.symbol(d.literals.find)
	switch {
	case err != nil:
		return done, false, err
	case e&isEnd != 0:
		return done, true, nil
	case e&isLiteral != 0:
		if done == len(out) {
			return done, false, errFull
		}
		out[done] = byte(e >> valueShift)
		return done + 1, false, nil
	}
	extra, err := d.take(uint(e >> extraShift & 15))
	if err != nil {
		return done, false, err
	}
	length := int(e>>valueShift&valueMask) + int(extra)
	if e, err = d.symbol(d.distances.find); err != nil {
		return done, false, err
	}
	if extra, err = d.take(uint(e >> extraShift & 15)); err != nil {
		return done, false, err
	}
	distance := int(e>>valueShift&valueMask) + int(extra)
	if distance > done {
		return done, false, errDistance
	}
	full := length > len(out)-done
	for range min(length, len(out)-done) {
		out[done] = out[done-distance]
		done++
	}
	if full {
		return done, false, errFull
	}
	return done, false, nil
}

// symbol takes the next symbol of a table.
func (d *Decoder) symbol(find func(uint64) entry) (entry, error) {
	// An input that ends within maxCode bits goes on with zeros here, which make
	// no code that is not in use of one that is.
	_ = d.need(maxCode)
	e := find(d.bits)
	switch {
	case e == 0:
		return 0, errCode
	case uint(e&15) > d.n:
		return 0, errShort
	}
	d.drop(uint(e & 15))
	return e, nil
}
