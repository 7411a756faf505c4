package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// smallDirty is what bitmap "b" of the small image says.
var smallDirty = []span{{0, 512}, {3 * 512, 1024}, {79 * 512, 512}}

// TestBitmapFields: one change to what a bitmap consists of, and what must come
// of it. In all cases the disk itself can be read.
func TestBitmapFields(t *testing.T) {
	all := []span{{0, smallSize}}
	put32 := func(off int, v uint32) func(*small) { return func(s *small) { s.put32(off, v) } }
	put64 := func(off int, v uint64) func(*small) { return func(s *small) { s.put64(off, v) } }
	byteAt := func(off int, v byte) func(*small) { return func(s *small) { s.image[off] = v } }
	const entry = smallBitmaps
	for _, v := range []struct {
		name   string
		change func(*small)
		dirty  []span
		want   error
		says   string
	}{
		{"as it is", func(*small) {}, smallDirty, nil, ""},
		{"bits behind the disk", byteAt(smallBits+10, 0xff), smallDirty, nil, ""},
		{"no bits", func(s *small) { clear(s.image[smallBits:]) }, nil, nil, ""},
		{"all zeros", put64(smallBitTable, 0), nil, nil, ""},
		{"all ones", put64(smallBitTable, 1), all, nil, ""},
		{"granularity 1024", byteAt(entry+17, 10), []span{{0, 1024}, {3072, 2048}}, nil, ""},
		{"granularity of 2 GiB", byteAt(entry+17, 31), all, nil, ""},
		{"compatible extra data", func(s *small) { withExtra(s, 6) }, smallDirty, nil, ""},

		{"recorded, not there", func(s *small) { s.put32(112, 0) }, nil, disk.ErrCorrupt, "missing"},
		{"passed over", put64(88, 0), nil, disk.ErrUnsupported, "does not know bitmaps"},
		{"in use", put32(entry+12, 3), nil, disk.ErrUnsupported, "in use"},
		{"extra data", func(s *small) { withExtra(s, 2) }, nil, disk.ErrUnsupported, "extra data"},
		{"a flag of tomorrow", put32(entry+12, 8), nil, disk.ErrCorrupt, "reserved bits"},
		{"type 2", byteAt(entry+16, 2), nil, disk.ErrUnsupported, "type 2"},
		{"granularity 256", byteAt(entry+17, 8), nil, disk.ErrCorrupt, "granularity_bits"},
		{"granularity of 4 GiB", byteAt(entry+17, 32), nil, disk.ErrCorrupt, "granularity_bits"},
		{"no name", put32(entry+16, 1<<24|9<<16), nil, disk.ErrCorrupt, "a name of 0"},
		{"a long name", put32(entry+16, 1<<24|9<<16|1024), nil, disk.ErrCorrupt, "a name of 1024"},
		{"a name over the end", put32(entry+16, 1<<24|9<<16|9), nil, disk.ErrCorrupt, "the directory ends"},
		{"much extra data", put32(entry+20, 1025), nil, disk.ErrLimit, "extra data"},
		{"extension too short", put32(116, 20), nil, disk.ErrCorrupt, "20 bytes long"},
		{"reserved", put32(124, 1), nil, disk.ErrCorrupt, "reserved"},
		{"no bitmaps", put32(120, 0), nil, disk.ErrCorrupt, "0 bitmaps"},
		{"65536 bitmaps", put32(120, 65536), nil, disk.ErrCorrupt, "65536 bitmaps"},
		{"2 bitmaps where there is 1", put32(120, 2), nil, disk.ErrCorrupt, "the directory ends"},
		{"directory too long", put64(128, 40), nil, disk.ErrCorrupt, "end after 32"},
		{"directory too short", put64(128, 31), nil, disk.ErrCorrupt, "the directory ends"},
		{"directory huge", put64(128, 1<<63), nil, disk.ErrLimit, "directory"},
		{"directory over the end", put64(128, smallFile), nil, disk.ErrCorrupt, "whole clusters"},
		{"directory in the header", put64(136, 0), nil, disk.ErrCorrupt, "whole clusters"},
		{"directory unaligned", put64(136, smallBitmaps+8), nil, disk.ErrCorrupt, "whole clusters"},
		{"directory at max", put64(136, 1<<64-512), nil, disk.ErrCorrupt, "whole clusters"},
		{"table in the header", put64(entry, 0), nil, disk.ErrCorrupt, "whole clusters"},
		{"table unaligned", put64(entry, smallBitTable+8), nil, disk.ErrCorrupt, "whole clusters"},
		{"table beyond the end", put64(entry, smallFile), nil, disk.ErrCorrupt, "whole clusters"},
		{"table empty", put32(entry+8, 0), nil, disk.ErrCorrupt, "need 1"},
		{"table huge", put32(entry+8, 0xfffffff0), nil, disk.ErrCorrupt, "whole clusters"},
		{"entry reserved bit 1", put64(smallBitTable, smallBits|2), nil, disk.ErrCorrupt, "reserved"},
		{"entry reserved bit 63", put64(smallBitTable, smallBits|1<<63), nil, disk.ErrCorrupt, "reserved"},
		{"entry with bits, all ones", put64(smallBitTable, smallBits|1), nil, disk.ErrCorrupt, "reserved"},
		{"entry beyond the end", put64(smallBitTable, smallFile), nil, disk.ErrCorrupt, "not a cluster"},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSmall(t, "zlib")
			v.change(s)
			got, err := s.read("")
			checkOutcome(t, got, err, s.active, nil, "")
			dirty, err := dirtyRanges(s.image, "b")
			if v.want == nil {
				if err != nil || !slices.Equal(dirty, v.dirty) {
					t.Errorf("%v, %v; want %v", dirty, err, v.dirty)
				}
				return
			}
			wantError(t, err, v.want)
			if err != nil && !strings.Contains(err.Error(), v.says) {
				t.Errorf("the error %q does not say %q", err, v.says)
			}
		})
	}
}

// withExtra gives the bitmap 8 bytes of extra data, and flags.
func withExtra(s *small, flags uint32) {
	s.put64(128, 40)
	s.put32(smallBitmaps+12, flags)
	s.put32(smallBitmaps+20, 8)
	copy(s.image[smallBitmaps+24:], "whatever")
	s.image[smallBitmaps+32] = 'b'
}

// TestBitmapStates: what is listed of bitmaps that may not be used.
func TestBitmapStates(t *testing.T) {
	for change, want := range map[[2]int]qcow2.BitmapState{
		{91, 91}:               qcow2.BitmapConsistent, // nothing
		{95, 0}:                qcow2.BitmapInconsistent,
		{smallBitmaps + 15, 3}: qcow2.BitmapInUse,
	} {
		s := newSmall(t, "zlib")
		if change[0] != change[1] {
			s.image[change[0]] = byte(change[1])
		}
		im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := im.Bitmaps()
		if err != nil || len(list) != 1 || list[0].Name != "b" || list[0].State != want || list[0].Granularity != 512 || !list[0].Auto || list[0].TableBytes != 8 {
			t.Errorf("%v: %+v, %v", want, list, err)
		}
	}
}

// TestTwinBitmaps: a name that two bitmaps have is the name of neither.
func TestTwinBitmaps(t *testing.T) {
	s := newSmall(t, "zlib")
	s.put32(120, 2)
	s.put64(128, 64)
	copy(s.image[smallBitmaps+32:smallBitmaps+64], s.image[smallBitmaps:])
	_, err := dirtyRanges(s.image, "b")
	wantError(t, err, disk.ErrCorrupt)
	s.image[smallBitmaps+32+24] = 'c'
	for _, name := range []string{"b", "c"} {
		if got, err := dirtyRanges(s.image, name); err != nil || !slices.Equal(got, smallDirty) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestBitmapOfManyClusters: ranges go on over the borders of words, of pieces and
// of clusters, whichever way each of these is stored.
func TestBitmapOfManyClusters(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	const clusters = 40
	for range 30 {
		s := newSmall(t, "zlib")
		bits := make([]bool, clusters*smallCluster*8)
		// A disk as large as the bits, of which nothing is allocated.
		s.put64(24, uint64(len(bits))*512)
		s.put32(36, uint32(len(bits))*512/(32<<10))
		s.put64(40, smallFile) // an L1 table of zeros
		s.image = append(s.image, make([]byte, len(bits)*512/(32<<10)*8)...)
		table := len(s.image)
		s.image = append(s.image, make([]byte, smallCluster)...)
		s.put64(smallBitmaps, uint64(table))
		s.put32(smallBitmaps+8, clusters)
		for c := range clusters {
			mine := bits[c*smallCluster*8:][:smallCluster*8]
			switch rng.IntN(4) {
			case 0:
			case 1:
				s.put64(table+8*c, 1)
				for i := range mine {
					mine[i] = true
				}
			default:
				at := len(s.image)
				s.put64(table+8*c, uint64(at))
				s.image = append(s.image, make([]byte, smallCluster)...)
				for i := 0; i < len(mine); {
					n := min(len(mine)-i, 1+rng.IntN(1<<rng.IntN(12)))
					set := rng.IntN(2) == 0
					for ; n > 0; n, i = n-1, i+1 {
						if mine[i] = set; set {
							s.image[at+i/8] |= 1 << (i % 8)
						}
					}
				}
			}
		}
		var want []span
		for i, set := range bits {
			switch {
			case !set:
			case i > 0 && bits[i-1]:
				want[len(want)-1][1] += 512
			default:
				want = append(want, span{int64(i) * 512, 512})
			}
		}
		got, err := dirtyRanges(s.image, "b")
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v: %d ranges, want %d", err, len(got), len(want))
		}
	}
}

// TestOneClusterForAllBits: a table that uses one cluster again and again would
// make a small file endless work.
func TestOneClusterForAllBits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, "cluster_size=4k", "16G")
	disktest.Run(t, "qemu-img", "bitmap", "--add", "-g", "512", path, "b")
	qemuIO(t, path, "write -P 1 1M 4k")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := dirtyRanges(image, "b"); err != nil || !slices.Equal(got, []span{{1 << 20, 4096}}) {
		t.Fatal(got, err)
	}
	at := bytes.Index(image, []byte{0x23, 0x85, 0x28, 0x75, 0, 0, 0, 24}) + 8
	table := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[at+16:]):])
	for i := range uint64(1024) {
		copy(image[table+8*i:], image[table:table+8])
	}
	_, err = dirtyRanges(image, "b")
	wantError(t, err, disk.ErrCorrupt)
	if !strings.Contains(fmt.Sprint(err), "more clusters") {
		t.Error(err)
	}
}
