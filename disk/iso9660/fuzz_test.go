package iso9660_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// FuzzOpenWalk changes the seeds of testdata as [disktest.Mutate] does. Whatever that
// makes, reading comes to an end, and reading again gives the same.
func FuzzOpenWalk(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0x80, 0x80, 0x80, 1, 2, 3, 4})
		f.Add(byte(i), []byte{0, 0x80, 0x9c, 8, 1, 0, 1}) // in the record of the root
	}
	images := make(map[byte]disktest.Image)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		m, ok := images[which]
		if !ok {
			m = disktest.LoadSeed(t, seeds[which].name)
			images[which] = m
		}
		damage().Fuzz(t, m, input)
	})
}
