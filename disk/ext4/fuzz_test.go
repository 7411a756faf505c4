package ext4_test

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// FuzzOpenWalk changes the seeds of testdata as [disktest.Mutate] does, and has their
// checksums right or not. Whatever that makes, reading comes to an end, and reading
// again gives the same.
func FuzzOpenWalk(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 1, 0x5c, 1, 2, 3, 4})
	}
	targets := make(map[byte]*fuzzTarget)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		at := targets[which]
		if at == nil {
			at = newFuzzTarget(t, seeds[which].name)
			targets[which] = at
		}
		damage().Fuzz(t, at.image, input)
		if at.sealer != nil {
			damage().ReadTwice(t, at.sealed(t, input))
		}
	})
}

type fuzzTarget struct {
	image  disktest.Image
	sealer *sealer // nil where there are no checksums to speak of
}

func newFuzzTarget(t *testing.T, name string) *fuzzTarget {
	f := &fuzzTarget{image: disktest.LoadSeed(t, name)}
	if name == "csum" || name == "ea-inode" {
		raw := make([]byte, f.image.Length)
		if _, err := f.image.ReadAt(raw, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.sealer = newSealer(raw)
	}
	return f
}

// sealed is a changed image whose checksums are right.
func (f *fuzzTarget) sealed(t *testing.T, input []byte) disktest.Image {
	raw := slices.Clone(f.sealer.original)
	if _, err := disktest.Mutate(f.image, input).ReadAt(raw, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	for _, at := range disktest.MutatedPlaces(f.image, input) {
		f.sealer.seal(raw, int(at))
	}
	return disktest.Image{ReaderAt: bytes.NewReader(raw), Length: f.image.Length}
}
