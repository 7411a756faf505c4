package ext4_test

import (
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// maxPatches bounds the work of one fuzz input.
const maxPatches = 32

// patchedMany is an image with many small changes.
type patchedMany struct {
	image
	patches map[int64]byte
}

func (p patchedMany) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.image.ReadAt(b, off)
	for at, v := range p.patches {
		if at >= off && at < off+int64(n) {
			b[at-off] = v
		}
	}
	return n, err
}

// FuzzOpenWalk changes the seeds of testdata: input is a list of 7 bytes each,
// three for a place among the structures that the reader uses, four for their
// new content. Whatever they make, reading comes to an end, and reading again
// gives the same.
func FuzzOpenWalk(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 1, 0x5c, 1, 2, 3, 4})
	}
	images := make(map[byte]image)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		m, ok := images[which]
		if !ok {
			m = loadSeed(t, seeds[which].name)
			images[which] = m
		}
		p := patchedMany{image: m, patches: make(map[int64]byte)}
		for n := 0; len(input) >= 7 && n < maxPatches; n++ {
			at := int64(binary.BigEndian.Uint32(append([]byte{0}, input[:3]...))) % (m.size - 4)
			for i, v := range input[3:7] {
				p.patches[at+int64(i)] = v
			}
			input = input[7:]
		}
		first, second := readAll(disk.Sparse(p)), readAll(p)
		checkOutcome(t, "fuzzed", first)
		if first.tree != second.tree || (first.err == nil) != (second.err == nil) {
			t.Errorf("two reads differ: %v, %v", first.err, second.err)
		}
	})
}
