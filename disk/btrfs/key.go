package btrfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
)

// The trees, by the number under which the tree of roots knows them.
const (
	rootTree   = 1
	extentTree = 2
	chunkTree  = 3
	fsTree     = 5 // the top-level subvolume
	csumTree   = 7
	groupTree  = 11 // where block groups have a tree of their own

	treeLog = math.MaxUint64 - 5 // -6

	firstFree = 256 // the first number of a subvolume, or of a file in one
)

// The kinds of item that the reader uses.
const (
	kindInode       = 1
	kindInodeRef    = 12
	kindInodeExtref = 13
	kindXattr       = 24
	kindDirLogIndex = 72
	kindDirItem     = 84
	kindDirIndex    = 96
	kindExtentData  = 108
	kindCsum        = 128
	kindRoot        = 132
	kindRootBackref = 144
	kindRootRef     = 156
	kindExtent      = 168
	kindMetadata    = 169
	kindBlockGroup  = 192
	kindDevice      = 216
	kindChunk       = 228
)

// Objects that stand for something else than a file.
const (
	deviceItems   = 1                  // of the chunk tree
	firstChunk    = 256                // all chunks
	rootTreeDir   = 6                  // of the tree of roots: where the default subvolume is named
	csumObject    = math.MaxUint64 - 9 // -10
	subvolumeRoot = firstFree          // the root directory of each subvolume
	maxOffset     = uint64(math.MaxUint64)
)

// key is where an item stands in a tree: by object, kind, and what the kind
// makes of the offset.
//
// Layout of struct btrfs_disk_key, little endian:
//
//	0x0 8 objectid   0x8 1 type   0x9 8 offset
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

const keySize = 17

var maxKey = key{math.MaxUint64, math.MaxUint8, math.MaxUint64}

// keyAt reads the key at the start of raw.
func keyAt(raw []byte) key {
	_ = raw[keySize-1]
	return key{binary.LittleEndian.Uint64(raw), raw[8], binary.LittleEndian.Uint64(raw[9:])}
}

func (k key) compare(o key) int {
	if c := cmp.Compare(k.object, o.object); c != 0 {
		return c
	}
	if c := cmp.Compare(k.kind, o.kind); c != 0 {
		return c
	}
	return cmp.Compare(k.offset, o.offset)
}

// is reports whether k is of a kind of item of an object.
func (k key) is(object uint64, kind uint8) bool { return k.object == object && k.kind == kind }

// String is the form of btrfs inspect-internal dump-tree, in numbers.
func (k key) String() string { return fmt.Sprintf("(%d %d %d)", int64(k.object), k.kind, k.offset) }
