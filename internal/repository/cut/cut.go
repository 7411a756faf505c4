// Package cut cuts streams into chunks by their content, at the very places where
// restic does (github.com/restic/chunker): what one has stored the other does not store
// again.
//
// A chunk ends behind a byte where the Rabin fingerprint of the last 64 bytes, modulo
// the repository's polynomial, ends in 20 zero bits; no chunk but the last is shorter
// than the least size, and none is longer than the most. The fingerprint at one place
// does not depend on those before it. So four parts of the data are gone through at the
// same time, where one would have to wait for memory at each byte: it takes about a
// third of the time, and the data is not copied on the way.
package cut

import (
	"errors"
	"io"
	"slices"

	"github.com/restic/chunker"
)

const (
	// Degree is that of the polynomials that can be used.
	Degree = 53

	window = 64        // bytes in a fingerprint
	mask   = 1<<20 - 1 // the bits that are zero at an end: 1 MiB from end to end
	lanes  = 4
	step   = 4 << 10 // bytes that a lane goes through at a time
	block  = lanes * step
	// readSize is how much is asked of the stream at a time, in bytes.
	readSize = 512 << 10
)

// Tables are what cutting with a polynomial needs. They do not change, and are to be
// used again.
type Tables struct {
	out [256]uint64 // what a byte adds to the fingerprint when it leaves the window
	mod [256]uint64 // what the bits above the degree come to, and those bits
}

// NewTables returns the tables of an irreducible polynomial of degree [Degree].
func NewTables(p chunker.Pol) *Tables {
	t := new(Tables)
	for b := range uint64(256) {
		h := chunker.Pol(b).Mod(p)
		for range window - 1 {
			h = (h << 8).Mod(p)
		}
		t.out[b] = uint64(h)
		t.mod[b] = uint64(chunker.Pol(b<<Degree).Mod(p)) | b<<Degree
	}
	return t
}

// Cutter cuts one stream.
type Cutter struct {
	t         *Tables
	least     int
	most      int
	rd        io.Reader
	rest      []byte // what was read of the next chunk
	exhausted bool
}

// New returns a cutter for chunks of least to most bytes; least is at least 64.
func New(t *Tables, least, most int) *Cutter { return &Cutter{t: t, least: least, most: most} }

// Reset begins with another stream.
func (c *Cutter) Reset(rd io.Reader) { c.rd, c.rest, c.exhausted = rd, c.rest[:0], false }

// Next returns the next chunk, in buf where that has room. Behind the last chunk the
// error is io.EOF; one of the stream is returned as it is.
func (c *Cutter) Next(buf []byte) ([]byte, error) {
	buf = append(buf[:0], c.rest...)
	c.rest = c.rest[:0]
	for searched := c.least; ; {
		last := min(len(buf), c.most)
		if end := c.t.find(buf[:last], searched); end > 0 {
			return c.end(buf, end), nil
		}
		if last == c.most {
			return c.end(buf, last), nil
		}
		searched = max(searched, last+1)
		if c.exhausted {
			break
		}
		var err error
		if buf, err = c.read(buf); err != nil {
			return nil, err
		}
	}
	if len(buf) == 0 {
		return nil, io.EOF
	}
	return buf, nil
}

// end keeps what follows the chunk in buf for the next one.
func (c *Cutter) end(buf []byte, end int) []byte {
	c.rest = append(c.rest, buf[end:]...)
	return buf[:end]
}

// read appends more of the stream to buf.
func (c *Cutter) read(buf []byte) ([]byte, error) {
	n := len(buf)
	buf = slices.Grow(buf, readSize)
	got, err := io.ReadFull(c.rd, buf[n:n+readSize])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.exhausted, err = true, nil
	}
	return buf[:n+got], err
}

// find returns the first end of a chunk that data begins with, from length first on;
// 0 if there is none.
func (t *Tables) find(data []byte, first int) int {
	for ; first+block <= len(data); first += block {
		if end := t.findWide((*[window + block]byte)(data[first-window:])); end >= 0 {
			return first + end
		}
	}
	if first > len(data) {
		return 0
	}
	d := t.fingerprint(data[first-window : first])
	for ; d&mask != 0; first++ {
		if first == len(data) {
			return 0
		}
		d = t.slide(d, data[first-window], data[first])
	}
	return first
}

// findWide returns the first place behind the first window of data at which a chunk
// may end, of block places; -1 if there is none.
func (t *Tables) findWide(data *[window + block]byte) int {
	var (
		d0 = t.fingerprint(data[0*step:][:window])
		d1 = t.fingerprint(data[1*step:][:window])
		d2 = t.fingerprint(data[2*step:][:window])
		d3 = t.fingerprint(data[3*step:][:window])
		at = [lanes]int{-1, -1, -1, -1}
	)
	for i := range step {
		if d0&mask == 0 {
			return i
		}
		if d1&mask == 0 && at[1] < 0 {
			at[1] = i + 1*step
		}
		if d2&mask == 0 && at[2] < 0 {
			at[2] = i + 2*step
		}
		if d3&mask == 0 && at[3] < 0 {
			at[3] = i + 3*step
		}
		d0 = t.slide(d0, data[i+0*step], data[i+0*step+window])
		d1 = t.slide(d1, data[i+1*step], data[i+1*step+window])
		d2 = t.slide(d2, data[i+2*step], data[i+2*step+window])
		d3 = t.slide(d3, data[i+3*step], data[i+3*step+window])
	}
	for _, found := range at {
		if found >= 0 {
			return found
		}
	}
	return -1
}

// fingerprint returns that of a window.
func (t *Tables) fingerprint(data []byte) (d uint64) {
	for _, b := range data {
		d = t.add(d, b)
	}
	return d
}

// slide moves the window of a fingerprint on by a byte.
func (t *Tables) slide(d uint64, out, in byte) uint64 { return t.add(d^t.out[out], in) }

// add is the fingerprint with a byte more, of which those before d have Degree bits.
func (t *Tables) add(d uint64, b byte) uint64 {
	return (d<<8 | uint64(b)) ^ t.mod[uint8(d>>(Degree-8))]
}
