package iso9660

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// sectorSize is that of a logical sector (ECMA-119, section 6.1.2), whatever the
// logical blocks have. No directory record lies in two.
const sectorSize = 2048

// device is the disk below, with its structures in sectors.
type device struct {
	disk  disk.Sparse
	cache *cache.Cache[int64] // by offset
}

// sector returns the sector that byte off of the disk lies in, cut at the end of the
// disk, and where in it the byte is. The caller must not write to it.
func (d *device) sector(off int64) (data []byte, at int, err error) {
	at = int(off % sectorSize)
	start := off - int64(at)
	if data = d.cache.Get(start); data != nil {
		return data, at, nil
	}
	data = make([]byte, max(0, min(sectorSize, d.disk.Size()-start)))
	if err := ondisk.ReadFull(d.disk, data, start); err != nil {
		return nil, 0, err
	}
	d.cache.Add(start, data)
	return data, at, nil
}
