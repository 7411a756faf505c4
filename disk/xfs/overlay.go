package xfs

import (
	"cmp"
	"slices"
	"sort"
)

const (
	// chunkSize is the unit in which buffers are logged (XFS_BLF_CHUNK).
	chunkSize = 128
	// maxChunks bounds the overlay: 64 MiB of logged bytes, and some 25 MiB for
	// finding them. That is what 100,000 new files change. Linux brings changes to
	// their place within a minute, so that a log has far less most of the time,
	// however large it is.
	maxChunks = 1 << 19
)

// slabChunks is how many chunks get their memory at once.
const slabChunks = 512

// overlay is what a replay has put in place of bytes on the disk.
type overlay struct {
	slabs  []*[slabChunks][chunkSize]byte
	places map[int64]uint32 // in the slabs, by offset on the disk in chunks
	sorted []placed         // the same, once the replay is over
}

type placed struct {
	at    int64
	place uint32
}

func newOverlay() *overlay { return &overlay{places: make(map[int64]uint32)} }

func (o *overlay) chunk(place uint32) []byte {
	return o.slabs[place/slabChunks][place%slabChunks][:]
}

// put replaces the bytes from off on. Both are multiples of a chunk. It returns
// false where the overlay is full.
func (o *overlay) put(p []byte, off int64) bool {
	for ; len(p) >= chunkSize; p, off = p[chunkSize:], off+chunkSize {
		place, ok := o.places[off/chunkSize]
		if !ok {
			if len(o.places) == maxChunks {
				return false
			}
			place = uint32(len(o.places))
			o.places[off/chunkSize] = place
			if place%slabChunks == 0 {
				o.slabs = append(o.slabs, new([slabChunks][chunkSize]byte))
			}
		}
		copy(o.chunk(place), p)
	}
	return true
}

// close ends the replay: from now on the overlay is only read.
func (o *overlay) close() {
	o.sorted = make([]placed, 0, len(o.places))
	for at, place := range o.places {
		o.sorted = append(o.sorted, placed{at, place})
	}
	slices.SortFunc(o.sorted, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	o.places = nil
}

// apply puts what is replaced into p, which was read from off, and reports
// whether there was anything.
func (o *overlay) apply(p []byte, off int64) bool {
	first, end := off/chunkSize, off+int64(len(p))
	found := false
	if o.sorted == nil {
		for at := first; at*chunkSize < end; at++ {
			if place, ok := o.places[at]; ok {
				o.copyChunk(p, off, placed{at, place})
				found = true
			}
		}
		return found
	}
	for i := o.search(first); i < len(o.sorted) && o.sorted[i].at*chunkSize < end; i++ {
		o.copyChunk(p, off, o.sorted[i])
		found = true
	}
	return found
}

// copyChunk copies what of a chunk lies in p, which is at off.
func (o *overlay) copyChunk(p []byte, off int64, c placed) {
	from := c.at*chunkSize - off
	if from < 0 {
		copy(p, o.chunk(c.place)[-from:])
	} else {
		copy(p[from:], o.chunk(c.place))
	}
}

// search returns the first place in sorted that is not before chunk at.
func (o *overlay) search(at int64) int {
	return sort.Search(len(o.sorted), func(i int) bool { return o.sorted[i].at >= at })
}

// isReplaced reports whether any byte of a range is from the log.
func (d *device) isReplaced(off, length int64) bool {
	if d.replaced == nil {
		return false
	}
	o := d.replaced
	i := o.search(off / chunkSize)
	return i < len(o.sorted) && o.sorted[i].at*chunkSize < off+length
}
