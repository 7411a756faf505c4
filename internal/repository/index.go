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
	next         uint32 // 1 + the number of another one of the same pack, or 0
}

// maxCopies is how many places of one blob are kept. More are of no use, and would
// make every lookup long.
const maxCopies = 8

// index maps blobs to their places. It is safe for concurrent use.
//
// A million blobs take 48 MB of entries and 6 to 11 MB of table; a million packs, as a
// disk of 15 TiB that is full has them, 44 MB and the same. The hash is
// keyed: guests choose contents, and could choose IDs that share a chain.
type index struct {
	seed maphash.Seed

	mu      sync.RWMutex // guards what follows
	packs   rows[packEntries]
	byID    table // the first one of each pack
	entries rows[blobEntry]
	table   table // of entries
}

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), byID: newTable(), table: newTable()}
}

// hash returns where the chain of an ID begins. It leaves out the type of a blob: the two
// hardly ever share an ID.
func (x *index) hash(id *ID) uint32 { return uint32(maphash.Bytes(x.seed, id[:])) }

// find calls yield for each entry of the blob, with its number, until that returns
// false.
func (x *index) find(t BlobType, id *ID, yield func(uint32, *blobEntry) bool) {
	x.table.find(x.hash(id), func(n uint32) bool {
		e := x.entries.at(n)
		return e.id != *id || e.blobType() != t || yield(n, e)
	})
}

// pack returns the number of the first one that a pack has in x.packs.
func (x *index) pack(id *ID) (n uint32, ok bool) {
	x.byID.find(x.hash(id), func(at uint32) bool {
		n, ok = at, x.packs.at(at).id == *id
		return !ok
	})
	return n, ok
}

// packOf is the pack that an entry is in.
func (x *index) packOf(e *blobEntry) ID { return x.packs.at(e.meta & metaPack).id }

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
		found = append(found, place{*e, x.packOf(e)})
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
	before, known := x.pack(&pack)
	place := x.packs.count
	if place > metaPack || uint64(x.entries.count)+uint64(len(blobs)) > math.MaxUint32/2 {
		return fmt.Errorf("%w: an index of %d packs and %d blobs", ErrLimit, place, x.entries.count)
	}
	p := packEntries{id: pack, first: x.entries.count}
	for i := range blobs {
		copies, same := x.copies(pack, &blobs[i], known)
		if same || copies >= maxCopies {
			continue
		}
		e := blobs[i]
		e.meta = e.meta&^metaPack | place
		n := x.entries.add(e)
		x.table.add(n, x.hash(&e.id), func(n uint32) uint32 { return x.hash(&x.entries.at(n).id) })
	}
	p.count = x.entries.count - p.first
	if known && p.count == 0 {
		return nil
	}
	if known {
		first := x.packs.at(before)
		p.next, first.next = first.next, place+1
	}
	x.packs.add(p)
	if !known {
		x.byID.add(place, x.hash(&pack), func(n uint32) uint32 { return x.hash(&x.packs.at(n).id) })
	}
	return nil
}

// copies counts the places of a blob, and says whether e is one of them. Only a
// pack that is known already can hold the same.
func (x *index) copies(pack ID, e *blobEntry, known bool) (n int, same bool) {
	x.find(e.blobType(), &e.id, func(_ uint32, o *blobEntry) bool {
		n++
		same = known && e.sameBlob(o) && x.packOf(o) == pack
		return !same
	})
	return n, same
}

// blobs returns how many places of blobs there are.
func (x *index) blobs() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return int(x.entries.count)
}

// packIDs returns all packs.
func (x *index) packIDs() []ID {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ids := make([]ID, 0, x.byID.used)
	for _, n := range x.byID.places {
		if n != 0 {
			ids = append(ids, x.packs.at(n-1).id)
		}
	}
	return ids
}

// ends returns where the last blob of each pack ends, in bytes.
func (x *index) ends() map[ID]int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(map[ID]int64, x.packs.count)
	for i := range x.packs.count {
		p := x.packs.at(i)
		end := out[p.id]
		for n := p.first; n < p.first+p.count; n++ {
			e := x.entries.at(n)
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
	first, ok := x.pack(&pack)
	if !ok {
		return nil
	}
	var blobs []blobEntry
	for next := first + 1; next != 0; next = x.packs.at(next - 1).next {
		blobs = x.appendBlobs(blobs, x.packs.at(next-1))
	}
	return blobs
}

// appendBlobs appends a run of entries.
func (x *index) appendBlobs(blobs []blobEntry, p *packEntries) []blobEntry {
	blobs = slices.Grow(blobs, int(p.count))
	for n := p.first; n < p.first+p.count; n++ {
		blobs = append(blobs, *x.entries.at(n))
	}
	return blobs
}

// without returns the index of all packs but some.
func (x *index) without(packs map[ID]bool) (*index, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := newIndex()
	for i := range x.packs.count {
		p := x.packs.at(i)
		if packs[p.id] {
			continue
		}
		if err := out.add(p.id, x.appendBlobs(nil, p)); err != nil {
			return nil, err
		}
	}
	return out, nil
}
