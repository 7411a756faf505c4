package inflate_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	klauspost "github.com/klauspost/compress/flate"

	"github.com/drydock-vm/drydock/disk/internal/inflate"
)

// contents are inputs of compressors: what makes all kinds of blocks, codes longer than
// the tables' primary bits, matches near and far, and none.
func contents() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 70_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	var words []byte
	for len(words) < 200_000 {
		words = fmt.Appendf(words, "%d the %s of item %d\n", rnd.IntN(10), bytes.Repeat([]byte("ab"), rnd.IntN(9)), rnd.IntN(3000))
	}
	// Each byte half as often as the one before it: codes of up to 15 bits.
	var skewed []byte
	for range 150_000 {
		b := byte(0)
		for b < 40 && rnd.IntN(2) == 0 {
			b++
		}
		skewed = append(skewed, b*5)
	}
	var far []byte
	for range 6 {
		far = append(far, noise[:32_000]...)
	}
	return map[string][]byte{
		"empty": {}, "one byte": {'x'}, "zeros": make([]byte, 300_000), "noise": noise, "words": words,
		"skewed": skewed, "far": far, "pairs": bytes.Repeat([]byte("xy"), 40_000),
		"near": bytes.Repeat([]byte("1234567"), 30_000), "letters": bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz"), 900),
		"mixed": append(append(bytes.Clone(words[:9000]), noise[:9000]...), make([]byte, 9000)...),
	}
}

func deflate(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestDecode: what a compressor made comes back, whatever follows it, and however much
// room there is.
func TestDecode(t *testing.T) {
	for name, data := range contents() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
			t.Run(fmt.Sprintf("%s/%d", name, level), func(t *testing.T) {
				packed := deflate(t, data, level)
				for _, behind := range [][]byte{nil, make([]byte, 20), bytes.Repeat([]byte{0xff}, 600)} {
					for _, room := range []int{0, 1, 9, 500} {
						dst := make([]byte, len(data)+room)
						n, used, err := inflate.Decode(dst, append(bytes.Clone(packed), behind...))
						if err != nil || n != len(data) || used != len(packed) || !bytes.Equal(dst[:n], data) {
							t.Fatalf("%d bytes of %d, %d used of %d: %v", n, len(data), used, len(packed), err)
						}
					}
				}
				for _, missing := range []int{1, 2, 7, 300} {
					size := len(data) - missing
					if size < 0 {
						continue
					}
					n, _, err := inflate.Decode(make([]byte, size), packed)
					if !errors.Is(err, inflate.ErrFull) || n != size {
						t.Errorf("room for %d bytes less: %d of them, %v", missing, n, err)
					}
				}
			})
		}
	}
}

// TestCut: a stream that is cut anywhere is short, and what came before the cut is
// right.
func TestCut(t *testing.T) {
	for name, data := range contents() {
		for _, level := range []int{flate.HuffmanOnly, 0, 6} {
			packed := deflate(t, data, level)
			for cut := 0; cut < len(packed); cut += 1 + cut/50 {
				dst := make([]byte, len(data))
				n, used, err := inflate.Decode(dst, packed[:cut])
				if !errors.Is(err, inflate.ErrShort) || used > cut || !bytes.Equal(dst[:n], data[:n]) {
					t.Fatalf("%s, level %d, cut at %d: %d bytes, %d used: %v", name, level, cut, n, used, err)
				}
			}
		}
	}
}

// agree checks what Decode makes of a stream against the standard library: whatever it
// takes for right is the same there.
func agree(t testing.TB, packed []byte, room int) error {
	t.Helper()
	// A canary behind the room.
	dst := bytes.Repeat([]byte{0xee}, room+16)
	n, used, err := inflate.Decode(dst[:room:room], packed)
	if n > room || used > len(packed) || !bytes.Equal(dst[room:], bytes.Repeat([]byte{0xee}, 16)) {
		t.Fatalf("%d bytes with room for %d, %d used of %d, or written behind the room", n, room, used, len(packed))
	}
	in := bytes.NewReader(packed)
	want, stderr := io.ReadAll(io.LimitReader(flate.NewReader(in), int64(room)+1))
	if errors.Is(err, inflate.ErrFull) && errors.Is(stderr, io.ErrUnexpectedEOF) {
		// Where a stream is cut the standard library does not give what it has read
		// last, which zlib does.
		in.Reset(append(bytes.Clone(packed), 0, 0))
		want, stderr = io.ReadAll(io.LimitReader(flate.NewReader(in), int64(room)+1))
	}
	switch {
	case err == nil:
		if stderr != nil || !bytes.Equal(want, dst[:n]) || len(packed)-in.Len() != used {
			t.Fatalf("decoded %d bytes from %d; the standard library %d from %d: %v", n, used, len(want), len(packed)-in.Len(), stderr)
		}
	case errors.Is(err, inflate.ErrFull):
		if n != room || len(want) < room || !bytes.Equal(want[:room], dst[:n]) {
			t.Fatalf("full after %d of %d bytes; the standard library has %d: %v", n, room, len(want), stderr)
		}
	default:
		if common := min(n, len(want)); !bytes.Equal(want[:common], dst[:common]) {
			t.Fatalf("another beginning: %v", err)
		}
	}
	return stderr
}

// TestFlips turns bits of each byte of small streams over.
func TestFlips(t *testing.T) {
	for name, data := range contents() {
		data = data[:min(len(data), 2000)]
		for _, level := range []int{flate.HuffmanOnly, 0, 6} {
			packed := deflate(t, data, level)
			for i := range packed {
				for _, flip := range []byte{1, 8, 64, 0xff} {
					packed[i] ^= flip
					agree(t, packed, len(data)+300)
					packed[i] ^= flip
				}
			}
			if err := agree(t, packed, len(data)); err != nil {
				t.Errorf("%s: the standard library: %v", name, err)
			}
		}
	}
}

// stream writes bits, lowest first.
type stream struct {
	out  []byte
	bits int
}

func (s *stream) put(value, n int) *stream {
	for i := range n {
		if s.bits%8 == 0 {
			s.out = append(s.out, 0)
		}
		s.out[s.bits/8] |= byte(value>>i&1) << (s.bits % 8)
		s.bits++
	}
	return s
}

// TestRefused: what no compressor makes.
func TestRefused(t *testing.T) {
	// dynamic begins a block with codes of which only the first three lengths of the
	// code lengths' code are said: of 16, 17 and 18.
	dynamic := func(nliterals, ndistances int) *stream {
		return new(stream).put(1, 1).put(2, 2).put(nliterals-257, 5).put(ndistances-1, 5)
	}
	long := make([]byte, 40)
	for name, in := range map[string][]byte{
		"block of a reserved type":     append(new(stream).put(1, 1).put(3, 2).out, long...),
		"stored with a wrong complent": append(new(stream).put(1, 1).put(0, 2).put(0, 5).put(5, 16).put(5, 16).out, long...),
		"287 literals":                 append(dynamic(287, 1).put(0, 4).out, long...),
		"31 distances":                 append(dynamic(257, 31).put(0, 4).out, long...),
		"no code lengths":              append(dynamic(257, 1).put(0, 4).out, long...),
		"too many codes":               append(dynamic(257, 1).put(0, 4).put(1, 3).put(1, 3).put(1, 3).out, long...),
		"too few codes":                append(dynamic(257, 1).put(0, 4).put(2, 3).put(2, 3).put(2, 3).out, long...),
		"repeat of nothing":            append(dynamic(257, 1).put(0, 4).put(1, 3).put(1, 3).put(0, 6).put(0, 3).out, long...),
		"more zeros than there are":    append(dynamic(257, 1).put(0, 4).put(0, 3).put(1, 3).put(1, 3).put(0, 3).put(1, 1).put(127, 7).put(1, 1).put(127, 7).out, long...),
		"no end of block":              append(dynamic(257, 1).put(0, 4).put(0, 3).put(1, 3).put(1, 3).put(0, 3).put(1, 1).put(127, 7).put(1, 1).put(258-138-11, 7).out, long...),
		"fixed, literal 286":           append(new(stream).put(1, 1).put(1, 2).put(0b01100011, 8).out, long...),
		"fixed, distance 30":           append(new(stream).put(1, 1).put(1, 2).put(0b1000000, 7).put(0b01111, 5).out, long...),
		"distance before the start":    append(new(stream).put(1, 1).put(1, 2).put(0b1000000, 7).put(0, 5).out, long...),
	} {
		if n, _, err := inflate.Decode(make([]byte, 5000), in); !errors.Is(err, inflate.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// FuzzDecode decodes anything, and compares with the standard library.
func FuzzDecode(f *testing.F) {
	for _, data := range contents() {
		for _, level := range []int{flate.HuffmanOnly, 0, 6} {
			f.Add(deflate(f, data[:min(len(data), 3000)], level), 3000)
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte, room int) {
		agree(t, packed, int(uint(room)%(1<<16)))
	})
}

// BenchmarkDecode decodes clusters of 64 KiB, and so does klauspost's decoder.
func BenchmarkDecode(b *testing.B) {
	for name, data := range contents() {
		data = data[:min(len(data), 64<<10)]
		if len(data) < 16<<10 {
			continue
		}
		packed, dst := deflate(b, data, 6), make([]byte, len(data))
		b.Run(name+"/inflate", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for range b.N {
				if n, _, err := inflate.Decode(dst, packed); err != nil || n != len(data) {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(name+"/klauspost", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			in := bytes.NewReader(packed)
			r := klauspost.NewReader(in)
			for range b.N {
				in.Reset(packed)
				if err := r.(klauspost.Resetter).Reset(in, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
