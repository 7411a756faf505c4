package xxh64_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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

// TestTool compares sums of every length around a stripe with xxhsum, where that
// is installed; the kernel compares them in any case, in the tests of btrfs.
func TestTool(t *testing.T) {
	tool, err := exec.LookPath("xxhsum")
	if err != nil {
		t.Skip("xxhsum is not there; TestKernel of package btrfs covers the sums of whole blocks")
	}
	for n := range 100 {
		path := filepath.Join(t.TempDir(), fmt.Sprint(n))
		if err := os.WriteFile(path, pattern(n), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tool, "-H1", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		sum := binary.BigEndian.AppendUint64(nil, xxh64.Sum(pattern(n)))
		if want := fmt.Sprintf("%x", sum); !strings.HasPrefix(string(out), want) {
			t.Errorf("%d bytes: %s, the tool says %s", n, want, out)
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
