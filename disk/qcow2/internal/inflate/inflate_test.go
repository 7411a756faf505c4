package inflate

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// stdInflate is what the standard library makes of a stream, by the same rules:
// the cluster is filled, and what follows, if anything does, is possible.
func stdInflate(in []byte, size int) ([]byte, error) {
	out := make([]byte, size)
	r := stdflate.NewReader(bytes.NewReader(in))
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, err
	}
	var next [1]byte
	if _, err := io.ReadFull(r, next[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return out, nil
}

// checkDecode compares a decoder with the standard library. A code without an
// end of block is refused here, as in zlib, and not there.
func checkDecode(t *testing.T, f *Decoder, in []byte, size int) bool {
	t.Helper()
	fill := bytes.Repeat([]byte{0xee}, size+16)
	got := fill[:size:size]
	err := f.Decode(got, in)
	want, wantErr := stdInflate(in, size)
	switch {
	case (err == nil) != (wantErr == nil) && !errors.Is(err, errNoEnd):
		t.Errorf("%d bytes of input, %d of output: %v, but the standard library says %v", len(in), size, err, wantErr)
	case err == nil && !bytes.Equal(got, want):
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
	for range tries {
		size := 1 + rng.IntN(3000)
		list := samples(rng, size)
		in := packLevel(t, list[rng.IntN(len(list))], []int{stdflate.HuffmanOnly, 1, 6}[rng.IntN(3)])
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
