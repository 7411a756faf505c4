package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// leafItem is an item of a leaf that a test makes anew.
type leafItem struct {
	key
	content []byte
}

func itemsOf(n node) (list []leafItem) {
	for i := range n.count() {
		list = append(list, leafItem{n.key(i), bytes.Clone(n.value(i).raw)})
	}
	return list
}

// makeLeaf makes a leaf with the header of another. It reports whether there is room.
func makeLeaf(n node, list []leafItem) (node, bool) {
	out := slices.Clone(n)
	clear(out[nodeHeaderSize:])
	put32(out[0x60:], uint32(len(list)))
	end := len(n) - nodeHeaderSize
	for i, it := range list {
		if end -= len(it.content); end < len(list)*itemSize {
			return nil, false
		}
		e := out[nodeHeaderSize+i*itemSize:]
		put64(e, it.object)
		e[8] = it.kind
		put64(e[9:], it.offset)
		put32(e[keySize:], uint32(end))
		put32(e[keySize+4:], uint32(len(it.content)))
		copy(out[nodeHeaderSize+end:], it.content)
	}
	return out, true
}

// eachLeafItem calls change for the items of the leaves of an image, of each kind in
// each tree so many.
func eachLeafItem(a *anatomy, most int, change func(b block, i int, name string, f fields)) {
	count := make(map[string]int)
	for _, b := range a.blocks {
		for i := 0; b.level() == 0 && i < b.count(); i++ {
			name, f := contentFields(b.key(i), b.value(i).raw)
			name = fmt.Sprintf("%s of tree %d", name, int64(b.tree))
			if count[name]++; count[name] <= most {
				change(b, i, fmt.Sprintf("%s, %v", name, b.key(i)), f)
			}
		}
	}
}

// TestItems cuts items at the start and in the middle of each field, makes them
// longer, takes them away, and has them twice, in leaves that are right otherwise.
func TestItems(t *testing.T) {
	for _, name := range []string{"mixed", "log"} {
		t.Run(name, func(t *testing.T) {
			m := disktest.LoadSeed(t, name)
			a := dissect(t, m)
			d := a.damager(0)
			most, tried := 3, 0
			if *Thorough {
				most = 1 << 30
			}
			eachLeafItem(a, most, func(b block, i int, what string, f fields) {
				if name == "log" && b.tree != treeLog {
					return
				}
				try := func(how string, list []leafItem) {
					if leaf, ok := makeLeaf(b.node, list); ok {
						tried++
						d.Try(t, what+how, d.Sealed(m, b.at, leaf))
					}
				}
				content := b.value(i).raw
				for _, size := range cutSizes(len(content), f) {
					list := itemsOf(b.node)
					list[i].content = append(bytes.Clone(content), make([]byte, 8)...)[:size]
					try(fmt.Sprintf(", cut from %d to %d bytes", len(content), size), list)
				}
				try(", taken away", slices.Delete(itemsOf(b.node), i, i+1))
				again := leafItem{b.key(i), bytes.Clone(content)}
				again.offset++
				try(", twice", slices.Insert(itemsOf(b.node), i+1, again))
				list := itemsOf(b.node)
				list[i].content = append(list[i].content, content...)
				try(", doubled", list)
			})
			if tried < 100 {
				t.Errorf("%d leaves", tried)
			}
			t.Logf("%d leaves", tried)
		})
	}
}

// cutSizes are the sizes that an item of some size is given.
func cutSizes(size int, f fields) []int {
	list := []int{0, 1, size / 2, size - 1, size + 1, size + 8}
	for _, f := range f {
		list = append(list, f.Off, f.Off+f.Size/2, f.Off+f.Size)
	}
	list = slices.DeleteFunc(list, func(n int) bool { return n < 0 || n == size || n > size+8 })
	slices.Sort(list)
	return slices.Compact(list)
}

// way is where an image says where a tree block lies: the addresses of its fields in
// a block that is sealed as a whole.
type way struct {
	what                     string
	tree                     uint64 // that the block belongs to
	at                       int64  // of the block with the fields
	length                   int
	block, generation, level int // offsets in it; 0 where there is no such field
}

// ways are all of an image of one device, whose content is raw.
func (a *anatomy) ways(raw []byte) (list []way) {
	super := func(what string, tree uint64, block, generation, level int) {
		if binary.LittleEndian.Uint64(raw[superblockOffset+block:]) != 0 {
			list = append(list, way{what, tree, superblockOffset, superblockSize, block, generation, level})
		}
	}
	super("root of the superblock", rootTree, 0x50, 0, 0xc6)
	super("chunk_root of the superblock", chunkTree, 0x58, 0xa4, 0xc7)
	super("log_root of the superblock", treeLog, 0x60, 0, 0xc8)
	for _, b := range a.blocks {
		for i := range b.count() {
			switch {
			case b.level() > 0:
				at := nodeHeaderSize + i*pointerSize + keySize
				list = append(list, way{fmt.Sprintf("pointer %d at %#x of tree %d", i, b.at, int64(b.tree)), b.tree, b.at, len(b.node), at, at + 8, 0})
			case b.key(i).kind == kindRoot:
				at := nodeHeaderSize + int(itemOffset(b.node, i))
				list = append(list, way{fmt.Sprintf("root %v at %#x", b.key(i), b.at), b.key(i).object, b.at, len(b.node), at + 0xb0, at + 0xa0, at + 0xee})
			}
		}
	}
	return list
}

// TestPointers makes each pointer to a tree block one to each of all blocks: to
// itself, to what is above, to those of other trees. The generation and the level
// fit, and so do the checksums.
func TestPointers(t *testing.T) {
	for _, name := range []string{"mixed", "log"} {
		t.Run(name, func(t *testing.T) {
			m := disktest.LoadSeed(t, name)
			a := dissect(t, m)
			d := a.damager(0)
			want := d.Read(m)
			if want.Err != nil {
				t.Fatal(want.Err)
			}
			raw := seedBytes(t, name)
			for turn, w := range a.ways(raw) {
				if name == "log" && w.tree != treeLog {
					continue
				}
				for i, b := range a.blocks {
					address := uint64(b.address())
					if address == binary.LittleEndian.Uint64(raw[int(w.at)+w.block:]) || !*Thorough && (turn+i)%3 != 0 && b.at != w.at {
						continue
					}
					block := bytes.Clone(raw[w.at:][:w.length])
					put64(block[w.block:], address)
					if w.generation != 0 {
						put64(block[w.generation:], b.generation())
					}
					if w.level != 0 {
						block[w.level] = b.level()
					}
					what := fmt.Sprintf("%s leads to %#x of tree %d", w.what, address, int64(b.tree))
					got := d.Try(t, what, d.Sealed(m, w.at, block))
					// One subvolume may have the blocks of another.
					if got.Err == nil && got.Tree != want.Tree && !(isSubvolume(w.tree) && isSubvolume(b.tree)) {
						t.Errorf("%s: another tree, without an error", what)
					}
				}
			}
		})
	}
}
