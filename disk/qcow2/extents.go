package qcow2

import (
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Range is a part of the guest's disk that is kept in one way, as `qemu-img map`
// tells it.
type Range struct {
	Offset, Length int64 // bytes

	// Kind is what is known about it without reading it. ExtentHole is what no
	// layer has allocated.
	Kind disk.ExtentKind
	// Depth is the layer that decides: 0 for this image, 1 for its backing file,
	// and so on. For a hole it is the lowest layer that is long enough.
	Depth int
	// Compressed data lies nowhere in the form in which the guest reads it.
	Compressed bool
}

// merger hands values on to yield, those that join makes one as one.
type merger[T any] struct {
	join  func(a *T, b T) bool
	yield func(T) error

	pending T
	some    bool // there is a pending one
}

func (m *merger[T]) add(v T) error {
	if m.some && m.join(&m.pending, v) {
		return nil
	}
	err := m.flush()
	m.pending, m.some = v, true
	return err
}

func (m *merger[T]) flush() error {
	if !m.some {
		return nil
	}
	m.some = false
	return m.yield(m.pending)
}

// Extents calls yield for the extents of [off, off+length), neighbours of one
// kind merged. It reads L2 tables, and asks the backing file and the external
// data file for their extents.
func (im *Image) Extents(off, length int64, yield func(disk.Extent) error) error {
	m := merger[disk.Extent]{yield: yield, join: func(a *disk.Extent, b disk.Extent) bool {
		if a.Kind != b.Kind {
			return false
		}
		a.Length += b.Length
		return true
	}}
	err := im.walk(off, length, func(r Range) error {
		return m.add(disk.Extent{Offset: r.Offset, Length: r.Length, Kind: r.Kind})
	})
	if err != nil {
		return err
	}
	return m.flush()
}

// Map calls yield for consecutive ranges that together cover exactly
// [off, off+length), neighbours of one kind merged. It reads what Extents reads,
// and stops at the first error of yield and returns that.
//
// It tells the layers of a backing file apart where that is an Image itself; of
// any other it knows the extents.
func (im *Image) Map(off, length int64, yield func(Range) error) error {
	m := merger[Range]{yield: yield, join: func(a *Range, b Range) bool {
		if a.Kind != b.Kind || a.Depth != b.Depth || a.Compressed != b.Compressed {
			return false
		}
		a.Length += b.Length
		return true
	}}
	if err := im.walk(off, length, m.add); err != nil {
		return err
	}
	return m.flush()
}

// walk is Map, with nothing merged.
func (im *Image) walk(off, length int64, yield func(Range) error) error {
	return im.runs(off, length, func(at int64, r run) error {
		whole := Range{Offset: at, Length: r.length}
		switch r.kind {
		case runZero:
			whole.Kind = disk.ExtentZero
		case runCompressed:
			whole.Compressed = true
		case runData:
			if im.dataFile != nil {
				return im.walkDataFile(whole, yield)
			}
		case runUnallocated:
			return im.walkBacking(whole, yield)
		}
		return yield(whole)
	})
}

// walkDataFile is for data in an external data file, which knows its holes and
// has everything where the disk has it.
func (im *Image) walkDataFile(r Range, yield func(Range) error) error {
	there := max(0, min(r.Length, im.mapping.dataSize-r.Offset))
	if there > 0 {
		err := im.dataFile.Extents(r.Offset, there, func(e disk.Extent) error {
			return yield(Range{Offset: e.Offset, Length: e.Length, Kind: e.Kind})
		})
		if err != nil {
			return err
		}
	}
	if there == r.Length {
		return nil
	}
	// The end of the last cluster is missing, see readData.
	return yield(Range{Offset: r.Offset + there, Length: r.Length - there, Kind: disk.ExtentZero})
}

// walkBacking is for what the image does not hold.
func (im *Image) walkBacking(r Range, yield func(Range) error) error {
	r.Kind = disk.ExtentHole
	if im.backing == nil {
		return yield(r)
	}
	there := im.inBacking(r.Offset, r.Length)
	if err := im.walkBelow(r.Offset, there, yield); err != nil {
		return err
	}
	if r.Offset, r.Length = r.Offset+there, r.Length-there; r.Length == 0 {
		return nil
	}
	return yield(r)
}

func (im *Image) walkBelow(off, length int64, yield func(Range) error) error {
	if length == 0 {
		return nil
	}
	if below, ok := im.backing.(*Image); ok {
		return below.walk(off, length, func(r Range) error {
			r.Depth++
			return yield(r)
		})
	}
	return im.backing.Extents(off, length, func(e disk.Extent) error {
		return yield(Range{Offset: e.Offset, Length: e.Length, Kind: e.Kind, Depth: 1})
	})
}

// runs calls visit for the runs of [off, off+length), at guest offset at.
func (im *Image) runs(off, length int64, visit func(at int64, r run) error) error {
	if !ondisk.Within(off, length, im.size) {
		return layer.Unreadable("disk", off, os.ErrInvalid)
	}
	for end := off + length; off < end; {
		r, err := im.mapping.at(off, end-off)
		if err != nil {
			return err
		}
		if err := visit(off, r); err != nil {
			return err
		}
		off += r.length
	}
	return nil
}

// The devices of [Image.Locate], of which there may be more below.
const (
	deviceImage    = 0
	deviceDataFile = 1
)

// Locate calls yield for where the bytes of [off, off+length) lie, as
// [disk.Locator] says. Device 0 is the file that holds the image, 1 its external
// data file if it has one, and then follow the devices of the backing file, if
// that is a [disk.Locator]. Compressed clusters, zeros and holes are at device
// -1, and so is what only a backing file that is no Locator knows.
func (im *Image) Locate(off, length int64, yield func(disk.Location) error) error {
	m := merger[disk.Location]{yield: yield, join: func(a *disk.Location, b disk.Location) bool {
		if a.Device != b.Device || a.Device >= 0 && a.At+a.Length != b.At {
			return false
		}
		a.Length += b.Length
		return true
	}}
	err := im.runs(off, length, func(at int64, r run) error {
		l := disk.Location{Offset: at, Length: r.length, Device: -1}
		switch r.kind {
		case runData:
			return im.locateData(l, r.host, m.add)
		case runUnallocated:
			return im.locateBacking(l, m.add)
		}
		return m.add(l)
	})
	if err != nil {
		return err
	}
	return m.flush()
}

// locateData is for l that lies at offset host. The end of the last cluster may
// be missing from its file, see readData.
func (im *Image) locateData(l disk.Location, host int64, yield func(disk.Location) error) error {
	rest := l
	l.Length = max(0, min(l.Length, im.mapping.dataSize-host))
	l.At, l.Device = host, deviceImage
	if im.dataFile != nil {
		l.Device = deviceDataFile
	}
	rest.Offset, rest.Length = rest.Offset+l.Length, rest.Length-l.Length
	for _, l := range []disk.Location{l, rest} {
		if l.Length == 0 {
			continue
		}
		if err := yield(l); err != nil {
			return err
		}
	}
	return nil
}

// locateBacking is for l that the image does not hold.
func (im *Image) locateBacking(l disk.Location, yield func(disk.Location) error) error {
	below, ok := im.backing.(disk.Locator)
	if !ok {
		return yield(l)
	}
	first := deviceImage + 1
	if im.dataFile != nil {
		first = deviceDataFile + 1
	}
	there := im.inBacking(l.Offset, l.Length)
	if there > 0 {
		err := below.Locate(l.Offset, there, func(l disk.Location) error {
			if l.Device >= 0 {
				l.Device += first
			}
			return yield(l)
		})
		if err != nil {
			return err
		}
	}
	if l.Offset, l.Length = l.Offset+there, l.Length-there; l.Length == 0 {
		return nil
	}
	return yield(l)
}
