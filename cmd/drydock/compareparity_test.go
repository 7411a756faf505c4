package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// parityDisk is the size of the disk that TestCompareParity stores, in bytes.
const parityDisk = 512 << 20

// TestCompareParity says by how much parity of 5 percent makes a repository larger, and
// what it costs a backup of processor time: a first backup of noise, with it and without it
// in turn.
func TestCompareParity(t *testing.T) {
	benchdisk.Wanted(t)
	disk := filepath.Join(t.TempDir(), "store.raw")
	noise(t, disk, 1, mebibytes(parityDisk))
	took := map[string][]time.Duration{}
	for range 5 {
		for _, ecc := range []string{"ecc: 0", "ecc: 5"} {
			h := imageHost(t, disk, "format: raw, backup: image}")
			text, err := os.ReadFile(h.config)
			must(t, err)
			text = []byte(strings.Replace(string(text), "repository: {path: "+h.where+"}", "repository: {path: "+h.where+", "+ecc+"}", 1))
			must(t, os.WriteFile(h.config, text, 0o600))
			c := h.command(t.Context(), "run")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			took[ecc] = append(took[ecc], c.ProcessState.UserTime()+c.ProcessState.SystemTime())
			checkParitySize(t, h, ecc)
			must(t, os.RemoveAll(h.where))
		}
	}
	median := func(ecc string) float64 {
		slices.Sort(took[ecc])
		return took[ecc][len(took[ecc])/2].Seconds() * (1 << 30) / parityDisk
	}
	t.Logf("processor time for each GiB that is stored: %.2f s without parity, %.2f s with", median("ecc: 0"), median("ecc: 5"))
}

// checkParitySize checks that there is as much parity as there should be.
func checkParitySize(t *testing.T, h *host, ecc string) {
	t.Helper()
	packs := benchdisk.FolderSize(t, filepath.Join(h.where, "data"))
	parity := int64(0)
	if _, err := os.Stat(filepath.Join(h.where, "ecc")); err == nil {
		parity = benchdisk.FolderSize(t, filepath.Join(h.where, "ecc"))
	}
	percent := 100 * float64(parity) / float64(packs)
	t.Logf("%s: parity of %.2f %% of the packs", ecc, percent)
	if lo, hi := 6.0, 6.5; ecc == "ecc: 0" && parity != 0 || ecc == "ecc: 5" && (percent < lo || percent > hi) {
		t.Errorf("%s: %d bytes of parity for %d bytes of packs", ecc, parity, packs)
	}
}
