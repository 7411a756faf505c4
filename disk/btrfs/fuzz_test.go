package btrfs_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// FuzzOpenWalk changes the seeds of testdata as [disktest.Mutate] does, where they
// have structures, and makes the checksums right again. Whatever that makes,
// reading comes to an end, and reading again gives the same.
func FuzzOpenWalk(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 0x20, 0x50, 1, 2, 3, 4})
	}
	type seed struct {
		disktest.Image
		structures []disk.Extent
	}
	known := make(map[byte]seed)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		s, ok := known[which]
		d := damage(1)
		if !ok {
			s.Image = disktest.LoadSeed(t, seeds[which].name)
			s.structures = d.Structures(t, s.Image)
			known[which] = s
		}
		d.Open = func(m disk.Sparse) (disk.Filesystem, error) { return open(sealed{m}) }
		d.Fuzz(t, s.Image, aim(s.structures, input))
	})
}

// aim makes the places in an input of [disktest.Mutate] lie in structures.
func aim(structures []disk.Extent, input []byte) []byte {
	out := bytes.Clone(input)
	total := int64(0)
	for _, s := range structures {
		total += s.Length
	}
	for rest := out; len(rest) >= 7; rest = rest[7:] {
		at := int64(binary.BigEndian.Uint32(append([]byte{0}, rest[:3]...))) % total
		for _, s := range structures {
			if at < s.Length {
				at += s.Offset
				break
			}
			at -= s.Length
		}
		copy(rest, binary.BigEndian.AppendUint32(nil, uint32(at))[1:])
	}
	return out
}
