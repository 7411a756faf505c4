package wire

import "github.com/drydock-vm/drydock/disk"

// Measure is what became of one means of confinement.
type Measure struct {
	Name   string
	OK     bool
	Detail string
}

const measureSize = 4 + 1 + 4

// AppendMeasures appends the answer to [Setup] to b.
func AppendMeasures(b []byte, list []Measure) []byte {
	b = putU32(b, uint32(len(list)))
	for _, m := range list {
		b = putString(b, cut(m.Name))
		b = putBool(b, m.OK)
		b = putString(b, cut(m.Detail))
	}
	return b
}

// DecodeMeasures decodes the answer to [Setup].
func DecodeMeasures(payload []byte) ([]Measure, error) {
	d := decoder{buf: payload}
	var list []Measure
	for range d.count(maxMeasures, measureSize) {
		list = append(list, Measure{Name: d.string(maxText), OK: d.bool(), Detail: d.string(maxText)})
	}
	return list, d.done()
}

// Opened is the answer to [Open].
type Opened struct{ Size int64 } // as the guest sees it, in bytes

// Append appends the encoded answer to b.
func (a Opened) Append(b []byte) []byte { return putI64(b, a.Size) }

// DecodeOpened decodes an [Opened].
func DecodeOpened(payload []byte) (Opened, error) {
	d := decoder{buf: payload}
	a := Opened{Size: d.i64()}
	if a.Size < 0 {
		d.fail("disk of %d bytes", a.Size)
	}
	return a, d.done()
}

// Snapshot is an internal snapshot of a qcow2 image.
type Snapshot struct {
	ID, Name            []byte
	Time                disk.Time
	DiskSize, StateSize int64
}

// SnapshotPage is the answer to [Snapshots]. Last says that none follow.
type SnapshotPage struct {
	List []Snapshot
	Last bool
}

const snapshotSize = 4 + 4 + timeSize + 8 + 8

// Append appends the encoded answer to b.
func (a SnapshotPage) Append(b []byte) []byte {
	b = putBool(b, a.Last)
	b = putU32(b, uint32(len(a.List)))
	for _, s := range a.List {
		b = putBytes(putBytes(b, s.ID), s.Name)
		b = putI64(putI64(putTime(b, s.Time), s.DiskSize), s.StateSize)
	}
	return b
}

// DecodeSnapshotPage decodes a [SnapshotPage].
func DecodeSnapshotPage(payload []byte) (SnapshotPage, error) {
	d := decoder{buf: payload}
	a := SnapshotPage{Last: d.bool()}
	for range d.count(MaxSnapshots, snapshotSize) {
		s := Snapshot{
			ID: d.bytes(MaxSnapshotName), Name: d.bytes(MaxSnapshotName),
			Time: d.time(), DiskSize: d.i64(), StateSize: d.i64(),
		}
		if s.DiskSize < 0 || s.StateSize < 0 || s.Time.Nsec >= 1e9 {
			d.fail("snapshot with impossible numbers")
		}
		a.List = append(a.List, s)
	}
	if !a.Last && len(a.List) == 0 {
		d.fail("empty page of snapshots, and more to come")
	}
	return a, d.done()
}

// Volume is a part of a disk, and what was recognised in it.
type Volume struct {
	Number       uint32 // 0 for a disk without partition table
	Table        string
	Offset, Size int64
	Name         []byte // of the partition
	Type         string // "" when nothing was recognised
	Readable     bool
	Label        []byte
	UUID         [16]byte
}

const volumeSize = 4 + 4 + 8 + 8 + 4 + 4 + 1 + 4 + 16

// AppendVolumes appends the answer to OpVolumes to b.
func AppendVolumes(b []byte, list []Volume) []byte {
	b = putU32(b, uint32(len(list)))
	for _, v := range list {
		b = putString(putU32(b, v.Number), v.Table)
		b = putI64(putI64(b, v.Offset), v.Size)
		b = putString(putBytes(b, v.Name), v.Type)
		b = putBytes(putBool(b, v.Readable), v.Label)
		b = append(b, v.UUID[:]...)
	}
	return b
}

// DecodeVolumes decodes the answer to OpVolumes, about a disk of size bytes.
func DecodeVolumes(payload []byte, size int64) ([]Volume, error) {
	d := decoder{buf: payload}
	var list []Volume
	seen := make(map[uint32]bool)
	for range d.count(MaxVolumes, volumeSize) {
		v := Volume{
			Number: d.u32(), Table: d.string(MaxName), Offset: d.i64(), Size: d.i64(),
			Name: d.bytes(MaxLabel), Type: d.string(MaxName), Readable: d.bool(), Label: d.bytes(MaxLabel),
		}
		copy(v.UUID[:], d.take(16))
		if d.err == nil {
			if err := CheckVolume(v, size); err != nil {
				d.fail("%v", err)
			}
			if seen[v.Number] {
				d.fail("volume %d is listed twice", v.Number)
			}
		}
		seen[v.Number] = true
		list = append(list, v)
	}
	return list, d.done()
}

// AppendInfo appends the answer to [Mount] to b.
func AppendInfo(b []byte, i disk.FilesystemInfo) []byte {
	b = putString(b, i.Type)
	b = putBytes(b, i.Label)
	b = append(b, i.UUID[:]...)
	b = putU64(b, i.Root)
	b = putI64(b, i.BlockSize)
	b = putI64(b, i.Size)
	return putU64(b, i.InodeCount)
}

// DecodeInfo decodes the answer to [Mount].
func DecodeInfo(payload []byte) (disk.FilesystemInfo, error) {
	d := decoder{buf: payload}
	i := disk.FilesystemInfo{Type: d.string(MaxName), Label: d.bytes(MaxLabel)}
	copy(i.UUID[:], d.take(16))
	i.Root, i.BlockSize, i.Size, i.InodeCount = d.u64(), d.i64(), d.i64(), d.u64()
	if d.err == nil {
		if err := CheckInfo(i); err != nil {
			d.fail("%v", err)
		}
	}
	return i, d.done()
}

// AppendExtents appends the answer to [Extents] to b.
func AppendExtents(b []byte, list []disk.Extent) []byte {
	b = putU32(b, uint32(len(list)))
	for _, e := range list {
		b = putI64(putU8(b, uint8(e.Kind)), e.Length)
	}
	return b
}

// DecodeExtents decodes the answer to r: at least one extent, the first at
// r.Off, each where the one before it ends, none beyond the range.
func DecodeExtents(payload []byte, r Extents) ([]disk.Extent, error) {
	d := decoder{buf: payload}
	list := d.extents(MaxExtents, r.Off, r.Length)
	if len(list) == 0 {
		d.fail("no extent")
	}
	return list, d.done()
}

const extentSize = 1 + 8

func (d *decoder) extents(limit int, off, length int64) []disk.Extent {
	n := d.count(limit, extentSize)
	if n == 0 {
		return nil
	}
	list := make([]disk.Extent, 0, n)
	end := off + length
	for range n {
		e := disk.Extent{Offset: off, Kind: disk.ExtentKind(d.u8()), Length: d.i64()}
		if e.Kind > disk.ExtentHole {
			d.fail("extent of kind %d", e.Kind)
		}
		if e.Length <= 0 || e.Length > end-off {
			d.fail("extent of %d bytes at %d in a range that ends at %d", e.Length, off, end)
			return nil
		}
		off += e.Length
		list = append(list, e)
	}
	return list
}

// Content is one file of the answer to a [ReadMany]. Told is false when the
// worker could not give it: whoever wants the file asks for it alone, and
// learns why. Extents is empty when they are too many.
type Content struct {
	Told    bool
	Data    []byte // not part of the payload
	Extents []disk.Extent
}

// AppendContent appends one item of the answer to [ReadMany] to b.
func AppendContent(b []byte, c Content) []byte {
	b = putBool(b, c.Told)
	if !c.Told {
		return b
	}
	if len(c.Extents) > MaxManyExtents {
		c.Extents = nil
	}
	return AppendExtents(b, c.Extents)
}

// DecodeMany decodes the answer to r. data is a copy of what the slot held: all
// files' places, one after the other.
func DecodeMany(payload []byte, r ReadMany, data []byte) ([]Content, error) {
	d := decoder{buf: payload}
	list := make([]Content, len(r.Files))
	for i, f := range r.Files {
		c := Content{Told: d.bool()}
		if c.Told {
			c.Extents = d.extents(MaxManyExtents, 0, int64(f.Size))
			if n := len(c.Extents); n > 0 && c.Extents[n-1].Offset+c.Extents[n-1].Length != int64(f.Size) {
				d.fail("extents end before the file does")
			}
			c.Data = data[:f.Size:f.Size]
		}
		data = data[f.Size:]
		list[i] = c
	}
	return list, d.done()
}
