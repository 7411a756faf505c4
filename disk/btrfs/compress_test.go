package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// The numbers of the compressions.
const (
	zlibKind = 1 + iota
	lzoKind
	zstdKind
)

// compressed returns some content in each form, as the kernel would keep it: with
// padding behind.
func compressed(t testing.TB, content []byte) map[uint8][]byte {
	t.Helper()
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(maxCompressed))
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint8][]byte{zlibKind: z.Bytes(), lzoKind: storedLZO(content), zstdKind: enc.EncodeAll(content, nil)}
	for kind, data := range all {
		all[kind] = append(data, make([]byte, 4096-len(data)%4096)...)
	}
	return all
}

// storedLZO makes an LZO stream of literals only.
func storedLZO(content []byte) []byte {
	out := make([]byte, 4)
	for len(content) > 0 {
		n := min(len(content), 4096)
		piece := []byte{0}
		rest := n - 18
		for ; rest > 255; rest -= 255 {
			piece = append(piece, 0)
		}
		piece = append(append(append(piece, byte(rest)), content[:n]...), 17, 0, 0)
		if left := 4096 - len(out)%4096; left < 4 {
			out = append(out, make([]byte, left)...)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(piece)))
		out = append(out, piece...)
		content = content[n:]
	}
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

func someContent(n int) []byte {
	p := bytes.Repeat([]byte("content that is worth compressing "), n/34+1)[:n]
	r := rand.New(rand.NewPCG(1, 1))
	for i := 0; i < n; i += 1 + r.IntN(200) {
		p[i] = byte(r.Uint32())
	}
	return p
}

// TestDecode decodes whole streams, and those that are shorter or longer than
// what the extent says.
func TestDecode(t *testing.T) {
	content := someContent(100_000)
	for kind, data := range compressed(t, content) {
		for _, room := range []int{len(content), maxCompressed, 50_000, 4096, 1} {
			out := make([]byte, room)
			n, err := decoders[kind](out, data, 4096)
			if want := min(room, len(content)); err != nil || n != want || !bytes.Equal(out[:n], content[:n]) {
				t.Errorf("compression %d, room for %d: %d bytes, %v", kind, room, n, err)
			}
		}
		if n, err := decoders[kind](make([]byte, len(content)), data[:2000], 4096); err == nil {
			t.Errorf("compression %d: cut short, %d bytes without an error", kind, n)
		}
		if n, err := decoders[kind](make([]byte, len(content)), nil, 4096); err == nil {
			t.Errorf("compression %d: nothing, %d bytes without an error", kind, n)
		}
	}
}

// TestLZOPadding: a length does not cross the end of a sector. What is too short for one is
// skipped, and so is what is too short for one at the end.
func TestLZOPadding(t *testing.T) {
	const sector = 4096
	piece := func(fill byte, n int) []byte { // n literals, of 4 to 238, in n+8 bytes
		p := binary.LittleEndian.AppendUint32(nil, uint32(n+4))
		p = append(p, byte(n+17))
		return append(append(p, bytes.Repeat([]byte{fill}, n)...), 17, 0, 0)
	}
	for left := range 9 { // bytes of the first sector behind the first pieces
		in := make([]byte, lzoHeaderSize)
		var want []byte
		add := func(n int) {
			fill := byte(len(want))
			in = append(in, piece(fill, n)...)
			want = append(want, bytes.Repeat([]byte{fill}, n)...)
		}
		for sector-left-len(in) > 400 {
			add(200)
		}
		rest := sector - left - len(in) // in two pieces
		add(rest/2 - 8)
		add(rest - rest/2 - 8)
		if len(in) != sector-left {
			t.Fatalf("%d bytes", len(in))
		}
		if left < lzoHeaderSize {
			in = append(in, bytes.Repeat([]byte{0xee}, left)...)
		}
		add(100)
		for behind := range 4 {
			stream := append(bytes.Clone(in), bytes.Repeat([]byte{0xee}, behind)...)
			binary.LittleEndian.PutUint32(stream, uint32(len(stream)))
			out := make([]byte, len(want)+100)
			if n, err := decodeLZO(out, stream, sector); err != nil || !bytes.Equal(out[:n], want) {
				t.Errorf("%d bytes left in the sector, %d behind the end: %d bytes of %d, %v", left, behind, n, len(want), err)
			}
		}
		stream := append(bytes.Clone(in), 0xee, 0xee, 0xee, 0xee) // enough for a length
		binary.LittleEndian.PutUint32(stream, uint32(len(stream)))
		if n, err := decodeLZO(make([]byte, len(want)+100), stream, sector); err == nil {
			t.Errorf("%d bytes left in the sector: %d bytes, though a piece at the end has none", left, n)
		}
	}
}

// TestChecksumOfStream damages the checksum at the end of a zlib stream.
func TestChecksumOfStream(t *testing.T) {
	content := someContent(5000)
	data := bytes.TrimRight(compressed(t, content)[zlibKind], "\x00")
	data[len(data)-1] ^= 1
	if _, err := decoders[zlibKind](make([]byte, len(content)), data, 4096); err == nil {
		t.Error("a wrong Adler-32 is no error")
	}
}

// TestDamagedStreams sets each of the first bytes of a stream, and of what leads a
// piece of LZO, to what breaks decoders, and cuts it at each place there: what comes
// out lies in its room, and is the content or comes with an error or is shorter.
func TestDamagedStreams(t *testing.T) {
	content := someContent(20_000)
	for kind, data := range compressed(t, content) {
		try := func(what string, in []byte) {
			out := make([]byte, len(content)+100)
			n, err := decoders[kind](out[:len(content):len(content)], in, 4096)
			if n > len(content) || !bytes.Equal(out[len(content):], make([]byte, 100)) {
				t.Errorf("compression %d, %s: %d bytes in a room of %d", kind, what, n, len(content))
			}
			if kind == zlibKind && err == nil && n < len(content) {
				t.Errorf("compression %d, %s: %d bytes, in spite of its checksum", kind, what, n)
			}
		}
		for _, at := range streamPlaces(kind, data) {
			try(fmt.Sprintf("cut at %d", at), data[:at])
			for _, v := range []byte{0, 1, 0x7f, 0x80, 0xfe, 0xff, data[at] + 1, data[at] - 1} {
				damaged := bytes.Clone(data)
				damaged[at] = v
				try(fmt.Sprintf("byte %d = %#x", at, v), damaged)
			}
			for _, v := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1, uint32(len(data)), uint32(len(data) - at), uint32(len(data)-at) + 1} {
				damaged := binary.LittleEndian.AppendUint32(bytes.Clone(data[:at]), v)
				try(fmt.Sprintf("4 bytes at %d = %#x", at, v), append(damaged, data[min(at+4, len(data)):]...))
			}
		}
	}
}

// streamPlaces are the bytes of a stream that say how it goes on.
func streamPlaces(kind uint8, data []byte) (list []int) {
	for at := range 40 {
		list = append(list, at)
	}
	if kind != lzoKind {
		return list
	}
	for at := 4; at < int(binary.LittleEndian.Uint32(data)); {
		if left := 4096 - at%4096; left < 4 {
			at += left
		}
		size := int(binary.LittleEndian.Uint32(data[at:]))
		for i := range 8 {
			list = append(list, at+i, at+size+i-4)
		}
		at += 4 + size
	}
	return list
}

// FuzzDecode checks that what comes out lies in its room, and is the same again.
func FuzzDecode(f *testing.F) {
	for kind, data := range compressed(f, someContent(9000)) {
		f.Add(kind, uint32(9000), data)
	}
	f.Fuzz(func(t *testing.T, kind uint8, room uint32, in []byte) {
		kind = 1 + kind%(uint8(len(decoders))-1)
		n := int(room % (maxCompressed + 1))
		out := bytes.Repeat([]byte{0xa5}, n+64)
		got, err := decoders[kind](out[:n:n], in, 4096)
		if got > n || bytes.Count(out[n:], []byte{0xa5}) != 64 {
			t.Fatalf("%d bytes in a room of %d", got, n)
		}
		again := make([]byte, n)
		m, errAgain := decoders[kind](again, in, 4096)
		if (err == nil) != (errAgain == nil) || err == nil && !bytes.Equal(again[:m], out[:got]) {
			t.Fatalf("two runs differ: %v, %v", err, errAgain)
		}
	})
}
