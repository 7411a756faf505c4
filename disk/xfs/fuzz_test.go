package xfs_test

import (
	"bytes"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// FuzzOpenWalk changes the structures of the seeds of testdata as
// [disktest.Mutate] does, and has their checksums right or not. Whatever that
// makes, reading comes to an end, and reading again gives the same.
func FuzzOpenWalk(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 0, 0x54, 1, 2, 3, 4})
		f.Add(byte(i), []byte{0, 0x40, 0x54, 0, 0, 0, 4, 0, 0x50, 8, 0xff, 0xff, 0xff, 0xff})
	}
	type target struct {
		image  disktest.Image
		ranges []disk.Extent
	}
	targets := make(map[byte]target)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		at, ok := targets[which]
		if !ok {
			at.image = disktest.LoadSeed(t, seeds[which].name)
			at.ranges = damage().Structures(t, at.image)
			targets[which] = at
		}
		input = aim(input, at.ranges)
		damage().Fuzz(t, at.image, input)
		sealedDamage().Fuzz(t, at.image, input)
	})
}

// aim turns the places of an input, of three bytes before four of content, into
// places in structures: most of an image is none.
func aim(input []byte, ranges []disk.Extent) []byte {
	total := int64(0)
	for _, r := range ranges {
		total += r.Length
	}
	out := bytes.Clone(input)
	for p := out; len(p) >= 7; p = p[7:] {
		place := (int64(p[0])<<16 | int64(p[1])<<8 | int64(p[2])) % total
		for _, r := range ranges {
			if place < r.Length {
				place += r.Offset
				break
			}
			place -= r.Length
		}
		p[0], p[1], p[2] = byte(place>>16), byte(place>>8), byte(place)
	}
	return out
}
