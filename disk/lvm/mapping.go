package lvm

import (
	"errors"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// mapping is the content of a volume. It implements [disk.Sparse] and
// [disk.Locator].
type mapping struct {
	name string
	size int64
	runs []run // cover [0, size), in order
}

// run is a segment in bytes.
type run struct {
	off, length int64
	chunk       int64 // of more than one leg
	legs        []leg // at least one
}

// leg is where a run lies, or one stripe of it.
type leg struct {
	device int
	d      disk.Sparse
	off    int64
}

// addVolume adds a volume to the group, with its content or why it has none.
func (g *Group) addVolume(v *logical) {
	out := v.Volume
	m := &mapping{name: "logical volume " + g.Name + "/" + v.Name, size: v.Size}
	out.Devices = g.devices(v)
	if v.refused != "" {
		out.Err = layer.Unsupported(m.name, ondisk.Nowhere, "back the disks up as images, or the files with an agent in the guest", "%s", v.refused)
	} else {
		out.Err = g.place(m, v)
	}
	if out.Err != nil {
		m = nil
	}
	g.Volumes = append(g.Volumes, out)
	g.mappings = append(g.mappings, m)
}

// devices returns the devices that v is known to lie on.
func (g *Group) devices(v *logical) []int {
	var list []int
	for _, seg := range v.segments {
		for _, s := range seg.stripes {
			if d := g.members[s.member].device; d >= 0 {
				list = append(list, d)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// place finds the bytes of a volume's segments.
func (g *Group) place(m *mapping, v *logical) error {
	for _, seg := range v.segments {
		r := run{off: seg.first * g.extentSize, length: seg.count * g.extentSize, chunk: seg.chunk}
		for _, s := range seg.stripes {
			l, err := g.leg(m.name, s, seg.count/int64(len(seg.stripes)))
			if err != nil {
				return err
			}
			r.legs = append(r.legs, l)
		}
		m.runs = append(m.runs, r)
	}
	return nil
}

func (g *Group) leg(volume string, s stripe, extents int64) (leg, error) {
	p := &g.members[s.member]
	switch p.device {
	case memberMissing:
		return leg{}, layer.Absent(volume, "it lies on physical volume %s, which is missing", formatUUID(p.uuid))
	case memberStale:
		return leg{}, layer.Unsupported(volume, ondisk.Nowhere, "run vgextend --restoremissing in the guest",
			"it lies on physical volume %s, which the guest went on without", formatUUID(p.uuid))
	case memberAmbiguous:
		return leg{}, layer.Unsupported(volume, ondisk.Nowhere, "leave the copy of that disk out",
			"it lies on physical volume %s, which is there more than once", formatUUID(p.uuid))
	}
	// The first extent and their number have 32 bits; the size of one has 41.
	if s.first > maxNumber/g.extentSize || extents > maxNumber/g.extentSize ||
		!ondisk.Within(s.first*g.extentSize, extents*g.extentSize, p.d.Size()-p.start) {
		return leg{}, layer.Damaged(volume, ondisk.Nowhere, "%d extents from %d of physical volume %s are not within its %d bytes",
			extents, s.first, formatUUID(p.uuid), p.d.Size())
	}
	return leg{device: p.device, d: p.d, off: p.start + s.first*g.extentSize}, nil
}

// Size implements [disk.Sparse].
func (m *mapping) Size() int64 { return m.size }

// piece is a part of a volume that lies in one piece on one device.
type piece struct {
	leg
	number int // of the leg in its run
	at     int64
	length int64
}

// piece returns what lies at off, of at most length bytes. Off is within the
// volume.
func (r *run) piece(off, length int64) piece {
	rel := off - r.off
	length = min(length, r.length-rel)
	if len(r.legs) == 1 {
		return piece{leg: r.legs[0], at: r.legs[0].off + rel, length: length}
	}
	chunk, within := rel/r.chunk, rel%r.chunk
	n := int64(len(r.legs))
	k := int(chunk % n)
	return piece{leg: r.legs[k], number: k, at: r.legs[k].off + chunk/n*r.chunk + within, length: min(length, r.chunk-within)}
}

// find returns the index of the run at off.
func (m *mapping) find(off int64) int {
	return sort.Search(len(m.runs), func(i int) bool { return m.runs[i].off+m.runs[i].length > off })
}

// ReadAt implements [disk.Sparse].
func (m *mapping) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, layer.Unreadable(m.name, off, os.ErrInvalid)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > m.size-off {
		p, end = p[:m.size-off], io.EOF
	}
	n := 0
	for i := m.find(off); n < len(p); {
		at := m.runs[i].piece(off+int64(n), int64(len(p)-n))
		if err := ondisk.ReadFull(at.d, p[n:n+int(at.length)], at.at); err != nil {
			return n, layer.Unreadable(m.name, off+int64(n), err)
		}
		n += int(at.length)
		if off+int64(n) == m.runs[i].off+m.runs[i].length {
			i++
		}
	}
	return n, end
}

// Locate implements [disk.Locator].
func (m *mapping) Locate(off, length int64, yield func(disk.Location) error) error {
	if !ondisk.Within(off, length, m.size) {
		return layer.Unreadable(m.name, off, os.ErrInvalid)
	}
	end := off + length
	for i := m.find(off); off < end; i++ {
		for stop := min(end, m.runs[i].off+m.runs[i].length); off < stop; {
			at := m.runs[i].piece(off, stop-off)
			if err := yield(disk.Location{Offset: off, Length: at.length, Device: at.device, At: at.at}); err != nil {
				return err
			}
			off += at.length
		}
	}
	return nil
}

// Extents implements [disk.Sparse].
func (m *mapping) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, m.size) {
		return layer.Unreadable(m.name, off, os.ErrInvalid)
	}
	end := off + length
	for i := m.find(off); off < end; i++ {
		stop := min(end, m.runs[i].off+m.runs[i].length)
		if err := m.runs[i].extents(off, stop-off, yield); err != nil {
			return err
		}
		off = stop
	}
	return nil
}

func (r *run) extents(off, length int64, yield func(disk.Extent) error) error {
	if len(r.legs) > 1 {
		return r.stripedExtents(off, length, yield)
	}
	at := r.piece(off, length)
	return at.d.Extents(at.at, length, func(e disk.Extent) error {
		e.Offset += off - at.at
		return yield(e)
	})
}

// stripedExtents asks each leg only when what it last said is used up, and passes
// rows that are all of one kind at once: a volume has millions of chunks.
func (r *run) stripedExtents(off, length int64, yield func(disk.Extent) error) error {
	known := make([]disk.Extent, len(r.legs)) // one of each leg
	joined := joiner{yield: yield}
	for end := off + length; off < end; {
		at := r.piece(off, end-off)
		e := &known[at.number]
		if at.at < e.Offset || at.at >= e.Offset+e.Length {
			var err error
			legEnd := at.off + r.length/int64(len(r.legs))
			if *e, err = firstExtent(at.d, at.at, legEnd-at.at); err != nil {
				return err
			}
		}
		n := min(at.length, e.Offset+e.Length-at.at)
		if rows := r.rows(known, off, end); rows > 0 {
			n = rows * r.chunk * int64(len(r.legs))
		}
		if err := joined.add(disk.Extent{Offset: off, Length: n, Kind: e.Kind}); err != nil {
			return err
		}
		off += n
	}
	return joined.flush()
}

// rows returns how many whole rows from off on are of one kind, as far as that is
// known of all legs.
func (r *run) rows(known []disk.Extent, off, end int64) int64 {
	row := r.chunk * int64(len(r.legs))
	rel := off - r.off
	if rel%row != 0 {
		return 0
	}
	rows := (end - off) / row
	for i, e := range known {
		at := r.legs[i].off + rel/row*r.chunk
		if at < e.Offset || at >= e.Offset+e.Length || e.Kind != known[0].Kind {
			return 0
		}
		rows = min(rows, (e.Offset+e.Length-at)/r.chunk)
	}
	return rows
}

// joiner joins extents that follow one another and are of one kind.
type joiner struct {
	pending disk.Extent
	yield   func(disk.Extent) error
}

func (j *joiner) add(e disk.Extent) error {
	if j.pending.Length > 0 && j.pending.Kind == e.Kind {
		j.pending.Length += e.Length
		return nil
	}
	if err := j.flush(); err != nil {
		return err
	}
	j.pending = e
	return nil
}

func (j *joiner) flush() error {
	if j.pending.Length == 0 {
		return nil
	}
	return j.yield(j.pending)
}

// errEnough ends the iteration of firstExtent.
var errEnough = errors.New("enough")

// firstExtent returns the first extent of a range.
func firstExtent(d disk.Sparse, off, length int64) (disk.Extent, error) {
	var first disk.Extent
	err := d.Extents(off, length, func(e disk.Extent) error {
		first = e
		return errEnough
	})
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return first, err
	case first.Offset != off || first.Length <= 0:
		return first, io.ErrNoProgress
	}
	return first, nil
}
