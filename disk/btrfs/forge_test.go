package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// forgery is an image in memory whose structures a test changes, with checksums
// that are right.
type forgery struct {
	t   *testing.T
	fs  *Filesystem // as it was
	raw []byte
}

// seedBytes returns the content of a seed.
func seedBytes(t *testing.T, name string) []byte {
	t.Helper()
	m := disktest.LoadSeed(t, name)
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return raw
}

func forge(t *testing.T, original []byte) *forgery {
	t.Helper()
	fs, err := Open([]disk.Sparse{disktest.Mem(original)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &forgery{t: t, fs: fs, raw: bytes.Clone(original)}
}

func put16(p []byte, v uint16) { binary.LittleEndian.PutUint16(p, v) }
func put32(p []byte, v uint32) { binary.LittleEndian.PutUint32(p, v) }
func put64(p []byte, v uint64) { binary.LittleEndian.PutUint64(p, v) }

// seal makes the checksum of a block of fs right.
func seal(fs *Filesystem, block []byte) {
	var sum [maxChecksumSize]byte
	fs.sb.checksum.sum(&sum, block[maxChecksumSize:])
	copy(block, sum[:fs.sb.checksum.size])
}

// superblock changes the superblock.
func (f *forgery) superblock(change func(p []byte)) {
	p := f.raw[superblockOffset : superblockOffset+superblockSize]
	change(p)
	seal(f.fs, p)
}

// tree returns one of the trees by number.
func (f *forgery) tree(id uint64) *tree {
	f.t.Helper()
	switch id {
	case rootTree:
		return f.fs.roots
	case treeLog:
		raw, err := (&tree{volume: f.fs.volume, name: logName, owner: treeLog, root: f.fs.sb.logRoot}).get(key{treeLog, kindRoot, fsTree})
		if err != nil {
			f.t.Fatal(err)
		}
		item, err := parseRoot(logName, raw)
		if err != nil {
			f.t.Fatal(err)
		}
		return &tree{volume: f.fs.volume, name: logName, owner: treeLog, root: item.pointer}
	case chunkTree:
		return &tree{volume: f.fs.volume, name: "chunk tree", owner: chunkTree, root: f.fs.sb.chunkRoot}
	}
	if isSubvolume(id) {
		s, err := f.fs.subvolume(id)
		if err != nil {
			f.t.Fatal(err)
		}
		return &s.tree
	}
	tr, err := f.fs.openTree(id, "tree")
	if err != nil {
		f.t.Fatal(err)
	}
	return tr
}

// leaf changes the leaf of a tree that holds the first item from k on: block is all
// of it, and item the content of that.
func (f *forgery) leaf(id uint64, k key, change func(block, item []byte)) {
	f.t.Helper()
	var w walk
	if err := f.tree(id).seek(&w, k); err != nil || !w.valid() || w.key().object != k.object || w.key().kind != k.kind {
		f.t.Fatalf("tree %d has no item %v: %v", id, k, err)
	}
	n := w.steps[0].node
	block := f.block(uint64(n.address()))
	off := nodeHeaderSize + int(binary.LittleEndian.Uint32(n.entry(w.steps[0].slot)[keySize:]))
	change(block, block[off:off+len(w.value().raw)])
	seal(f.fs, block)
}

// block returns the tree block at an address.
func (f *forgery) block(logical uint64) []byte {
	c := f.fs.chunks.find(logical, 1)
	_, at, _ := c.piece(logical-c.logical, 0)
	return f.raw[at : at+uint64(f.fs.sb.nodeSize)]
}

// first returns the key of the first item of a kind from k on.
func (f *forgery) first(id uint64, k key, kind uint8) key {
	f.t.Helper()
	var w walk
	err := f.tree(id).seek(&w, k)
	for err == nil && w.valid() && w.key().kind != kind {
		err = w.next()
	}
	if err != nil || !w.valid() {
		f.t.Fatalf("tree %d has no item of kind %d: %v", id, kind, err)
	}
	return w.key()
}

// object returns the number of a file in its subvolume.
func (f *forgery) object(path string) uint64 {
	f.t.Helper()
	n, err := disk.Lookup(f.fs, []byte(path))
	if err != nil {
		f.t.Fatal(err)
	}
	return n.Ino & maxObject
}

// read opens the image and reads all of it.
func (f *forgery) read() error {
	fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
	if err != nil {
		return err
	}
	return disktest.WalkLeniently(fs, nil)
}

// TestForgedSuperblock has superblocks that contradict themselves.
func TestForgedSuperblock(t *testing.T) {
	original := seedBytes(t, "mixed")
	for text, change := range map[string]func(p []byte){
		"sectors of 100 bytes":          func(p []byte) { put32(p[0x90:], 100) },
		"tree blocks of 3000 bytes":     func(p []byte) { put32(p[0x94:], 3000) },
		"tree blocks of 131072":         func(p []byte) { put32(p[0x94:], 131072) },
		"trees of levels 8":             func(p []byte) { p[0xc6] = 8 },
		", 8 and 0, at most 7":          func(p []byte) { p[0xc7] = 8 },
		"and 8, at most 7":              func(p []byte) { p[0xc8] = 8 },
		"tree blocks of 2048 bytes":     func(p []byte) { put32(p[0x94:], 2048) },
		"type 0x5":                      func(p []byte) { p[0xbc] &^= 4 }, // data and metadata together, without the feature
		"generation 0":                  func(p []byte) { put64(p[0x48:], 0) },
		"0 devices":                     func(p []byte) { put64(p[0x88:], 0) },
		"4294967296 devices":            func(p []byte) { put64(p[0x88:], 1<<32) },
		"a device of":                   func(p []byte) { put64(p[0xc9+8:], 1<<63) },
		"a size of 4611686018427387905": func(p []byte) { put64(p[0x70:], 1<<62+1) },
		"a size of 0":                   func(p []byte) { put64(p[0x70:], 0) },
		"is empty":                      func(p []byte) { put32(p[0xa0:], 0) },
		"belongs to filesystem":         func(p []byte) { p[0x20] ^= 1 },
		"the device belongs to":         func(p []byte) { p[0xc9+0x52] ^= 1 },
		"a tree at 0x0":                 func(p []byte) { put64(p[0x50:], 0) },
		"a tree at 0x3":                 func(p []byte) { put64(p[0x58:], 3) },
		"it says that it lies at":       func(p []byte) { put64(p[0x30:], 4096) },
		"checksum of type 9":            func(p []byte) { put16(p[0xc4:], 9) },
		"ends within a chunk":           func(p []byte) { put32(p[0xa0:], 40) },
		"sys_chunk_array holds":         func(p []byte) { p[0x32b+8] = 1 },
		"are in no chunk":               func(p []byte) { put64(p[0x50:], 1<<40) },
		"parent transid verify failed":  func(p []byte) { put64(p[0xa4:], 99) },
		"the filesystem uses":           func(p []byte) { put64(p[0xc9+8:], 1<<30) },
	} {
		t.Run(text, func(t *testing.T) {
			f := forge(t, original)
			f.superblock(change)
			checkForged(t, f.read(), text)
		})
	}
}

func checkForged(t *testing.T, err error, text string) {
	t.Helper()
	var detail *disk.Error
	if !errors.As(err, &detail) || detail.Layer != "btrfs" || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want one that says %q", err, text)
	}
}

// TestForgedBlocks has tree blocks that are not what the way to them says.
func TestForgedBlocks(t *testing.T) {
	original := seedBytes(t, "mixed")
	for text, change := range map[string]func(block, item []byte){
		"it belongs to filesystem":       func(b, _ []byte) { b[0x20] ^= 1 },
		"it says that it lies at":        func(b, _ []byte) { b[0x31] ^= 0x10 },
		"parent transid verify failed":   func(b, _ []byte) { put64(b[0x50:], 1) },
		"it belongs to tree 7":           func(b, _ []byte) { put64(b[0x58:], 7) },
		"entries at level 0":             func(b, _ []byte) { put32(b[0x60:], 200) },
		"4294967295 entries":             func(b, _ []byte) { put32(b[0x60:], 1<<32-1) },
		"level 9":                        func(b, _ []byte) { b[0x64] = 9 },
		"where the end must be":          func(b, _ []byte) { put32(b[nodeHeaderSize+keySize:], 1<<31) },
		"stands before":                  func(b, _ []byte) { put64(b[nodeHeaderSize:], 1<<50) },
		"it starts with key":             func(b, _ []byte) { put64(b[nodeHeaderSize+9:], 0x77) },
		"where all must be below":        func(b, _ []byte) { lastEntry(b)[8] = 0xf0 },
		"is empty":                       func(b, _ []byte) { put32(b[0x60:], 0) },
		"a pointer to 0x0 of generation": func(b, _ []byte) { b[0x64] = 1; put32(b[0x60:], 1); clear(b[nodeHeaderSize+keySize:][:16]) },
	} {
		t.Run(text, func(t *testing.T) {
			f := forge(t, original)
			if f.tree(fsTree).root.level == 0 {
				t.Fatal("the tree has one block")
			}
			f.leaf(fsTree, key{f.object("large"), kindInode, 0}, change)
			checkForged(t, f.read(), text)
		})
	}
}

// lastEntry returns the last item of a leaf.
func lastEntry(b []byte) []byte { return node(b).entry(node(b).count() - 1) }

// TestForgedItems has items that are no such items.
func TestForgedItems(t *testing.T) {
	original := seedBytes(t, "mixed")
	root := key{subvolumeRoot, kindDirIndex, firstIndex}
	inode := func(path string, kind uint8) func(*forgery) key {
		return func(f *forgery) key { return key{f.object(path), kind, 0} }
	}
	fixed := func(k key) func(*forgery) key { return func(*forgery) key { return k } }
	for _, c := range []struct {
		text   string
		tree   uint64
		key    func(*forgery) key
		change func(item []byte)
	}{
		{"mode 0", fsTree, inode("a/small", kindInode), func(p []byte) { put32(p[modeOffset:], 0) }},
		{"a size of 9223372036854775808", fsTree, inode("a/small", kindInode), func(p []byte) { put64(p[sizeOffset:], 1<<63) }},
		{"the root is not a directory", fsTree, fixed(key{subvolumeRoot, kindInode, 0}), func(p []byte) { put32(p[modeOffset:], 0o100644) }},
		{"a symlink of 5000 bytes", fsTree, inode("symlink", kindInode), func(p []byte) { put64(p[sizeOffset:], 5000) }},
		{"has NUL in it", fsTree, inode("symlink", kindExtentData), func(p []byte) { p[extentHeaderSize+3] = 0 }},

		{`the name "/"`, fsTree, fixed(root), func(p []byte) { p[dirItemSize] = '/' }},
		{"which is not what one name takes", fsTree, fixed(root), func(p []byte) { put16(p[0x1b:], 500) }},
		{"which is not what one name takes", fsTree, fixed(root), func(p []byte) { put16(p[0x1b:], 0) }},
		{"type 0", fsTree, fixed(root), func(p []byte) { p[0x1d] = 0 }},
		{"type 8", fsTree, fixed(root), func(p []byte) { p[0x1d] = 8 }},
		{"its name is encrypted", fsTree, fixed(root), func(p []byte) { p[0x1d] |= typeEncrypted }},
		{"it refers to (5 1 0)", fsTree, fixed(root), func(p []byte) { put64(p, 5) }},
		{"it refers to", fsTree, fixed(root), func(p []byte) { p[8] = 99 }},
		{"numbers below 1099511562240", fsTree, fixed(root), func(p []byte) { put64(p, 1<<40-1) }},
		{"IDs up to 65535", fsTree, fixed(root), func(p []byte) { put64(p, 70_000); p[8] = kindRoot; p[0x1d] = 2 }},

		{"attribute of type 1", fsTree, inode("xattrs", kindXattr), func(p []byte) { p[0x1d] = 1 }},
		{"attributes of inode", fsTree, inode("xattrs", kindXattr), func(p []byte) { p[dirItemSize+5] ^= 1 }},
		{"attributes of inode", fsTree, inode("xattrs", kindXattr), func(p []byte) { put16(p[0x19:], 5000) }},

		{"an item of type 3", fsTree, inode("holes", kindExtentData), func(p []byte) { p[0x14] = 3 }},
		{"compression 9", fsTree, inode("holes", kindExtentData), func(p []byte) { p[0x10] = 9 }},
		{"encryption 1", fsTree, inode("holes", kindExtentData), func(p []byte) { p[0x11] = 1 }},
		{"from 0 on", fsTree, inode("holes", kindExtentData), func(p []byte) { put64(p[0x15:], 77) }},
		{"there is no checksum for address", fsTree, inode("holes", kindExtentData), func(p []byte) { put64(p[0x15:], 1<<50) }},
		{"4096 bytes of 4096 at 0xffffffffffff", fsTree, inode("holes", kindExtentData), func(p []byte) { put64(p[0x15:], 1<<64-4096) }},
		{"4096 bytes from 8192", fsTree, inode("holes", kindExtentData), func(p []byte) { put64(p[extentOffsetField:], 8192) }},
		{"the one before it ends at", fsTree, inode("holes", kindExtentData), func(p []byte) { put64(p[0x1d:], 1<<20); put64(p[extentLengthField:], 1<<20) }},
		{"of one that has 1048576 on disk", fsTree, inode("zstd", kindExtentData), func(p []byte) { put64(p[0x1d:], 1<<20) }},
		{"bytes from 1048576 of one", fsTree, inode("zstd", kindExtentData), func(p []byte) { put64(p[extentOffsetField:], 1<<20) }},
		{"70000 at 0", fsTree, inode("zstd-inline", kindExtentData), func(p []byte) { put64(p[8:], 70_000) }},
		{"are compressed together", fsTree, inode("zstd", kindExtentData), func(p []byte) { put64(p[8:], 1<<20) }},
		{"decompressing", fsTree, inode("zstd", kindExtentData), func(p []byte) { p[0x10] = 2 }},
		{"inline extent of inode", fsTree, inode("a/small", kindExtentData), func(p []byte) { put64(p[8:], 6) }},
		{"decompressing", fsTree, inode("lzo-inline", kindExtentData), func(p []byte) { p[extentHeaderSize] = 0xff }},
		{"decompressing", fsTree, inode("zlib-inline", kindExtentData), func(p []byte) { p[extentHeaderSize] = 0 }},
		{"decompressing", fsTree, inode("zstd-inline", kindExtentData), func(p []byte) { p[extentHeaderSize] = 0 }},

		{"a root of level 8", rootTree, fixed(key{fsTree, kindRoot, 0}), func(p []byte) { p[0xee] = 8 }},
		{"which is no multiple of", rootTree, fixed(key{fsTree, kindRoot, 0}), func(p []byte) { put64(p[0xb0:], newCursor(p[0xb0:]).U64()+512) }},
		{"it has no root", rootTree, fixed(key{fsTree, kindRoot, 0}), func(p []byte) { put64(p[0xb0:], 0) }},
		{"it was deleted", rootTree, fixed(key{fsTree, kindRoot, 0}), func(p []byte) { put32(p[0xd8:], 0) }},
		{"its root directory is inode 300", rootTree, fixed(key{fsTree, kindRoot, 0}), func(p []byte) { put64(p[0xa8:], 300) }},
		{"default subvolume", rootTree, fixed(key{rootTreeDir, kindDirItem, 0}), func(p []byte) { put64(p, 7) }},

		{"stripes of 4096 bytes", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x10:], 4096) }},
		{"type 0x1000", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x18:], 1<<12) }},
		{"type 0x3", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x18:], 3) }},
		{"type 0x0", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x18:], 0) }},
		{"type 0x35", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x18:], 0x35) }},
		{"9223372036854775808 bytes", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p, 1<<63) }},
		{"raid56", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { p[0x18] |= 0x80 }},
		{"with 1 stripes", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { p[0x18] |= groupRAID1 }},
		{"bytes for 9 stripes", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put16(p[0x2c:], 9) }},
		{"77 bytes", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p, 77) }},
		{"it begins before", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p, 1<<30) }},
		{"a stripe at", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x38:], 1<<63) }},
		{"device 5 is missing", chunkTree, fixed(key{firstChunk, kindChunk, 0}), func(p []byte) { put64(p[0x30:], 5) }},
		{"seeding", chunkTree, fixed(key{deviceItems, kindDevice, 0}), func(p []byte) { p[0x52] ^= 1 }},
		{"this one was replaced", chunkTree, fixed(key{deviceItems, kindDevice, 0}), func(p []byte) { p[0x42] ^= 1 }},
		{"it says that it is of device", chunkTree, fixed(key{deviceItems, kindDevice, 0}), func(p []byte) { p[0] = 9 }},
	} {
		t.Run(c.text, func(t *testing.T) {
			f := forge(t, original)
			f.leaf(c.tree, c.key(f), func(_, item []byte) { c.change(item) })
			checkForged(t, f.read(), c.text)
		})
	}
}

// TestForgedUsage has extents and block groups that do not agree about what is in
// use.
func TestForgedUsage(t *testing.T) {
	mixed, groups := seedBytes(t, "mixed"), seedBytes(t, "groups")
	// entry changes the first entry of a kind in a leaf.
	entry := func(kind uint8, change func(entry []byte)) func(block, item []byte) {
		return func(block, _ []byte) {
			n := node(block)
			i := 0
			for n.key(i).kind != kind {
				i++
			}
			change(n.entry(i))
		}
	}
	rename := func(entry []byte) { entry[8]-- }
	more := func(_, item []byte) { put64(item, binary.LittleEndian.Uint64(item)+4096) }
	for _, c := range []struct {
		text   string
		seed   []byte
		tree   uint64 // that has the item
		kind   uint8
		change func(block, item []byte)
	}{
		{"bytes of the chunk at", mixed, extentTree, kindBlockGroup, more},
		{"there is none for the chunk at", mixed, extentTree, kindBlockGroup, entry(kindBlockGroup, rename)},
		{"there is none for the chunk at", mixed, extentTree, kindBlockGroup, entry(kindBlockGroup, func(e []byte) { put64(e[9:], 4096) })},
		{"the extent tree has", mixed, extentTree, kindBlockGroup, entry(kindExtent, rename)},
		{"reach beyond their chunk", mixed, extentTree, kindExtent, entry(kindExtent, func(e []byte) { put64(e[9:], 1<<40) })},

		{"bytes of the chunk at", groups, groupTree, kindBlockGroup, more},
		{"there is none for the chunk at", groups, groupTree, kindBlockGroup, entry(kindBlockGroup, rename)},
		{"there is none for the chunk at", groups, groupTree, kindBlockGroup, entry(kindBlockGroup, func(e []byte) { put64(e[9:], 4096) })},
		{"the extent tree has", groups, extentTree, kindExtent, entry(kindExtent, rename)},
		{"it has no root", groups, rootTree, kindRoot, func(_, item []byte) { put64(item[0xb0:], 0) }},
		{"block group tree at offset", groups, groupTree, kindBlockGroup, func(block, _ []byte) { put64(block[0x58:], extentTree) }},
	} {
		t.Run(fmt.Sprintf("%s in tree %d", c.text, c.tree), func(t *testing.T) {
			f := forge(t, c.seed)
			at := key{groupTree, kindRoot, 0}
			switch c.kind {
			case kindExtent:
				at = f.first(c.tree, key{}, c.kind)
			case kindBlockGroup:
				at = f.first(c.tree, key{f.fs.chunks.chunks[len(f.fs.chunks.chunks)-1].logical, 0, 0}, c.kind)
			}
			f.leaf(c.tree, at, c.change)
			fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			checkForged(t, fs.Used(0, func(int64, int64) error { return nil }), c.text)
			if err := disktest.WalkLeniently(fs, nil); err != nil {
				t.Errorf("no file needs that, but: %v", err)
			}
		})
	}
}

// TestSubvolumeLoop has two subvolumes that lie in one another, and a directory
// that lies in itself.
func TestSubvolumeLoop(t *testing.T) {
	original := seedBytes(t, "mixed")
	ids := func(list []disk.Subvolume) (out []uint64) {
		for _, s := range list {
			out = append(out, s.ID)
		}
		return out
	}
	f := forge(t, original)
	if list, err := f.fs.Subvolumes(); err != nil || !slices.Equal(ids(list), []uint64{5, 256, 257, 258}) {
		t.Fatalf("%v, %v", ids(list), err)
	}
	// Subvolume 257 is "below" in 256. Its own name for the place is the same.
	f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(block, _ []byte) {
		n := node(block)
		put64(n.entry(n.search(key{256, kindRootBackref, fsTree}))[9:], 257)
	})
	checkLoop(t, f, ids, []uint64{5, 258})

	f = forge(t, original)
	f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(_, item []byte) { put64(item, f.object("a/b")) })
	f.leaf(fsTree, key{f.object("a/b"), kindInodeRef, 0}, func(block, _ []byte) {
		n, dir := node(block), f.object("a/b")
		put64(n.entry(n.search(key{dir, kindInodeRef, f.object("a")}))[9:], dir)
	})
	checkLoop(t, f, ids, []uint64{5, 258})
}

// TestForgedPlaces has subvolumes that lie nowhere.
func TestForgedPlaces(t *testing.T) {
	original := seedBytes(t, "mixed")
	move := func(f *forgery) { // into the directory a/b
		f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(_, item []byte) { put64(item, f.object("a/b")) })
	}
	parent := func(f *forgery, id uint64) {
		f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(block, _ []byte) {
			n := node(block)
			put64(n.entry(n.search(key{256, kindRootBackref, fsTree}))[9:], id)
		})
	}
	for _, c := range []struct {
		text   string
		change func(f *forgery)
	}{
		{`its place is "/ub"`, func(f *forgery) {
			f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(_, item []byte) { item[18] = '/' })
		}},
		{"its place is", func(f *forgery) {
			f.leaf(rootTree, key{256, kindRootBackref, fsTree}, func(_, item []byte) { put16(item[16:], 2) })
		}},
		{"in inode 256 of tree 7", func(f *forgery) { parent(f, csumTree) }},
		{"IDs up to 65535", func(f *forgery) { parent(f, 1_000_000) }},
		{"a reference of", func(f *forgery) {
			move(f)
			f.leaf(fsTree, key{f.object("a/b"), kindInodeRef, 0}, func(_, item []byte) { item[10] = '/' })
		}},
		{"a reference of", func(f *forgery) {
			move(f)
			f.leaf(fsTree, key{f.object("a/b"), kindInodeRef, 0}, func(_, item []byte) { put16(item[8:], 0) })
		}},
	} {
		t.Run(c.text, func(t *testing.T) {
			f := forge(t, original)
			c.change(f)
			fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = fs.Subvolumes()
			checkForged(t, err, c.text)
		})
	}
	f := forge(t, original)
	move(f)
	list, err := f.fs.Subvolumes()
	if err != nil || string(list[1].Path) != "sub" {
		t.Fatalf("%+v, %v", list, err)
	}
	fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if list, err = fs.Subvolumes(); err != nil || string(list[1].Path) != "a/b/sub" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRemarkOfErrors: the guest's kernel has seen errors.
func TestRemarkOfErrors(t *testing.T) {
	f := forge(t, seedBytes(t, "mixed"))
	if remarks := f.fs.Info().Remarks; len(remarks) != 0 {
		t.Errorf("a clean filesystem has remarks %q", remarks)
	}
	f.superblock(func(p []byte) { p[0x38] |= 4 })
	fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if remarks := fs.Info().Remarks; len(remarks) != 1 || !strings.Contains(remarks[0], "errors were recorded") {
		t.Errorf("remarks %q", remarks)
	}
}

func checkLoop(t *testing.T, f *forgery, ids func([]disk.Subvolume) []uint64, want []uint64) {
	t.Helper()
	fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := fs.Subvolumes()
	if !errors.Is(err, disk.ErrLimit) || !slices.Equal(ids(list), want) {
		t.Errorf("%v, %v", ids(list), err)
	}
}
