package wire

// Bitmap is a persistent dirty bitmap of a qcow2 image.
type Bitmap struct {
	Name        []byte
	Granularity int64 // bytes that one bit stands for
	State       uint8 // as qcow2.BitmapState
	Auto        bool
}

// BitmapPage is the answer to OpBitmaps. Last says that none follow.
type BitmapPage struct {
	List []Bitmap
	Last bool
}

const bitmapSize = 4 + 8 + 1 + 1

// Append appends the encoded answer to b.
func (a BitmapPage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for _, m := range a.List {
		b = putBool(putU8(putI64(putBytes(b, m.Name), m.Granularity), m.State), m.Auto)
	}
	return b
}

// DecodeBitmapPage decodes a [BitmapPage].
func DecodeBitmapPage(payload []byte) (BitmapPage, error) {
	d := decoder{buf: payload}
	a := BitmapPage{Last: d.bool()}
	for range d.count(MaxBitmaps, bitmapSize) {
		m := Bitmap{Name: d.bytes(MaxSnapshotName), Granularity: d.i64(), State: d.u8(), Auto: d.bool()}
		if d.err == nil && (m.Granularity <= 0 || m.State > 2) {
			d.fail("bitmap of granularity %d in state %d", m.Granularity, m.State)
		}
		a.List = append(a.List, m)
	}
	if !a.Last && len(a.List) == 0 {
		d.fail("empty page of bitmaps, and more to come")
	}
	return a, d.done()
}

// Dirty asks for the ranges of disk Number that its bitmap Name says were written
// to, from offset From on. The answer is a [DirtyPage].
type Dirty struct {
	Number uint32
	Name   string
	From   int64
}

// Append appends the encoded request to b.
func (r Dirty) Append(b []byte) []byte { return putI64(putString(putU32(b, r.Number), r.Name), r.From) }

// DecodeDirty decodes a [Dirty].
func DecodeDirty(payload []byte) (Dirty, error) {
	d := decoder{buf: payload}
	r := Dirty{Number: d.u32(), Name: d.string(MaxSnapshotName), From: d.i64()}
	if r.From < 0 {
		d.fail("ranges from %d on", r.From)
	}
	return r, d.done()
}

// ByteRange is a range of a disk, in bytes.
type ByteRange struct{ Off, Length int64 }

// DirtyPage is the answer to [Dirty]: ranges in ascending order. Last says that
// none follow.
type DirtyPage struct {
	List []ByteRange
	Last bool
}

// Append appends the encoded answer to b.
func (a DirtyPage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for _, r := range a.List {
		b = putI64(putI64(b, r.Off), r.Length)
	}
	return b
}

// DecodeDirtyPage decodes the answer to r about a disk of size bytes.
func DecodeDirtyPage(payload []byte, r Dirty, size int64) (DirtyPage, error) {
	d := decoder{buf: payload}
	a := DirtyPage{Last: d.bool()}
	next := r.From
	for range d.count(MaxPieces, 16) {
		g := d.byteRange(next, size)
		next = g.Off + g.Length
		a.List = append(a.List, g)
	}
	if !a.Last && len(a.List) == 0 {
		d.fail("empty page of ranges, and more to come")
	}
	return a, d.done()
}

// byteRange reads a range of a disk of size bytes, which begins at from or later.
func (d *decoder) byteRange(from, size int64) ByteRange {
	g := ByteRange{Off: d.i64(), Length: d.i64()}
	if d.err == nil && (g.Off < from || g.Length <= 0 || g.Off > size || g.Length > size-g.Off) {
		d.fail("range of %d bytes at %d, on a disk of %d", g.Length, g.Off, size)
	}
	return g
}
