package worker

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// place knows what the devices of a [disk.Location] are: what an object lies on.
// below calls yield for where a range of a device lies in the worker's files, in
// order; the offsets are those of the object that starts at off.
type place interface {
	below(device int, at, length, off int64, yield func(wire.Piece) error) error
}

// onFiles is the place of a disk: the files of its topmost image.
type onFiles struct{ disk *openDisk }

func (p onFiles) below(device int, at, length, off int64, yield func(wire.Piece) error) error {
	return yield(wire.Piece{Extent: disk.Extent{Offset: off, Length: length}, File: uint8(p.disk.file + device), At: at})
}

// onDisks is the place of a volume.
type onDisks struct{ reader *reader }

func (p onDisks) below(device int, at, length, off int64, yield func(wire.Piece) error) error {
	if device >= len(p.reader.disks) {
		return damaged("location", fmt.Errorf("on disk %d of %d", device, len(p.reader.disks)))
	}
	k := p.reader.disks[device]
	return locate(k.top, onFiles{k}, at, length, off, yield)
}

// onDevices is the place of a file: the volumes that its filesystem lies on.
type onDevices struct {
	reader  *reader
	devices []disk.Sparse
}

func (p onDevices) below(device int, at, length, off int64, yield func(wire.Piece) error) error {
	if device >= len(p.devices) {
		return damaged("location", fmt.Errorf("on device %d of %d", device, len(p.devices)))
	}
	return locate(p.devices[device], onDisks{p.reader}, at, length, off, yield)
}

// locate calls yield for the pieces of a range of content, all of whose bytes are
// data. Their offsets count from off.
func locate(content disk.Sparse, on place, at, length, off int64, yield func(wire.Piece) error) error {
	nowhere := func(from, n int64) error {
		return yield(wire.Piece{Extent: disk.Extent{Offset: off + from - at, Length: n}, File: wire.NoFile})
	}
	l, ok := content.(disk.Locator)
	if !ok {
		return nowhere(at, length)
	}
	return l.Locate(at, length, func(p disk.Location) error {
		if p.Device < 0 {
			return nowhere(p.Offset, p.Length)
		}
		return on.below(p.Device, p.At, p.Length, off+p.Offset-at, yield)
	})
}

// listPieces answers with as many pieces as fit.
func (d *reader) listPieces(r wire.Pieces, b []byte) ([]byte, error) {
	content, on, err := d.object(r.Object)
	if err != nil {
		return nil, err
	}
	list, err := listPieces(content, on, r.Off, r.Length, wire.MaxPieces)
	if err != nil {
		return nil, err
	}
	return wire.AppendPieces(b, list), nil
}

// listPieces returns the first pieces of a range, at most limit.
func listPieces(content disk.Sparse, on place, off, length int64, limit int) ([]wire.Piece, error) {
	extents, err := listExtents(content, off, length, limit)
	if err != nil {
		return nil, err
	}
	l := pieceList{limit: limit}
	for _, e := range extents {
		if e.Kind != disk.ExtentData || on == nil {
			err = l.add(wire.Piece{Extent: e, File: wire.NoFile})
		} else {
			err = locate(content, on, e.Offset, e.Length, e.Offset, l.add)
		}
		if err == errEnough {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return l.list, nil
}

// pieceList collects pieces, and joins those that continue one another.
type pieceList struct {
	list  []wire.Piece
	limit int
}

func (l *pieceList) add(p wire.Piece) error {
	if n := len(l.list); n > 0 {
		last := &l.list[n-1]
		if last.Kind == p.Kind && last.File == p.File && (p.File == wire.NoFile || last.At+last.Length == p.At) {
			last.Length += p.Length
			return nil
		}
		if n == l.limit {
			return errEnough
		}
	}
	l.list = append(l.list, p)
	return nil
}

// listExtents returns the first extents of a range, neighbours of one kind
// merged, at most limit.
func listExtents(content disk.Sparse, off, length int64, limit int) ([]disk.Extent, error) {
	if off > content.Size() || length > content.Size()-off {
		return nil, &disk.Error{Layer: "reader", Structure: "content", Offset: off, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("extents of %d bytes are asked for, the content has %d in all", length, content.Size())}
	}
	var list []disk.Extent
	next := off
	err := content.Extents(off, length, func(e disk.Extent) error {
		if e.Length == 0 {
			return nil
		}
		if e.Offset != next || e.Length < 0 || e.Length > off+length-next || e.Kind > disk.ExtentHole {
			return &disk.Error{Layer: "reader", Structure: "extents", Offset: e.Offset, Err: disk.ErrCorrupt,
				Detail: fmt.Sprintf("an extent of %d bytes of kind %d does not follow the one that ends at %d", e.Length, e.Kind, next)}
		}
		next += e.Length
		if n := len(list); n > 0 && list[n-1].Kind == e.Kind {
			list[n-1].Length += e.Length
			return nil
		}
		if len(list) == limit {
			return errEnough
		}
		list = append(list, e)
		return nil
	})
	if err != nil && err != errEnough {
		return nil, err
	}
	if err == nil && next != off+length {
		return nil, &disk.Error{Layer: "reader", Structure: "extents", Offset: next, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("the extents end before %d", off+length)}
	}
	return list, nil
}
