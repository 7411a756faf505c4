package qcow2

import (
	"bytes"
	stdflate "compress/flate"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

const testCluster = 64 << 10

// text and noise fill a cluster, the one well compressible, the other not.
func text() []byte { return bytes.Repeat([]byte("drydock!"), testCluster/8) }

func noise() []byte {
	b := make([]byte, testCluster)
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}

func deflate(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stdflate.NewWriter(&out, 6)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestDecompress(t *testing.T) {
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	raw := func(size int) []byte { // a frame of one uncompressed block
		return join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x30, byte(size<<3 | 1), byte(size >> 5), byte(size >> 13)}, make([]byte, size))
	}
	for name, v := range map[string]struct {
		c    compression
		in   []byte
		want []byte // nil: an error
	}{
		"zlib":                       {compressionZlib, deflate(t, text()), text()},
		"zlib, noise":                {compressionZlib, deflate(t, noise()), noise()},
		"zlib, zeros behind":         {compressionZlib, join(deflate(t, text()), make([]byte, 500)), text()},
		"zlib, noise behind":         {compressionZlib, join(deflate(t, text()), noise()[:500]), text()},
		"zlib, another behind":       {compressionZlib, join(deflate(t, text()), deflate(t, noise())[:400]), text()},
		"zlib, too much":             {compressionZlib, deflate(t, join(text(), noise())), text()},
		"zlib, too little":           {compressionZlib, deflate(t, text()[:testCluster-1]), nil},
		"zlib, nothing":              {compressionZlib, nil, nil},
		"zlib, zeros":                {compressionZlib, make([]byte, 512), nil},
		"zlib, with a zlib header":   {compressionZlib, join([]byte{0x78, 0x9c}, deflate(t, text())), nil},
		"zlib, reserved block":       {compressionZlib, []byte{7, 0, 0, 0}, nil},
		"zstd":                       {compressionZstd, zstandard(t, text()), text()},
		"zstd, noise":                {compressionZstd, zstandard(t, noise()), noise()},
		"zstd, best":                 {compressionZstd, zstandard(t, text(), zstd.WithEncoderLevel(zstd.SpeedBestCompression)), text()},
		"zstd, no checksum":          {compressionZstd, zstandard(t, text(), zstd.WithEncoderCRC(false)), text()},
		"zstd, RLE block":            {compressionZstd, zstandard(t, make([]byte, testCluster)), make([]byte, testCluster)},
		"zstd, zeros behind":         {compressionZstd, join(zstandard(t, text()), make([]byte, 500)), text()},
		"zstd, noise behind":         {compressionZstd, join(zstandard(t, text()), noise()[:500]), text()},
		"zstd, another behind":       {compressionZstd, join(zstandard(t, text()), zstandard(t, noise())[:400]), text()},
		"zstd, a whole other behind": {compressionZstd, join(zstandard(t, text()), zstandard(t, text())), text()},
		"zstd, two frames":           {compressionZstd, join(zstandard(t, text()[:1000]), zstandard(t, text()[1000:])), text()},
		"zstd, empty frames":         {compressionZstd, join(raw(0), raw(0), zstandard(t, text())), text()},
		"zstd, raw blocks":           {compressionZstd, join(raw(32768), raw(32768)), make([]byte, testCluster)},
		"zstd, one byte too many":    {compressionZstd, zstandard(t, join(text(), []byte{1})), nil},
		"zstd, a bomb":               {compressionZstd, zstandard(t, make([]byte, 64<<20)), nil},
		"zstd, too little":           {compressionZstd, zstandard(t, text()[:testCluster-1]), nil},
		"zstd, too little, padded":   {compressionZstd, join(zstandard(t, text()[:testCluster-1]), make([]byte, 100)), nil},
		"zstd, skippable":            {compressionZstd, join(skippable, zstandard(t, text())), nil},
		"zstd, window of 2 GiB":      {compressionZstd, join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8}, zstandard(t, text())[6:]), nil},
		"zstd, dictionary":           {compressionZstd, join([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x30, 7, 1, 0, 0}), nil},
		"zstd, reserved block":       {compressionZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x30, 7, 0, 0}, nil},
		"zstd, only empty frames":    {compressionZstd, bytes.Repeat(raw(0), 50), nil},
		"zstd, nothing":              {compressionZstd, nil, nil},
		"zstd, zeros":                {compressionZstd, make([]byte, 512), nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := newDecompressor(v.c)
			if err != nil {
				t.Fatal(err)
			}
			backing := bytes.Repeat([]byte{0xee}, testCluster+16)
			cluster := backing[:testCluster]
			err = d.decompress(cluster, v.in)
			if (err == nil) != (v.want != nil) {
				t.Fatalf("error %v", err)
			}
			if v.want != nil && !bytes.Equal(cluster, v.want) {
				t.Error("wrong content")
			}
			if !bytes.Equal(backing[testCluster:], bytes.Repeat([]byte{0xee}, 16)) {
				t.Error("written behind the cluster")
			}
		})
	}
}

// TestDecompressCut cuts a stream at every byte: never wrong content.
func TestDecompressCut(t *testing.T) {
	want := join(noise()[:700], text()[:300], noise()[:1048])
	for c, in := range map[compression][]byte{
		compressionZlib: deflate(t, want),
		compressionZstd: zstandard(t, want),
	} {
		d, err := newDecompressor(c)
		if err != nil {
			t.Fatal(err)
		}
		for n := range in {
			cluster := make([]byte, len(want))
			if err := d.decompress(cluster, in[:n]); err == nil && !bytes.Equal(cluster, want) {
				t.Errorf("%v cut to %d of %d bytes: wrong content, and no error", c, n, len(in))
			}
			if err := d.decompress(cluster, in[:n]); err == nil && n < len(in)*9/10 {
				t.Errorf("%v cut to %d of %d bytes: no error", c, n, len(in))
			}
		}
	}
}

// TestDecompressConcurrently: one decompressor serves many, and leaves nothing
// running behind.
func TestDecompressConcurrently(t *testing.T) {
	before := runtime.NumGoroutine()
	for c, in := range map[compression][][]byte{
		compressionZlib: {deflate(t, text()), deflate(t, noise()), deflate(t, text()[:5])},
		compressionZstd: {zstandard(t, text()), zstandard(t, noise()), zstandard(t, text()[:5])},
	} {
		d, err := newDecompressor(c)
		if err != nil {
			t.Fatal(err)
		}
		want := [][]byte{text(), noise(), nil}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				cluster := make([]byte, testCluster)
				for j := range 30 {
					k := (i + j) % len(in)
					err := d.decompress(cluster, in[k])
					if (err == nil) != (want[k] != nil) || err == nil && !bytes.Equal(cluster, want[k]) {
						t.Errorf("%v, stream %d: %v", c, k, err)
					}
				}
			})
		}
		wg.Wait()
	}
	for range 100 { // goroutines that are ending take a moment
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
