package xfs

import (
	"slices"
	"sort"
)

const (
	// chunkSize is the unit in which buffers are logged (XFS_BLF_CHUNK).
	chunkSize = 128
	// maxChunks bounds the overlay: 128 MiB of logged bytes, and about as much
	// for finding them. A log of 1 GiB changes less than that, since it holds
	// what changes often many times.
	maxChunks = 1 << 20
)

// overlay is what a replay has put in place of bytes on the disk.
type overlay struct {
	chunks map[int64]*[chunkSize]byte // by offset on the disk, in chunks
	sorted []int64                    // the keys of chunks, once the replay is over
}

func newOverlay() *overlay { return &overlay{chunks: make(map[int64]*[chunkSize]byte)} }

// put replaces the bytes from off on. Both are multiples of a chunk. It returns
// false where the overlay is full.
func (o *overlay) put(p []byte, off int64) bool {
	for ; len(p) >= chunkSize; p, off = p[chunkSize:], off+chunkSize {
		c := o.chunks[off/chunkSize]
		if c == nil {
			if len(o.chunks) == maxChunks {
				return false
			}
			c = new([chunkSize]byte)
			o.chunks[off/chunkSize] = c
		}
		copy(c[:], p)
	}
	return true
}

// close ends the replay: from now on the overlay is only read.
func (o *overlay) close() {
	o.sorted = make([]int64, 0, len(o.chunks))
	for at := range o.chunks {
		o.sorted = append(o.sorted, at)
	}
	slices.Sort(o.sorted)
}

// apply puts what is replaced into p, which was read from off, and reports
// whether there was anything.
func (o *overlay) apply(p []byte, off int64) bool {
	first, end := off/chunkSize, off+int64(len(p))
	any := false
	if o.sorted == nil {
		for at := first; at*chunkSize < end; at++ {
			if c := o.chunks[at]; c != nil {
				o.copyChunk(p, off, at, c)
				any = true
			}
		}
		return any
	}
	for i := o.search(first); i < len(o.sorted) && o.sorted[i]*chunkSize < end; i++ {
		o.copyChunk(p, off, o.sorted[i], o.chunks[o.sorted[i]])
		any = true
	}
	return any
}

// copyChunk copies what of chunk at lies in p, which is at off.
func (o *overlay) copyChunk(p []byte, off, at int64, c *[chunkSize]byte) {
	from := at*chunkSize - off
	if from < 0 {
		copy(p, c[-from:])
	} else {
		copy(p[from:], c[:])
	}
}

// search returns the first place in sorted that is not before chunk at.
func (o *overlay) search(at int64) int {
	return sort.Search(len(o.sorted), func(i int) bool { return o.sorted[i] >= at })
}

// isReplaced reports whether any byte of a range is from the log.
func (d *device) isReplaced(off, length int64) bool {
	if d.replaced == nil {
		return false
	}
	o := d.replaced
	i := o.search(off / chunkSize)
	return i < len(o.sorted) && o.sorted[i]*chunkSize < off+length
}
