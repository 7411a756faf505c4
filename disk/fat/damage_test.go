package fat_test

import (
	"flag"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damage reads damaged images. The memory is that of the cache, and as much again.
func damage() *disktest.Damage {
	d := &disktest.Damage{Layer: "fat", Open: open, Share: 20, MaxAlloc: 16 << 20}
	if *thorough {
		d.Share = 1
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage]. FAT
// has no checksums: what is read may differ, but must come to an end.
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			damage().Fields(t, disktest.LoadSeed(t, s.name), false)
		})
	}
}

// TestCut cuts images at each structure.
func TestCut(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage().Cuts(t, disktest.LoadSeed(t, s.name)) })
	}
}
