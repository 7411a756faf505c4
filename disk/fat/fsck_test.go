package fat_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// stricter are the bytes of the boot sector that fsck.fat does not look at: the
// size, which must not be more than the disk's; the media; of FAT32 the number of
// the table in use and the version.
var stricter = []int{0x13, 0x14, 0x20, 0x21, 0x22, 0x23, 0x15, 0x28, 0x2a, 0x2b}

// TestFsckAgrees damages bytes of the structures: whatever fsck.fat has nothing
// to say about is read without an error.
func TestFsckAgrees(t *testing.T) {
	rounds := 150
	if *thorough {
		rounds = 1000
	}
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.img")
			r := rand.New(rand.NewPCG(uint64(s.bits), 7))
			good := 0
			for range rounds {
				e := edit(t, s.name)
				at := e.damagePlace(r)
				if slices.Contains(stricter, at) {
					continue
				}
				old := e.raw[at]
				e.raw[at] = byte(r.Uint32())
				if r.IntN(2) == 0 {
					e.raw[at] = old ^ 1<<r.IntN(8)
				}
				if at < 90 && s.bits == 32 {
					e.raw[6*512+at] = e.raw[at] // in the copy, too
				}
				if copyAt := at + (e.root-e.fat)/2; at >= e.fat && copyAt < e.root {
					e.raw[copyAt] = e.raw[at] // in both tables
				}
				if err := os.WriteFile(path, e.raw, 0o600); err != nil {
					t.Fatal(err)
				}
				if exec.Command("fsck.fat", "-n", path).Run() != nil {
					continue
				}
				good++
				if got := damage().Read(e.image()); got.Err != nil {
					t.Errorf("byte %#x = %#x instead of %#x: %v", at, e.raw[at], old, got.Err)
				}
			}
			if good < rounds/20 {
				t.Errorf("%d of %d were good", good, rounds)
			}
			t.Logf("%d of %d were good", good, rounds)
		})
	}
}

// damagePlace chooses a byte of the boot sector, of the used start of the first
// table, or of a directory.
func (e *editor) damagePlace(r *rand.Rand) int {
	switch r.IntN(4) {
	case 0:
		return r.IntN(90)
	case 1:
		return e.fat + r.IntN(100*e.bits/8)
	case 2:
		return e.root + r.IntN(512)
	}
	many := e.data + (start(e.entry("MANY       "))-2)*512
	return many + r.IntN(512)
}
