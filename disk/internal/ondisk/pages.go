package ondisk

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
)

// Pages are the structures of a disk, read and kept in pages of one size. They are safe
// for concurrent use.
type Pages struct {
	Disk  disk.Sparse
	size  int64 // bytes of a page
	cache *cache.Cache[int64]
}

// NewPages keeps at most budget bytes of d, in pages of size bytes.
func NewPages(d disk.Sparse, size, budget int64) *Pages {
	return &Pages{Disk: d, size: size, cache: cache.New[int64](budget)}
}

// Page returns the page that byte off of the disk lies in, cut at the end of the disk,
// and where in it the byte is. The caller must not write to it.
func (p *Pages) Page(off int64) (data []byte, at int, err error) {
	at = int(off % p.size)
	start := off - int64(at)
	if data = p.cache.Get(start); data != nil {
		return data, at, nil
	}
	data = make([]byte, max(0, min(p.size, p.Disk.Size()-start)))
	if err := ReadFull(p.Disk, data, start); err != nil {
		return nil, 0, err
	}
	p.cache.Add(start, data)
	return data, at, nil
}
