package lzo_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/drydock-vm/drydock/disk/btrfs/internal/lzo"
)

// stream is a compressed stream that a test makes, and what it holds.
type stream struct {
	in, out []byte
	state   int // as the format defines it: literals behind the last match, or 4
}

// length appends what a length has beyond most, in bytes of 255 each.
func (s *stream) length(rest int) {
	for ; rest > 255; rest -= 255 {
		s.in = append(s.in, 0)
	}
	s.in = append(s.in, byte(rest))
}

// literals adds a run of at least 4.
func (s *stream) literals(p []byte) {
	switch n := len(p); {
	case len(s.out) == 0 && n <= 238:
		s.in = append(s.in, byte(n+17))
	case n <= 18:
		s.in = append(s.in, byte(n-3))
	default:
		s.in = append(s.in, 0)
		s.length(n - 18)
	}
	s.add(p)
	s.state = 4
}

func (s *stream) add(p []byte) {
	s.in = append(s.in, p...)
	s.out = append(s.out, p...)
}

// match copies length bytes from a distance, by the first instruction that can,
// and adds up to 3 literals.
func (s *stream) match(distance, length int, p []byte) {
	far := func(op, most, distance int) {
		if length-2 <= most {
			s.in = append(s.in, byte(op|(length-2)))
		} else {
			s.in = append(s.in, byte(op))
			s.length(length - 2 - most)
		}
		s.in = binary.LittleEndian.AppendUint16(s.in, uint16(distance<<2|len(p)))
	}
	near := func(op, low, high int) { s.in = append(s.in, byte(op|low<<2|len(p)), byte(high)) }
	switch {
	case length == 2 && distance <= 1<<10 && s.state > 0 && s.state < 4:
		near(0, (distance-1)&3, (distance-1)>>2)
	case length == 3 && distance > 1<<11 && distance <= 3<<10 && s.state == 4:
		near(0, (distance-2049)&3, (distance-2049)>>2)
	case length >= 3 && length <= 4 && distance <= 1<<11:
		near(64|(length-3)<<5, (distance-1)&7, (distance-1)>>3)
	case length >= 5 && length <= 8 && distance <= 1<<11:
		near(128|(length-5)<<5, (distance-1)&7, (distance-1)>>3)
	case distance <= 1<<14:
		far(32, 31, distance-1)
	default:
		far(16|(distance-1<<14)>>14<<3, 7, (distance-1<<14)&(1<<14-1))
	}
	for range length {
		s.out = append(s.out, s.out[len(s.out)-distance])
	}
	s.add(p)
	s.state = len(p)
}

// end adds the instruction that ends a stream, and padding.
func (s *stream) end() { s.in = append(s.in, 17, 0, 0, 0xff, 0xff) }

// random makes a stream of all instructions.
func random(r *rand.Rand) *stream {
	s := &stream{}
	noise := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	s.literals(noise(4 + r.IntN(300)))
	for len(s.out) < 60_000 {
		if s.state == 0 && r.IntN(2) == 0 {
			s.literals(noise(4 + r.IntN(600)))
			continue
		}
		distance := 1 + r.IntN(min(len(s.out), 1<<(1+r.IntN(16)), 49_151))
		if distance == 1<<14 {
			distance-- // the far form of it is the end
		}
		length := 2 + r.IntN(1<<r.IntN(10))
		if length == 2 && (distance > 1<<10 || s.state == 0 || s.state == 4) {
			length = 3 // only one instruction can copy 2
		}
		s.match(distance, length, noise(r.IntN(4)))
	}
	s.end()
	return s
}

// TestRandom decompresses streams of all instructions.
func TestRandom(t *testing.T) {
	for seed := range uint64(50) {
		s := random(rand.New(rand.NewPCG(seed, 1)))
		out := make([]byte, len(s.out)+10)
		n, err := lzo.Decompress(out, s.in)
		if err != nil || !bytes.Equal(out[:n], s.out) {
			t.Fatalf("seed %d: %d of %d bytes, %v", seed, n, len(s.out), err)
		}
		if n, err := lzo.Decompress(out[:len(s.out)-1], s.in); !errors.Is(err, lzo.ErrRoom) || n >= len(s.out) {
			t.Fatalf("seed %d: %d bytes without room for them: %v", seed, n, err)
		}
		for _, cut := range []int{0, 1, 10, len(s.in) / 2, len(s.in) - 3} {
			if n, err := lzo.Decompress(out, s.in[:cut]); !errors.Is(err, lzo.ErrShort) {
				t.Fatalf("seed %d: cut at %d of %d: %d bytes, %v", seed, cut, len(s.in), n, err)
			}
		}
	}
}

// TestWrong has streams that cannot be.
func TestWrong(t *testing.T) {
	for name, c := range map[string]struct {
		in  []byte
		err error
	}{
		"nothing":           {nil, lzo.ErrShort},
		"before the start":  {[]byte{18, 'a', 64, 1, 17, 0, 0}, lzo.ErrDistance},
		"endless length":    {append([]byte{0}, make([]byte, 1000)...), lzo.ErrShort},
		"nothing yet":       {[]byte{17, 4, 0, 17, 0, 0}, lzo.ErrDistance},
		"no end":            {[]byte{21, 'a', 'b', 'c', 'd'}, lzo.ErrShort},
		"half a far match":  {[]byte{21, 'a', 'b', 'c', 'd', 33, 0}, lzo.ErrShort},
		"half a near match": {[]byte{21, 'a', 'b', 'c', 'd', 64}, lzo.ErrShort},
	} {
		if n, err := lzo.Decompress(make([]byte, 4096), c.in); !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v; want %v", name, n, err, c.err)
		}
	}
}

// FuzzDecompress checks that what comes out lies in its room, and that a stream
// says the same whatever follows it.
func FuzzDecompress(f *testing.F) {
	s := random(rand.New(rand.NewPCG(1, 1)))
	f.Add(s.in)
	f.Add([]byte{21, 'a', 'b', 'c', 'd', 33, 0, 0, 17, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		out := bytes.Repeat([]byte{0xa5}, 5000)
		n, err := lzo.Decompress(out[:4096], in)
		if n > 4096 || bytes.Count(out[4096:], []byte{0xa5}) != len(out)-4096 {
			t.Fatalf("%d bytes in a room of 4096", n)
		}
		if err != nil {
			return
		}
		again := make([]byte, 4096)
		m, err := lzo.Decompress(again, append(bytes.Clone(in), 1, 2, 3))
		if err != nil || !bytes.Equal(again[:m], out[:n]) {
			t.Fatalf("with something behind it the stream is another: %v", err)
		}
	})
}
