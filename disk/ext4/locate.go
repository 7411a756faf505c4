package ext4

import (
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Locate implements [disk.Locator]: what the journal holds a newer version of,
// and what reads as zeros, lies nowhere.
func (f *file) Locate(off, length int64, yield func(disk.Location) error) error {
	blockSize := f.fs.sb.blockSize()
	return f.stretches(off, length, func(s stretch, off, length int64) error {
		if s.kind != disk.ExtentData {
			return yield(disk.Location{Offset: off, Length: length, Device: -1})
		}
		at := int64(s.physical)*blockSize + off%blockSize
		return f.fs.dev.unreplaced(at, length, func(start, n int64, device int) error {
			l := disk.Location{Offset: off + start - at, Length: n, Device: device}
			if device >= 0 {
				l.At = start
			}
			return yield(l)
		})
	})
}

// unreplaced calls yield for the parts of [off, off+length) of the device: those
// that lie there, with device 0, and the others with -1.
func (d *device) unreplaced(off, length int64, yield func(off, length int64, device int) error) error {
	end := off + length
	first := uint64(off / d.blockSize)
	i := sort.Search(len(d.replaced), func(i int) bool { return d.replaced[i].target >= first })
	for off < end {
		next, device := end, 0
		if i < len(d.replaced) {
			start := int64(d.replaced[i].target) * d.blockSize
			if start <= off {
				next, device = min(end, start+d.blockSize), -1
				i++
			} else {
				next = min(end, start)
			}
		}
		if err := yield(off, next-off, device); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// Locate implements [disk.Locator]: content in an inode lies nowhere as it is.
func (f *inlineFile) Locate(off, length int64, yield func(disk.Location) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil || length == 0 {
		return err
	}
	return yield(disk.Location{Offset: off, Length: length, Device: -1})
}
