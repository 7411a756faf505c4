package xxh64_test

import (
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/drydock-vm/drydock/disk/btrfs/internal/xxh64"
)

// pattern is n bytes that do not repeat soon.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

// TestVectors has the sums of well-known texts, as xxhsum -H64 gives them.
func TestVectors(t *testing.T) {
	for text, want := range map[string]uint64{
		"":    0xef46db3751d8e999,
		"a":   0xd24ec4f1a98c6e5b,
		"abc": 0x44bc2cf5ad770999,
		"Nobody inspects the spammish repetition": 0xfbcea83c8a378bf1,
	} {
		if got := xxh64.Sum([]byte(text)); got != want {
			t.Errorf("%q: %#x, want %#x", text, got, want)
		}
	}
}

// TestFrames compares sums of every length around a few stripes with those that
// end the frames of zstd: the lower half of the hash of what is in them.
func TestFrames(t *testing.T) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 300; n++ {
		frame := enc.EncodeAll(pattern(n), nil)
		want := binary.LittleEndian.Uint32(frame[len(frame)-4:])
		if got := uint32(xxh64.Sum(pattern(n))); got != want {
			t.Errorf("%d bytes: the lower half is %#x, zstd says %#x", n, got, want)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	p := pattern(4096)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		xxh64.Sum(p)
	}
}
