package qcow2

import (
	"encoding/binary"
	"errors"
)

// This is a decoder of deflate (RFC 1951) from memory to memory. That is all that
// a compressed cluster needs, and half the time of the decoders that serve
// streams: those keep a window of their own and take their input byte by byte.

var (
	errBlockType = errors.New("a block of a reserved type")
	errStored    = errors.New("the length of a stored block and its complement disagree")
	errCode      = errors.New("a code that is not in use")
	errDistance  = errors.New("a match that begins before the cluster")
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

// inflater decodes one stream at a time. It is large, and for use again.
type inflater struct {
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

// inflate fills cluster from in. As QEMU does, it asks that the cluster be
// filled, and not that the stream end there; but what the stream goes on with
// must be possible, because that is what tells damage in the last bytes.
func (f *inflater) inflate(cluster, in []byte) error {
	f.in, f.pos, f.bits, f.n = in, 0, 0, 0
	defer func() { f.in = nil }()
	done := 0
	for last := false; !last; {
		header, err := f.take(3)
		if err != nil {
			return f.end(err, done == len(cluster))
		}
		last = header&1 != 0
		switch header >> 1 {
		case 0:
			done, err = f.stored(cluster, done)
		case 1:
			f.fixed()
			done, err = f.block(cluster, done)
		case 2:
			if err = f.dynamic(); err == nil {
				done, err = f.block(cluster, done)
			}
		default:
			err = errBlockType
		}
		if errors.Is(err, errFull) {
			return nil
		}
		if err != nil {
			return f.end(err, done == len(cluster))
		}
	}
	return f.end(errShort, done == len(cluster))
}

// errFull ends a block that goes on behind the cluster.
var errFull = errors.New("the cluster is full")

// end is the outcome of a stream that cannot go on: an end is one if the cluster
// is full.
func (f *inflater) end(err error, full bool) error {
	if full && errors.Is(err, errShort) {
		return nil
	}
	return err
}

// need makes n bits available, at most 32.
func (f *inflater) need(n uint) error {
	for f.n < n {
		if f.pos == len(f.in) {
			return errShort
		}
		f.bits |= uint64(f.in[f.pos]) << f.n
		f.pos++
		f.n += 8
	}
	return nil
}

func (f *inflater) drop(n uint) {
	f.bits >>= n
	f.n -= n
}

// take returns the next n bits, at most 32.
func (f *inflater) take(n uint) (uint, error) {
	if err := f.need(n); err != nil {
		return 0, err
	}
	v := uint(f.bits & (1<<n - 1))
	f.drop(n)
	return v, nil
}

// stored copies a block that is not compressed: after padding to a byte, its
// length and the complement of that in 16 bits each, little-endian.
func (f *inflater) stored(cluster []byte, done int) (int, error) {
	f.drop(f.n % 8)
	v, err := f.take(32)
	if err != nil {
		return done, err
	}
	length := int(v & 0xffff)
	if v>>16^0xffff != v&0xffff {
		return done, errStored
	}
	f.pos -= int(f.n / 8) // back to what has not been used
	f.bits, f.n = 0, 0
	n := copy(cluster[done:], f.in[f.pos:min(f.pos+length, len(f.in))])
	f.pos += n
	done += n
	switch {
	case n == length:
		return done, nil
	case done == len(cluster):
		return done, errFull
	}
	return done, errShort
}

// block decodes the symbols of a block, up to its end.
func (f *inflater) block(cluster []byte, done int) (int, error) {
	for {
		if f.pos+fastIn <= len(f.in) && done+fastOut <= len(cluster) {
			next, ended, err := f.fast(cluster, done)
			if ended || err != nil {
				return next, err
			}
			done = next
		}
		next, ended, err := f.slow(cluster, done)
		if ended || err != nil {
			return next, err
		}
		done = next
	}
}

// fast decodes symbols as long as there is enough of everything not to look at
// each step. It works on copies of the state, which the compiler can keep in
// registers.
func (f *inflater) fast(cluster []byte, done int) (_ int, ended bool, err error) {
	in, pos, b, n := f.in, f.pos, f.bits, f.n
	literals, distances := f.literals, f.distances
	for pos+fastIn <= len(in) && done+fastOut <= len(cluster) {
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56 // bits, enough for two literals and a length
		e := literals.find(b)
		if e&isLiteral != 0 {
			b, n = b>>(e&15), n-uint(e&15)
			cluster[done] = byte(e >> valueShift)
			done++
			if e = literals.find(b); e&isLiteral != 0 {
				b, n = b>>(e&15), n-uint(e&15)
				cluster[done] = byte(e >> valueShift)
				done++
				if e = literals.find(b); e&isLiteral != 0 {
					b, n = b>>(e&15), n-uint(e&15)
					cluster[done] = byte(e >> valueShift)
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
		copyMatch(cluster, done, distance, length)
		done += length
	}
	f.pos, f.bits, f.n = pos, b, n
	return done, ended, err
}

// copyMatch copies length bytes of cluster from distance before done. It may
// write 7 bytes more.
func copyMatch(cluster []byte, done, distance, length int) {
	from := cluster[done-distance:]
	to := cluster[done : done+length+8]
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
func (f *inflater) slow(cluster []byte, done int) (int, bool, error) {
	e, err := f.symbol(f.literals.find)
	switch {
	case err != nil:
		return done, false, err
	case e&isEnd != 0:
		return done, true, nil
	case e&isLiteral != 0:
		if done == len(cluster) {
			return done, false, errFull
		}
		cluster[done] = byte(e >> valueShift)
		return done + 1, false, nil
	}
	extra, err := f.take(uint(e >> extraShift & 15))
	if err != nil {
		return done, false, err
	}
	length := int(e>>valueShift&valueMask) + int(extra)
	if e, err = f.symbol(f.distances.find); err != nil {
		return done, false, err
	}
	if extra, err = f.take(uint(e >> extraShift & 15)); err != nil {
		return done, false, err
	}
	distance := int(e>>valueShift&valueMask) + int(extra)
	if distance > done {
		return done, false, errDistance
	}
	full := length > len(cluster)-done
	for range min(length, len(cluster)-done) {
		cluster[done] = cluster[done-distance]
		done++
	}
	if full {
		return done, false, errFull
	}
	return done, false, nil
}

// symbol takes the next symbol of a table.
func (f *inflater) symbol(find func(uint64) entry) (entry, error) {
	// An input that ends within maxCode bits goes on with zeros here, which make
	// no code that is not in use of one that is.
	_ = f.need(maxCode)
	e := find(f.bits)
	switch {
	case e == 0:
		return 0, errCode
	case uint(e&15) > f.n:
		return 0, errShort
	}
	f.drop(uint(e & 15))
	return e, nil
}
