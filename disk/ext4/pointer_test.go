package ext4_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// treeBlock is a block with pointers to others, and where some of them are.
type treeBlock struct {
	name     string
	at       int   // byte offset of the block, or of what holds the root
	pointers []int // offsets from there
	size     int   // bytes of a pointer
}

// checkPointers points each pointer to each of the blocks: to itself, its parents,
// its siblings and their children. Content or an error comes of it.
func (s *fieldSeed) checkPointers(blocks []treeBlock) {
	s.t.Helper()
	for _, b := range blocks {
		k := disktest.Structure{Name: b.name, Places: []disktest.Place{disktest.At(int64(b.at))}}
		for i, at := range b.pointers {
			k.Fields = append(k.Fields, disktest.Field{Name: fmt.Sprintf("pointer %d", i), Offset: at, Size: b.size})
		}
		for _, other := range blocks {
			k.Values = append(k.Values, uint64(other.at/1024))
		}
		s.list = append(s.list, k)
	}
	damage().EveryField(s.t, s.image, s.list, nil)
}

// TestExtentPointers does so in an extent tree of three levels, without checksums.
func TestExtentPointers(t *testing.T) {
	path := makeImage(t, 16<<20, "-t", "ext4", "-b", "1024", "-N", "64", "-O", "^metadata_csum,^has_journal,^resize_inode")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	f, err := os.Create(filepath.Join(dir, "extents"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(2000) { // a leaf has 84
		if err := unix.Fallocate(int(f.Fd()), 0, i*2048, 1024); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	unmount()
	s := &fieldSeed{t: t, image: disktest.OpenImage(t, path), fs: openFilesystem(t, path), size: 256}
	disktest.CompareWithKernel(t, path, "ext4", s.fs)
	s.raw = make([]byte, s.image.Length)
	if _, err := s.image.ReadAt(s.raw, 0); err != nil {
		t.Fatal(err)
	}
	var blocks []treeBlock
	depths := make(map[int]int)
	add := func(name string, at int) {
		entries, depth := s.u16(at+2), s.u16(at+6)
		if depths[depth]++; depths[depth] > 3 {
			return
		}
		b := treeBlock{name: fmt.Sprintf("%s of depth %d", name, depth), at: at, size: 4}
		for _, i := range slices.Compact([]int{0, entries - 1}) {
			if depth > 0 {
				b.pointers = append(b.pointers, 12+12*i+4)
			} else {
				b.pointers = append(b.pointers, 12+12*i+8) // of an extent
			}
		}
		blocks = append(blocks, b)
	}
	add("root", s.inode("extents")+0x28)
	for at := 0; at < len(s.raw); at += 1024 {
		if s.u16(at) == 0xf30a {
			add("node", at)
		}
	}
	if len(depths) < 3 {
		t.Errorf("the tree has %d levels", len(depths))
	}
	s.checkPointers(blocks)
}

// TestMapPointers does so in a block map of all levels.
func TestMapPointers(t *testing.T) {
	s := newFieldSeed(t, "map")
	root := s.inode("holes") + 0x28
	blocks := []treeBlock{{"inode", root, []int{0, 48, 52, 56}, 4}}
	for i, slot := range []int{48, 52, 56} {
		at := s.u32(root+slot) * 1024
		for level := i; ; level-- {
			first := 0
			for s.u32(at+first) == 0 {
				first += 4
			}
			blocks = append(blocks, treeBlock{fmt.Sprintf("indirect block of level %d below %d", level, i), at, []int{first}, 4})
			if level == 0 {
				break
			}
			at = s.u32(at+first) * 1024
		}
	}
	s.checkPointers(blocks)
}
