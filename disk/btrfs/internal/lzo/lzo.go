// Package lzo decompresses LZO1X, one of the compressions of btrfs.
//
// The format is that of Documentation/staging/lzo.rst of Linux, version 0: a
// stream of instructions, each of which copies some bytes of the output and then
// some of the input.
package lzo

import (
	"encoding/binary"
	"errors"
)

// The ways in which a stream can be wrong.
var (
	ErrShort    = errors.New("the compressed data ends within an instruction")
	ErrRoom     = errors.New("there is more data than the output has room for")
	ErrDistance = errors.New("an instruction refers to what is before the start")
)

const (
	// firstOffset is what the first byte, if it is above 17, has over the
	// number of literals that it stands for.
	firstOffset = 17
	// endDistance is the distance that ends a stream.
	endDistance = 1 << 14
	// farDistance is what a short instruction after many literals adds.
	farDistance = 1 << 11
	// manyLiterals is the state after a run of literals of its own.
	manyLiterals = 4
)

// decoder is a stream that is being decompressed.
type decoder struct {
	in  []byte // what is left
	out []byte
	n   int // of out, that is written
	// state is how many literals the last instruction ended with, or
	// manyLiterals.
	state int
}

// Decompress decompresses the stream in in to the start of out, and returns how
// many bytes that makes. What follows the end of the stream is not looked at.
func Decompress(out, in []byte) (int, error) {
	d := decoder{in: in, out: out}
	if len(in) > 0 && in[0] > firstOffset {
		count := int(in[0]) - firstOffset
		d.in = in[1:]
		if err := d.literals(count); err != nil {
			return 0, err
		}
		d.state = min(count, manyLiterals)
	}
	for {
		end, err := d.instruction()
		if end || err != nil {
			return d.n, err
		}
	}
}

// instruction does one step. Each takes at least one byte of the input.
func (d *decoder) instruction() (end bool, err error) {
	if len(d.in) == 0 {
		return false, ErrShort
	}
	op := int(d.in[0])
	d.in = d.in[1:]
	switch {
	case op >= 64:
		length := op>>5 + 1
		return false, d.near(op, length, op>>2&7, 3, 1)
	case op >= 32:
		return false, d.far(op&31, 31, 0)
	case op >= 16:
		err := d.far(op&7, 7, endDistance+(op&8)<<11)
		return errors.Is(err, errEnd), ignoreEnd(err)
	case d.state == 0:
		return false, d.run(op)
	case d.state == manyLiterals:
		return false, d.near(op, 3, op>>2, 2, 1+farDistance)
	}
	return false, d.near(op, 2, op>>2, 2, 1)
}

var errEnd = errors.New("end")

func ignoreEnd(err error) error {
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// near copies length bytes from a distance that is in op and in one more byte.
func (d *decoder) near(op, length, low, shift, base int) error {
	if len(d.in) == 0 {
		return ErrShort
	}
	distance := int(d.in[0])<<shift + low + base
	d.in = d.in[1:]
	return d.match(distance, length, op&3)
}

// far copies from a distance in two more bytes, behind the rest of the length.
func (d *decoder) far(length, most, base int) error {
	length, err := d.length(length, most)
	if err != nil {
		return err
	}
	if len(d.in) < 2 {
		return ErrShort
	}
	word := int(binary.LittleEndian.Uint16(d.in))
	d.in = d.in[2:]
	distance := base + word>>2
	if base > 0 && distance == endDistance {
		return errEnd
	}
	if base == 0 {
		distance++
	}
	return d.match(distance, length+2, word&3)
}

// length completes a length whose bits in the instruction are 0: it has most,
// 255 for each byte of 0, and the byte after those.
func (d *decoder) length(length, most int) (int, error) {
	if length != 0 {
		return length, nil
	}
	for i, b := range d.in {
		if b != 0 {
			d.in = d.in[i+1:]
			return most + 255*i + int(b), nil
		}
	}
	return 0, ErrShort
}

// run copies a run of at least 4 literals.
func (d *decoder) run(op int) error {
	length, err := d.length(op, 15)
	if err != nil {
		return err
	}
	d.state = manyLiterals
	return d.literals(length + 3)
}

func (d *decoder) literals(count int) error {
	if count > len(d.in) {
		return ErrShort
	}
	if count > len(d.out)-d.n {
		return ErrRoom
	}
	d.n += copy(d.out[d.n:], d.in[:count])
	d.in = d.in[count:]
	return nil
}

// match copies length bytes of the output, which may overlap where they go, and
// then literals.
func (d *decoder) match(distance, length, literals int) error {
	if distance > d.n {
		return ErrDistance
	}
	if length > len(d.out)-d.n {
		return ErrRoom
	}
	for length > 0 {
		// What is there repeats: each round can copy twice as much.
		n := copy(d.out[d.n:d.n+length], d.out[d.n-distance:d.n])
		d.n += n
		length -= n
		distance += n
	}
	d.state = literals
	return d.literals(literals)
}
