package qcow2

import (
	"bytes"
	stdflate "compress/flate"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const decompressSeedDir = "testdata/fuzz/FuzzDecompress"

// fuzzCluster is small, so that the fuzzer can fill it.
const fuzzCluster = 512

// FuzzDecompress decompresses anything, and compares with other decoders: the
// standard library's deflate, and the streaming zstd decoder, which unlike ours
// is given no help to find the end of a frame.
func FuzzDecompress(f *testing.F) {
	inflate, err := newDecompressor(compressionZlib)
	if err != nil {
		f.Fatal(err)
	}
	unzstd, err := newDecompressor(compressionZstd)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		fill := bytes.Repeat([]byte{0xee}, fuzzCluster+8)
		got := fill[:fuzzCluster]
		if err := inflate.decompress(got, in); err == nil {
			want := make([]byte, fuzzCluster)
			if _, err := io.ReadFull(stdflate.NewReader(bytes.NewReader(in)), want); err != nil || !bytes.Equal(got, want) {
				t.Errorf("deflate: the standard library disagrees: %v", err)
			}
		}
		if err := unzstd.decompress(got, in); err == nil {
			checkZstd(t, in, got)
		}
		if !bytes.Equal(fill[fuzzCluster:], bytes.Repeat([]byte{0xee}, 8)) {
			t.Error("written behind the cluster")
		}
	})
}

func checkZstd(t *testing.T, in, got []byte) {
	t.Helper()
	dec, err := zstd.NewReader(bytes.NewReader(in), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	want := make([]byte, len(got))
	if _, err := io.ReadFull(dec, want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("zstd: the streaming decoder disagrees: %v", err)
	}
}

// decompressSeeds are streams that fill a cluster of fuzzCluster bytes.
func decompressSeeds(t *testing.T) map[string][]byte {
	half := bytes.Repeat([]byte("dock"), fuzzCluster/8)
	whole := append(bytes.Clone(half), noise()[:fuzzCluster/2]...)
	return map[string][]byte{
		"deflate":    deflate(t, whole),
		"zstd":       zstandard(t, whole),
		"padded":     join(zstandard(t, whole), make([]byte, 30)),
		"two frames": join(zstandard(t, half), zstandard(t, half)),
		"no sum":     zstandard(t, whole, zstd.WithEncoderCRC(false)),
		"zeros":      zstandard(t, make([]byte, fuzzCluster)),
	}
}

// TestDecompressSeeds: every seed is there, is loaded, and fills a cluster. Set
// UPDATE_SEEDS to write them again.
func TestDecompressSeeds(t *testing.T) {
	for name, in := range decompressSeeds(t) {
		path := filepath.Join(decompressSeedDir, strings.ReplaceAll(name, " ", "-"))
		if os.Getenv("UPDATE_SEEDS") != "" {
			if err := os.WriteFile(path, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", in), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := strings.CutPrefix(strings.TrimSpace(string(text)), "go test fuzz v1\n[]byte(")
		seed, err := strconv.Unquote(strings.TrimSuffix(body, ")"))
		if err != nil {
			t.Fatalf("%s is not a seed: %v", path, err)
		}
		filled := false
		for _, c := range []compression{compressionZlib, compressionZstd} {
			d, err := newDecompressor(c)
			if err != nil {
				t.Fatal(err)
			}
			filled = filled || d.decompress(make([]byte, fuzzCluster), []byte(seed)) == nil
		}
		if !filled {
			t.Errorf("%s fills no cluster", path)
		}
	}
}
