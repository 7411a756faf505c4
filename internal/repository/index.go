package repository

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// blobEntry tells where a blob is. It is held a million times over: 48 bytes,
// and no pointers for the garbage collector to follow.
type blobEntry struct {
	id     ID
	offset uint32 // in the pack
	length uint32 // sealed
	size   uint32 // of the content
	meta   uint32 // place of the pack in index.packs, and the flags below
}

// The flags in blobEntry.meta.
const (
	metaTree       = 1 << 31
	metaCompressed = 1 << 30
	metaPack       = metaCompressed - 1
)

func (e *blobEntry) blobType() BlobType {
	if e.meta&metaTree != 0 {
		return TreeBlob
	}
	return DataBlob
}

func (e *blobEntry) compressed() bool { return e.meta&metaCompressed != 0 }

// newBlobEntry checks what an index or a pack's header says of a blob. An
// uncompressed size of 0 means that it is not compressed.
func newBlobEntry(t BlobType, id ID, offset, length, uncompressed uint64) (blobEntry, error) {
	if length < crypto.Overhead || length > math.MaxUint32 || offset > math.MaxUint32-length || uncompressed > math.MaxUint32 {
		return blobEntry{}, fmt.Errorf("blob %s: impossible offset %d, length %d or uncompressed length %d", id.Short(), offset, length, uncompressed)
	}
	e := blobEntry{id: id, offset: uint32(offset), length: uint32(length), size: uint32(uncompressed)}
	if uncompressed != 0 {
		e.meta |= metaCompressed
	} else {
		e.size = uint32(length - crypto.Overhead)
	}
	if t == TreeBlob {
		e.meta |= metaTree
	}
	return e, nil
}

// sameBlob reports whether two entries say the same, whatever their packs are.
func (e *blobEntry) sameBlob(o *blobEntry) bool {
	a, b := *e, *o
	a.meta &^= metaPack
	b.meta &^= metaPack
	return a == b
}

// packEntries is one pack and its run of entries. A pack that two index files
// describe differently has two.
type packEntries struct {
	id           ID
	first, count uint32
}

const (
	// blockEntries is how many entries are allocated at once. Blocks never
	// move, so growing copies nothing but the table of 4 bytes an entry.
	blockEntries = 4096
	// maxCopies is how many places of one blob are kept. More are of no use,
	// and would make every lookup long.
	maxCopies = 8
	// minTable is the size of the first table, a power of two.
	minTable = 1 << 10
)

// index maps blobs to their places. It is safe for concurrent use.
//
// A million blobs take 48 MB of entries and 6 to 11 MB of table. The hash is
// keyed: guests choose contents, and could choose IDs that share a chain.
type index struct {
	seed maphash.Seed

	mu     sync.RWMutex // guards what follows
	packs  []packEntries
	byID   map[ID]uint32 // first place in packs
	blocks [][]blobEntry
	count  uint32
	table  []uint32 // open addressing; 1 + number of an entry, or 0
}

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), byID: make(map[ID]uint32), table: make([]uint32, minTable)}
}

// entry returns the entry of that number.
func (x *index) entry(n uint32) *blobEntry {
	return &x.blocks[n/blockEntries][n%blockEntries]
}

// slot returns where a blob's chain begins. The hash of the ID leaves out the
// type: the two hardly ever share an ID.
func (x *index) slot(id *ID) uint32 {
	return uint32(maphash.Bytes(x.seed, id[:])) & uint32(len(x.table)-1)
}

// find calls yield for each entry of the blob, with its number, until that returns
// false.
func (x *index) find(t BlobType, id *ID, yield func(uint32, *blobEntry) bool) {
	for s := x.slot(id); x.table[s] != 0; s = (s + 1) & uint32(len(x.table)-1) {
		e := x.entry(x.table[s] - 1)
		if e.id == *id && e.blobType() == t && !yield(x.table[s]-1, e) {
			return
		}
	}
}

// place is one place of a blob.
type place struct {
	blobEntry
	pack ID
}

// lookup returns the places of a blob.
func (x *index) lookup(t BlobType, id ID) []place {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []place
	x.find(t, &id, func(_ uint32, e *blobEntry) bool {
		found = append(found, place{*e, x.packs[e.meta&metaPack].id})
		return true
	})
	return found
}

// size returns the size of a blob's content.
func (x *index) size(t BlobType, id ID) (size uint32, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	x.find(t, &id, func(_ uint32, e *blobEntry) bool {
		size, ok = e.size, true
		return false
	})
	return size, ok
}

// number returns the number of a blob's first entry, and the bytes that it takes
// in its pack.
func (x *index) number(t BlobType, id ID) (number, length uint32, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	x.find(t, &id, func(n uint32, e *blobEntry) bool {
		number, length, ok = n, e.length, true
		return false
	})
	return number, length, ok
}

// add adds a pack. What is known of it already is passed over. It keeps nothing
// of blobs.
func (x *index) add(pack ID, blobs []blobEntry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, known := x.byID[pack]
	place := uint32(len(x.packs))
	if place > metaPack || uint64(x.count)+uint64(len(blobs)) > math.MaxUint32/2 {
		return fmt.Errorf("%w: an index of %d packs and %d blobs", ErrLimit, len(x.packs), x.count)
	}
	p := packEntries{id: pack, first: x.count}
	for i := range blobs {
		copies, same := x.copies(pack, &blobs[i], known)
		if same || copies >= maxCopies {
			continue
		}
		e := blobs[i]
		e.meta = e.meta&^metaPack | place
		x.insert(&e)
	}
	p.count = x.count - p.first
	if known && p.count == 0 {
		return nil
	}
	x.packs = append(x.packs, p)
	if !known {
		x.byID[pack] = place
	}
	return nil
}

// copies counts the places of a blob, and says whether e is one of them. Only a
// pack that is known already can hold the same.
func (x *index) copies(pack ID, e *blobEntry, known bool) (n int, same bool) {
	x.find(e.blobType(), &e.id, func(_ uint32, o *blobEntry) bool {
		n++
		same = known && e.sameBlob(o) && x.packs[o.meta&metaPack].id == pack
		return !same
	})
	return n, same
}

// insert appends an entry and enters it in the table, which stays at most three
// quarters full.
func (x *index) insert(e *blobEntry) {
	if int(x.count)/blockEntries == len(x.blocks) {
		x.blocks = append(x.blocks, make([]blobEntry, blockEntries))
	}
	*x.entry(x.count) = *e
	x.count++
	if int(x.count) > len(x.table)/4*3 {
		x.table = make([]uint32, 2*len(x.table))
		for n := range x.count {
			x.enter(n)
		}
		return
	}
	x.enter(x.count - 1)
}

// enter puts entry n at the end of its chain.
func (x *index) enter(n uint32) {
	s := x.slot(&x.entry(n).id)
	for x.table[s] != 0 {
		s = (s + 1) & uint32(len(x.table)-1)
	}
	x.table[s] = n + 1
}

// packIDs returns all packs.
func (x *index) packIDs() []ID {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ids := make([]ID, 0, len(x.byID))
	for id := range x.byID {
		ids = append(ids, id)
	}
	return ids
}

// ends returns where the last blob of each pack ends, in bytes.
func (x *index) ends() map[ID]int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(map[ID]int64, len(x.byID))
	for i := range x.packs {
		p := &x.packs[i]
		end := out[p.id]
		for n := p.first; n < p.first+p.count; n++ {
			e := x.entry(n)
			end = max(end, int64(e.offset)+int64(e.length))
		}
		out[p.id] = end
	}
	return out
}

// packBlobs returns what the index says of a pack, in no order.
func (x *index) packBlobs(pack ID) []blobEntry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	first, ok := x.byID[pack]
	if !ok {
		return nil
	}
	var blobs []blobEntry
	for i := first; i < uint32(len(x.packs)); i++ {
		p := &x.packs[i]
		if p.id != pack {
			continue
		}
		blobs = slices.Grow(blobs, int(p.count))
		for n := p.first; n < p.first+p.count; n++ {
			blobs = append(blobs, *x.entry(n))
		}
	}
	return blobs
}

// without returns the index of all packs but some.
func (x *index) without(packs map[ID]bool) (*index, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := newIndex()
	for i := range x.packs {
		p := &x.packs[i]
		if packs[p.id] {
			continue
		}
		blobs := make([]blobEntry, 0, p.count)
		for n := p.first; n < p.first+p.count; n++ {
			blobs = append(blobs, *x.entry(n))
		}
		if err := out.add(p.id, blobs); err != nil {
			return nil, err
		}
	}
	return out, nil
}
