package fat

import (
	"encoding/binary"
	"fmt"
)

// The entries of the table (FAT File System Specification, "FAT Data
// Structure"): the number of the next cluster, or a mark. Marks are taken as
// those of FAT32, whatever the table's kind.
const (
	markFree  = 0
	markBad   = 0x0ffffff7
	markEnd   = 0x0ffffff8 // and above
	entryMask = 0x0fffffff // the four bits above are reserved
)

// decodeEntry returns an entry of a table of the given number of bits. raw starts
// at the entry's first byte; odd is whether a 12-bit entry's number is.
func decodeEntry(raw []byte, bits uint, odd bool) uint32 {
	switch bits {
	case 32:
		return binary.LittleEndian.Uint32(raw) & entryMask
	case 16:
		return widen(uint32(binary.LittleEndian.Uint16(raw)), 16)
	}
	v := uint32(binary.LittleEndian.Uint16(raw))
	if odd {
		return widen(v>>4, 12)
	}
	return widen(v&0xfff, 12)
}

// widen makes the marks of a smaller table those of FAT32.
func widen(v uint32, bits uint) uint32 {
	if mask := uint32(1)<<bits - 1; v >= markBad&mask {
		return v | entryMask&^mask
	}
	return v
}

// entryOffset is where in the table a cluster's entry starts.
func (g *geometry) entryOffset(cluster uint32) int64 {
	return int64(cluster) * int64(g.bits) / 8
}

// tableReader reads entries of the table, keeping the page of the last one.
type tableReader struct {
	fs    *Filesystem
	page  []byte
	start int64 // of page, on the disk
}

// bytes returns the table from byte off of the disk to the end of a page.
func (r *tableReader) bytes(off int64) ([]byte, error) {
	if i := off - r.start; i >= 0 && i < int64(len(r.page)) {
		return r.page[i:], nil
	}
	page, at, err := r.fs.dev.Page(off)
	if err != nil {
		return nil, layer.Unreadable("file allocation table", off, err)
	}
	r.page, r.start = page, off-int64(at)
	return page[at:], nil
}

// entry returns the entry of a cluster, or that of the two numbers before.
func (r *tableReader) entry(cluster uint32) (uint32, error) {
	g := r.fs.geo
	off := g.table + g.entryOffset(cluster)
	raw, err := r.bytes(off)
	if err != nil {
		return 0, err
	}
	if g.bits == 12 && len(raw) == 1 { // the other half is in the next page
		next, err := r.bytes(off + 1)
		if err != nil {
			return 0, err
		}
		raw = []byte{raw[0], next[0]}
	}
	return decodeEntry(raw, g.bits, cluster%2 == 1), nil
}

// chain follows the clusters of one file or directory. It notices when they lead
// in a circle by Brent's algorithm: it compares each cluster with one before it,
// which it chooses anew at every power of two. A circle that closes within n
// clusters is found within circleFactor times as many.
type chain struct {
	table   tableReader
	ino     uint64
	cluster uint32 // 0 behind the end
	index   uint32 // of cluster in the file
	anchor  uint32 // a cluster before this one
	circle  bool   // next failed since the clusters lead back
}

const circleFactor = 3

// chain starts at cluster first of inode ino.
func (fs *Filesystem) chain(ino uint64, first uint32) (*chain, error) {
	c := &chain{table: tableReader{fs: fs}, ino: ino, cluster: first, anchor: first}
	if !fs.geo.valid(first) {
		return nil, c.damaged(entryPlace(ino), "it starts at cluster %d, there are 2 to %d", first, fs.geo.clusters+1)
	}
	return c, nil
}

// next moves on by one cluster.
func (c *chain) next() error {
	g := c.table.fs.geo
	v, err := c.table.entry(c.cluster)
	if err != nil {
		return err
	}
	off := g.table + g.entryOffset(c.cluster)
	c.index++
	switch {
	case g.valid(v):
	case v >= markEnd:
		c.cluster = 0
		return nil
	case v == markFree:
		return c.damaged(off, "cluster %d is marked as free", c.cluster)
	case v == markBad:
		return c.damaged(off, "cluster %d is marked as bad", c.cluster)
	default:
		return c.damaged(off, "cluster %d leads to %d, there are 2 to %d", c.cluster, v, g.clusters+1)
	}
	if v == c.anchor {
		c.circle = true
		return c.damaged(off, "cluster %d leads back to %d", c.cluster, v)
	}
	if c.index&(c.index-1) == 0 {
		c.anchor = v
	}
	c.cluster = v
	return nil
}

func (c *chain) damaged(off int64, format string, args ...any) error {
	return layer.Damaged(fmt.Sprintf("clusters of inode %d", c.ino), off, format, args...)
}
