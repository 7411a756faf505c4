package xfs

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// sectorShift is of the sectors that addresses on disk count ("basic blocks"),
// whatever the disk below has for sectors.
const sectorShift = 9

// device is the disk as the filesystem's owner would see it after recovery.
type device struct {
	disk     disk.Sparse
	replaced *overlay // nil where nothing was replayed
	cache    *cache.Cache[blockKey]
}

// readAt fills p from byte off, or fails. It tells whether some of it comes from
// the log.
func (d *device) readAt(p []byte, off int64) (replayed bool, err error) {
	if err := ondisk.ReadFull(d.disk, p, off); err != nil {
		return false, err
	}
	if d.replaced == nil {
		return false, nil
	}
	return d.replaced.apply(p, off), nil
}

// lsn is a place in the log, and so a time: 4 cycle, 4 block.
type lsn uint64

// noLSN is in blocks that were never logged.
const noLSN lsn = 1<<64 - 1

func makeLSN(cycle, block uint32) lsn { return lsn(cycle)<<32 | lsn(block) }

func (l lsn) cycle() uint32 { return uint32(l >> 32) }
func (l lsn) block() uint32 { return uint32(l) }

// before reports whether other is newer.
func (l lsn) before(other lsn) bool { return other != noLSN && l < other }

func (l lsn) String() string { return fmt.Sprintf("%d:%d", l.cycle(), l.block()) }
