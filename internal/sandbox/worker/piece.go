package worker

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"sync"

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
	disks   onDisks
	devices []device
}

// device is a volume that a filesystem lies on.
type device struct {
	disk.Sparse
	once   sync.Once    // guards what follows
	pieces []wire.Piece // of all of it; nil where that is too much
}

// The pieces of a volume are kept if it is at most maxMapped bytes, which bounds
// the time that it takes to find them (8 MiB of L2 tables in qcow2), and there are
// at most maxMap of them.
const (
	maxMapped = 64 << 30
	maxMap    = 16 << 10
)

func newOnDevices(d *reader, devices []disk.Sparse) *onDevices {
	p := &onDevices{disks: onDisks{d}, devices: make([]device, len(devices))}
	for i, content := range devices {
		p.devices[i].Sparse = content
	}
	return p
}

func (p *onDevices) below(number int, at, length, off int64, yield func(wire.Piece) error) error {
	if number >= len(p.devices) {
		return damaged("location", fmt.Errorf("on device %d of %d", number, len(p.devices)))
	}
	d := &p.devices[number]
	d.once.Do(func() { d.pieces = d.survey(p.disks) })
	if d.pieces == nil || at < 0 || length > d.Size()-at {
		return locate(d.Sparse, p.disks, at, length, off, yield)
	}
	i := sort.Search(len(d.pieces), func(i int) bool { return d.pieces[i].Offset+d.pieces[i].Length > at })
	for end := at + length; at < end; i++ {
		piece := d.pieces[i]
		skip := at - piece.Offset
		piece.Offset, piece.Length = off, min(piece.Length-skip, end-at)
		if piece.File != wire.NoFile {
			piece.At += skip
		}
		at, off = at+piece.Length, off+piece.Length
		if err := yield(piece); err != nil {
			return err
		}
	}
	return nil
}

// survey returns the pieces of the whole device, or nil.
func (d *device) survey(disks onDisks) []wire.Piece {
	if d.Size() > maxMapped {
		return nil
	}
	l := pieceList{limit: maxMap}
	if err := locate(d.Sparse, disks, 0, d.Size(), 0, l.add); err != nil {
		return nil
	}
	return l.list
}

// locate calls yield for the pieces of a range of content, all of whose bytes are
// data. Their offsets count from off.
func locate(content disk.Sparse, on place, at, length, off int64, yield func(wire.Piece) error) error {
	l, ok := content.(disk.Locator)
	if !ok {
		return placed(disk.Location{Length: length, Device: -1}, on, off, yield)
	}
	return l.Locate(at, length, func(p disk.Location) error { return placed(p, on, off+p.Offset-at, yield) })
}

// placed calls yield for the pieces of a location. Their offsets count from off.
func placed(l disk.Location, on place, off int64, yield func(wire.Piece) error) error {
	switch {
	case l.Device < 0:
		return yield(wire.Piece{Extent: disk.Extent{Offset: off, Length: l.Length}, File: wire.NoFile})
	case l.Sums != nil:
		return placedSummed(l, on, off, yield)
	}
	return on.below(l.Device, l.At, l.Length, off, yield)
}

// placedSummed is placed for a location with checksums. It is told only if each
// block lies in one piece as a whole.
func placedSummed(l disk.Location, on place, off int64, yield func(wire.Piece) error) error {
	block, sums := l.Sums.Block, l.Sums.CRC32C
	found := pieceList{limit: wire.MaxPieces}
	err := on.below(l.Device, l.At, wire.Blocks(l.Length, block)*block, off, found.add)
	if err != nil && err != errEnough {
		return err
	}
	for _, p := range found.list {
		if err == errEnough || p.File == wire.NoFile || p.Length%block != 0 {
			return yield(wire.Piece{Extent: disk.Extent{Offset: off, Length: l.Length}, File: wire.NoFile})
		}
	}
	for _, p := range found.list {
		n := p.Length / block * crc32.Size
		p.Block, p.Sums, sums = block, slices.Clip(sums[:n]), sums[n:]
		p.Length = min(p.Length, off+l.Length-p.Offset)
		if err := yield(p); err != nil {
			return err
		}
	}
	return nil
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
	return newSurvey().pieces(content, on, off, length, limit)
}

// pieceList collects pieces, and joins those that continue one another.
type pieceList struct {
	list  []wire.Piece
	limit int
	sums  int // bytes of checksums in list
}

func (l *pieceList) add(p wire.Piece) error {
	if l.sums += len(p.Sums); l.sums > wire.MaxSums {
		return errEnough
	}
	if n := len(l.list); n > 0 {
		last := &l.list[n-1]
		if last.Kind == p.Kind && last.File == p.File && last.Block == p.Block && (p.File == wire.NoFile || last.At+last.Length == p.At) &&
			(p.Block == 0 || last.Length%p.Block == 0) {
			last.Length += p.Length
			last.Sums = append(last.Sums, p.Sums...)
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
	return newSurvey().extents(content, off, length, limit)
}

// survey finds out what content consists of. It is used for one file after the
// other, so that none needs memory of its own.
type survey struct {
	list      []disk.Extent
	next, end int64 // of the range that is not in list yet
	limit     int   // of list

	on    place
	found pieceList
	below bool // something lies in a device

	// The methods of their names, made once.
	addExtentFunc func(disk.Extent) error
	placeFunc     func(disk.Location) error
	addPieceFunc  func(wire.Piece) error
}

func newSurvey() *survey {
	s := new(survey)
	s.addExtentFunc, s.placeFunc, s.addPieceFunc = s.addExtent, s.place, s.found.add
	return s
}

// pieces returns the first pieces of a range, at most limit. They are valid until
// the next call.
func (s *survey) pieces(content disk.Sparse, on place, off, length int64, limit int) ([]wire.Piece, error) {
	extents, err := s.extents(content, off, length, limit)
	if err != nil {
		return nil, err
	}
	l, _ := content.(disk.Locator)
	s.on, s.found, s.below = on, pieceList{list: s.found.list[:0], limit: limit}, l == nil
	for _, e := range extents {
		if e.Kind != disk.ExtentData || on == nil || l == nil {
			err = s.found.add(wire.Piece{Extent: e, File: wire.NoFile})
		} else {
			err = l.Locate(e.Offset, e.Length, s.placeFunc)
		}
		if err == errEnough {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return s.found.list, nil
}

// place adds the pieces of a location.
func (s *survey) place(l disk.Location) error {
	s.below = s.below || l.Device >= 0
	return placed(l, s.on, l.Offset, s.addPieceFunc)
}

// extents returns the first extents of a range, neighbours of one kind merged, at
// most limit. They are valid until the next call.
func (s *survey) extents(content disk.Sparse, off, length int64, limit int) ([]disk.Extent, error) {
	if off > content.Size() || length > content.Size()-off {
		return nil, &disk.Error{Layer: "reader", Structure: "content", Offset: off, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("extents of %d bytes are asked for, the content has %d in all", length, content.Size())}
	}
	s.list, s.next, s.end, s.limit = s.list[:0], off, off+length, limit
	err := content.Extents(off, length, s.addExtentFunc)
	if err != nil && err != errEnough {
		return nil, err
	}
	if err == nil && s.next != s.end {
		return nil, &disk.Error{Layer: "reader", Structure: "extents", Offset: s.next, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("the extents end before %d", s.end)}
	}
	return s.list, nil
}

func (s *survey) addExtent(e disk.Extent) error {
	if e.Length == 0 {
		return nil
	}
	if e.Offset != s.next || e.Length < 0 || e.Length > s.end-s.next || e.Kind > disk.ExtentHole {
		return &disk.Error{Layer: "reader", Structure: "extents", Offset: e.Offset, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("an extent of %d bytes of kind %d does not follow the one that ends at %d", e.Length, e.Kind, s.next)}
	}
	s.next += e.Length
	if n := len(s.list); n > 0 && s.list[n-1].Kind == e.Kind {
		s.list[n-1].Length += e.Length
		return nil
	}
	if len(s.list) == s.limit {
		return errEnough
	}
	s.list = append(s.list, e)
	return nil
}
