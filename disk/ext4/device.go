package ext4

import (
	"encoding/binary"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// device is the disk as the filesystem's owner would see it after recovery:
// blocks that the journal holds a newer version of are read from the journal.
type device struct {
	disk      disk.Sparse
	blockSize int64
	replaced  []replacement // sorted by target, each target once
	cache     *cache.Cache[span]
}

// span is a range of the disk, in bytes.
type span struct {
	off int64
	len int
}

// replacement says that block target is to be read from block source, which
// lies in the journal.
type replacement struct {
	target  uint64
	source  uint64
	escaped bool // the first four bytes stand for the journal's magic number
}

// readAt fills p from byte off, or fails.
func (d *device) readAt(p []byte, off int64) error {
	if len(d.replaced) == 0 {
		return ondisk.ReadFull(d.disk, p, off)
	}
	first := uint64(off / d.blockSize)
	i := sort.Search(len(d.replaced), func(i int) bool { return d.replaced[i].target >= first })
	for len(p) > 0 {
		if i == len(d.replaced) {
			return ondisk.ReadFull(d.disk, p, off)
		}
		r := d.replaced[i]
		if start := int64(r.target) * d.blockSize; start > off {
			n := min(start-off, int64(len(p)))
			if err := ondisk.ReadFull(d.disk, p[:n], off); err != nil {
				return err
			}
			p, off = p[n:], off+n
			continue
		}
		within := off % d.blockSize
		n := min(d.blockSize-within, int64(len(p)))
		if err := d.readReplaced(p[:n], r, within); err != nil {
			return err
		}
		p, off = p[n:], off+n
		i++
	}
	return nil
}

func (d *device) readReplaced(p []byte, r replacement, within int64) error {
	if err := ondisk.ReadFull(d.disk, p, int64(r.source)*d.blockSize+within); err != nil {
		return err
	}
	if r.escaped && within < 4 {
		magic := binary.BigEndian.AppendUint32(nil, journalMagic)
		copy(p, magic[within:])
	}
	return nil
}

// metadata returns the bytes of s through the cache. The caller must not
// write to them.
func (d *device) metadata(s span) ([]byte, error) {
	if data := d.cache.Get(s); data != nil {
		return data, nil
	}
	data := make([]byte, s.len)
	if err := d.readAt(data, s.off); err != nil {
		return nil, err
	}
	d.cache.Add(s, data)
	return data, nil
}
