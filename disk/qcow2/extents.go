package qcow2

import (
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Extents calls yield for the extents of [off, off+length), neighbours of one
// kind merged. It reads L2 tables, and asks the backing file for its extents.
func (im *Image) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, im.size) {
		return layer.Unreadable("disk", off, os.ErrInvalid)
	}
	var pending disk.Extent
	merge := func(e disk.Extent) error {
		if e.Length == 0 {
			return nil
		}
		if pending.Length > 0 && pending.Kind == e.Kind {
			pending.Length += e.Length
			return nil
		}
		last := pending
		pending = e
		if last.Length == 0 {
			return nil
		}
		return yield(last)
	}
	err := im.eachExtent(off, length, merge)
	if err == nil && pending.Length > 0 {
		err = yield(pending)
	}
	return err
}

// eachExtent calls yield for the extents of [off, off+length), some of which may
// be empty.
func (im *Image) eachExtent(off, length int64, yield func(disk.Extent) error) error {
	for end := off + length; off < end; {
		r, err := im.mapping.at(off, end-off)
		if err != nil {
			return err
		}
		e := disk.Extent{Offset: off, Length: r.length, Kind: disk.ExtentData}
		switch r.kind {
		case runZero:
			e.Kind = disk.ExtentZero
		case runUnallocated:
			e.Kind = disk.ExtentHole
			if there := im.inBacking(off, r.length); there > 0 {
				if err := im.backing.Extents(off, there, yield); err != nil {
					return err
				}
				e.Offset, e.Length = off+there, r.length-there
			}
		}
		if err := yield(e); err != nil {
			return err
		}
		off += r.length
	}
	return nil
}
