package fat

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// pageSize is the unit in which the table and the directories are read and kept.
// No directory entry, and no table entry of 16 or 32 bits, lies in two pages.
const pageSize = 4096

// device is the disk below, with its structures in pages.
type device struct {
	disk  disk.Sparse
	cache *cache.Cache[int64] // by offset
}

// page returns the page that byte off of the disk lies in, cut at the end of the
// disk, and where in it the byte is. The caller must not write to it.
func (d *device) page(off int64) (data []byte, at int, err error) {
	at = int(off % pageSize)
	start := off - int64(at)
	if data = d.cache.Get(start); data != nil {
		return data, at, nil
	}
	data = make([]byte, min(pageSize, d.disk.Size()-start))
	if err := ondisk.ReadFull(d.disk, data, start); err != nil {
		return nil, 0, err
	}
	d.cache.Add(start, data)
	return data, at, nil
}
