package blake2b_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/btrfs/internal/blake2b"
)

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func TestVectors(t *testing.T) {
	for text, want := range map[string]string{
		"":    "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8",
		"abc": "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319",
	} {
		got := blake2b.Sum256([]byte(text))
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("%q: %x, want %s", text, got, want)
		}
	}
}

// TestTool compares sums of lengths around a block with b2sum of coreutils.
func TestTool(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for n := 0; n < 520; n += 1 + n%3 {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, pattern(n), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	out, err := exec.Command("b2sum", append([]string{"-l", "256"}, paths...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(paths) {
		t.Fatalf("%d lines for %d files", len(lines), len(paths))
	}
	for _, line := range lines {
		want, path, _ := strings.Cut(line, "  ")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := blake2b.Sum256(data); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: %x, the tool says %s", len(data), got, want)
		}
	}
}

func BenchmarkSum256(b *testing.B) {
	p := pattern(4096)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		blake2b.Sum256(p)
	}
}
