package inflate

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// reference is what the standard library makes of a stream.
type reference struct {
	out []byte // nil if it could not be filled
	err error  // why it could not, or what is wrong with what follows
	cut bool   // the input ends within what follows
}

func inflateByStd(in []byte, size int) reference {
	out := make([]byte, size)
	r := stdflate.NewReader(bytes.NewReader(in))
	if _, err := io.ReadFull(r, out); err != nil {
		return reference{err: err}
	}
	_, err := io.ReadFull(r, make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		err = nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return reference{out: out, cut: true}
	}
	return reference{out: out, err: err}
}

// checkDecode compares a decoder with the standard library, as far as the two can
// agree. A code without an end of a block is refused here, as in zlib, and not
// there. Where the input is cut off, the standard library does not decode the last
// bits, of codes that are shorter than the end of a block.
func checkDecode(t *testing.T, f *Decoder, in []byte, size int) bool {
	t.Helper()
	fill := bytes.Repeat([]byte{0xee}, size+16)
	got := fill[:size:size]
	err := f.Decode(got, in)
	want := inflateByStd(in, size)
	if err == nil && errors.Is(want.err, io.ErrUnexpectedEOF) {
		want = reference{out: inflateByStd(append(bytes.Clone(in), 0, 0), size).out}
	}
	switch {
	case errors.Is(err, errNoEnd), errors.Is(err, errCode) && want.cut:
	case (err == nil) != (want.err == nil):
		t.Errorf("%d bytes of input, %d of output: %v, but the standard library says %v", len(in), size, err, want.err)
	case err == nil && !bytes.Equal(got, want.out):
		t.Errorf("%d bytes of input, %d of output: wrong content", len(in), size)
	}
	if !bytes.Equal(fill[size:], bytes.Repeat([]byte{0xee}, 16)) {
		t.Error("written behind the cluster")
	}
	return err == nil
}

// samples are contents that lead to all kinds of blocks and codes.
func samples(rng *rand.Rand, size int) [][]byte {
	random := func(f func(i int) byte) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	half := random(func(int) byte { return byte(rng.Uint32()) })
	copy(half[size/2:], bytes.Repeat([]byte("far away "), size/9+1))
	return [][]byte{
		make([]byte, size), // the longest matches, at distance 1
		random(func(int) byte { return byte(rng.Uint32()) }),          // stored
		random(func(int) byte { return byte(rng.IntN(2)) }),           // short codes
		random(func(i int) byte { return byte(i % 3) }),               // distance 3
		random(func(i int) byte { return byte(i>>8) ^ byte(i) }),      // matches far away
		random(func(int) byte { return byte(rng.ExpFloat64()) }),      // a steep code
		random(func(int) byte { return byte(rng.NormFloat64() * 9) }), // a wide one, with second tables
		half,
	}
}

func packLevel(t *testing.T, data []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stdflate.NewWriter(&out, level)
	if err == nil {
		for len(data) > 0 && err == nil { // flushes make blocks, also empty ones
			n := min(len(data), 20_000)
			if _, err = w.Write(data[:n]); err == nil {
				err = w.Flush()
			}
			data = data[n:]
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestDecode decompresses all kinds of content, of every level of compression,
// also cut off and with other things behind.
func TestDecode(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	f := new(Decoder)
	for _, size := range []int{1, 2, 300, 512, 4096, 65536, 100_003} {
		for i, data := range samples(rng, size) {
			for _, level := range []int{stdflate.HuffmanOnly, 0, 1, 6, 9} {
				in := packLevel(t, data, level)
				for _, in := range [][]byte{in, append(bytes.Clone(in), make([]byte, 600)...), append(bytes.Clone(in), data...)} {
					if !checkDecode(t, f, in, size) {
						t.Errorf("sample %d of %d bytes, level %d: cannot be decompressed", i, size, level)
					}
				}
				checkDecode(t, f, in, size+1)
				checkDecode(t, f, in, size/2)
				checkDecode(t, f, in[:rng.IntN(len(in)+1)], size)
			}
		}
	}
}

// TestDamaged changes streams a little: what comes of it is what the
// standard library makes of it.
func TestDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 5))
	f := new(Decoder)
	good := 0
	const tries = 4000
	type stream struct {
		in   []byte
		size int
	}
	var streams []stream
	for range 40 {
		size := 1 + rng.IntN(3000)
		for _, data := range samples(rng, size) {
			streams = append(streams, stream{packLevel(t, data, []int{stdflate.HuffmanOnly, 1, 6}[rng.IntN(3)]), size})
		}
	}
	for range tries {
		s := streams[rng.IntN(len(streams))]
		in, size := bytes.Clone(s.in), s.size
		for range 1 + rng.IntN(3) {
			// Most of the rules are about the start of a block.
			in[rng.IntN(min(len(in), 1<<rng.IntN(12)))] ^= 1 << rng.IntN(8)
		}
		if checkDecode(t, f, in, size) {
			good++
		}
	}
	if good == 0 || good == tries {
		t.Errorf("%d of %d damaged streams could be decompressed", good, tries)
	}
}

// TestRules: streams that break one rule.
func TestRules(t *testing.T) {
	for name, v := range map[string]struct {
		in   []byte
		want error
	}{
		"a reserved block":           {[]byte{7}, errBlockType},
		"a stored length":            {[]byte{1, 5, 0, 0xfb, 0xff, 1, 2, 3, 4, 5}, errStored},
		"a match before all":         {[]byte{0x03, 0x02, 0x00}, errDistance},
		"symbol 286":                 {[]byte{0x1b, 0x03, 0x00, 0x00}, errCode},
		"287 literals":               {[]byte{0xf5, 0x00, 0x00}, errSymbols},
		"31 distances":               {[]byte{0x05, 0x1e, 0x00}, errSymbols},
		"lengths that are too short": {append([]byte{0x05, 0xe0}, bytes.Repeat([]byte{0xff}, 9)...), errLengths},
		"nothing":                    {nil, errShort},
	} {
		if err := new(Decoder).Decode(make([]byte, 8), v.in); !errors.Is(err, v.want) {
			t.Errorf("%s: %v, want %v", name, err, v.want)
		}
		checkDecode(t, new(Decoder), v.in, 8)
	}
}

// TestDecodeDoesNotAllocate: a decoder is for use again.
func TestDecodeDoesNotAllocate(t *testing.T) {
	data := samples(rand.New(rand.NewPCG(3, 5)), 65536)[6]
	in, f := packLevel(t, data, 6), new(Decoder)
	if n := testing.AllocsPerRun(20, func() {
		if err := f.Decode(data, in); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode compares with the standard library, on outputs that are as long as
// the seeds' and on longer ones.
func FuzzDecode(f *testing.F) {
	const size = 400
	rng := rand.New(rand.NewPCG(4, 5))
	for _, data := range samples(rng, size) {
		for _, level := range []int{stdflate.HuffmanOnly, 0, 6} {
			var in bytes.Buffer
			w, err := stdflate.NewWriter(&in, level)
			if err == nil {
				_, err = w.Write(data)
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				f.Fatal(err)
			}
			f.Add(in.Bytes())
		}
	}
	d := new(Decoder)
	f.Fuzz(func(t *testing.T, in []byte) {
		checkDecode(t, d, in, size)
		checkDecode(t, d, in, 5000)
	})
}
