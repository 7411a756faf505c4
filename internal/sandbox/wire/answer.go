package wire

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

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

// OpenedDisk is a disk that was opened, and what its topmost image says of
// itself. What does not apply to its format is zero.
type OpenedDisk struct {
	Size        int64 // as the guest sees it, in bytes
	Version     uint8 // of qcow2
	ClusterSize uint32
	Compression string
	ExtendedL2  bool
	Dirty       bool // the image was not closed
}

// Opened is the answer to [Open]: the disks, in order.
type Opened struct{ Disks []OpenedDisk }

const openedSize = 8 + 1 + 4 + 4 + 1 + 1

// Append appends the encoded answer to b.
func (a Opened) Append(b []byte) []byte {
	b = putU32(b, uint32(len(a.Disks)))
	for _, k := range a.Disks {
		b = putU8(putI64(b, k.Size), k.Version)
		b = putString(putU32(b, k.ClusterSize), k.Compression)
		b = putBool(putBool(b, k.ExtendedL2), k.Dirty)
	}
	return b
}

// DecodeOpened decodes the answer to a request for so many disks.
func DecodeOpened(payload []byte, disks int) (Opened, error) {
	d := decoder{buf: payload}
	var a Opened
	if n := d.count(MaxDisks, openedSize); n != disks {
		d.fail("%d disks, asked for %d", n, disks)
		return a, d.err
	}
	for range disks {
		k := OpenedDisk{
			Size: d.i64(), Version: d.u8(), ClusterSize: d.u32(), Compression: d.string(MaxName),
			ExtendedL2: d.bool(), Dirty: d.bool(),
		}
		if k.Size < 0 {
			d.fail("disk of %d bytes", k.Size)
		}
		a.Disks = append(a.Disks, k)
	}
	return a, d.done()
}

// Snapshot is an internal snapshot of a qcow2 image.
type Snapshot struct {
	ID, Name            []byte
	Time                disk.Time
	DiskSize, StateSize int64
}

// SnapshotPage is the answer to OpSnapshots. Last says that none follow.
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

// AppendInfo appends the answer to [Mount] to b.
func AppendInfo(b []byte, i disk.FilesystemInfo) []byte {
	b = putString(b, i.Type)
	b = putBytes(b, i.Label)
	b = append(b, i.UUID[:]...)
	b = putU64(b, i.Root)
	b = putI64(b, i.BlockSize)
	b = putI64(b, i.Size)
	return putRemarks(putU64(b, i.InodeCount), i.Remarks)
}

// DecodeInfo decodes the answer to [Mount].
func DecodeInfo(payload []byte) (disk.FilesystemInfo, error) {
	d := decoder{buf: payload}
	i := d.info()
	return i, d.done()
}

func (d *decoder) info() disk.FilesystemInfo {
	i := disk.FilesystemInfo{Type: d.string(MaxName), Label: d.bytes(MaxLabel)}
	copy(i.UUID[:], d.take(16))
	i.Root, i.BlockSize, i.Size, i.InodeCount = d.u64(), d.i64(), d.i64(), d.u64()
	i.Remarks = d.remarks()
	if d.err == nil {
		if err := CheckInfo(i); err != nil {
			d.fail("%v", err)
		}
	}
	return i
}

// putRemarks writes remarks, as many and as much of each as is allowed.
func putRemarks(b []byte, list []string) []byte {
	list = list[:min(len(list), MaxRemarks)]
	b = putU32(b, uint32(len(list)))
	for _, text := range list {
		b = putString(b, cut(text))
	}
	return b
}

// remarks reads remarks. They are printed, so they are made printable here.
func (d *decoder) remarks() []string {
	var list []string
	for range d.count(MaxRemarks, 4) {
		list = append(list, escape.Line(d.string(maxText)))
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
	if len(c.Extents) > MaxManyPieces {
		c.Extents = nil
	}
	b = putU32(b, uint32(len(c.Extents)))
	for _, e := range c.Extents {
		b = appendPiece(b, Piece{Extent: e, File: NoFile})
	}
	return b
}

// DecodeMany decodes the answer to r. data is a copy of what the slot held: all
// files' places, one after the other.
func DecodeMany(payload []byte, r ReadMany, data []byte) ([]Content, error) {
	d := decoder{buf: payload}
	list := make([]Content, len(r.Files))
	for i, f := range r.Files {
		c := Content{Told: d.bool()}
		if c.Told {
			for _, p := range d.pieces(MaxManyPieces, 0, int64(f.Size), nil) {
				c.Extents = append(c.Extents, p.Extent)
			}
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
