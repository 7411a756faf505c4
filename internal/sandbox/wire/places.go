package wire

import "math"

// Places asks where the bytes of volume Number lie on the disks, from offset From
// on. The answer is a [PlacePage].
type Places struct {
	Number uint32
	From   int64
}

// Append appends the encoded request to b.
func (r Places) Append(b []byte) []byte { return putI64(putU32(b, r.Number), r.From) }

// DecodePlaces decodes a [Places].
func DecodePlaces(payload []byte) (Places, error) {
	d := decoder{buf: payload}
	r := Places{Number: d.u32(), From: d.i64()}
	if r.From < 0 {
		d.fail("places from %d on", r.From)
	}
	return r, d.done()
}

// NoDisk is the disk of bytes that lie on none.
const NoDisk = math.MaxUint32

// PlaceRun is the next Length bytes of a volume: from At on, on a disk by its number,
// or on [NoDisk].
type PlaceRun struct {
	Disk       uint32
	At, Length int64
}

// PlacePage is the answer to [Places]: runs that follow one another. Last says that
// they reach to the volume's end.
type PlacePage struct {
	List []PlaceRun
	Last bool
}

const placeSize = 4 + 8 + 8

// Append appends the encoded answer to b.
func (a PlacePage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for _, r := range a.List {
		b = putI64(putI64(putU32(b, r.Disk), r.At), r.Length)
	}
	return b
}

// DecodePlacePage decodes the answer to r about a volume of size bytes, on disks of
// these sizes.
func DecodePlacePage(payload []byte, r Places, size int64, disks []int64) (PlacePage, error) {
	d := decoder{buf: payload}
	a := PlacePage{Last: d.bool()}
	at := r.From
	for range d.count(MaxPieces, placeSize) {
		g := PlaceRun{Disk: d.u32(), At: d.i64(), Length: d.i64()}
		on := int64(math.MaxInt64)
		if g.Disk != NoDisk && int64(g.Disk) >= int64(len(disks)) {
			d.fail("a place on disk %d of %d", g.Disk, len(disks))
		} else if g.Disk != NoDisk {
			on = disks[g.Disk]
		}
		if d.err == nil && (g.Length <= 0 || g.Length > size-at || g.At < 0 || g.At > on || g.Length > on-g.At) {
			d.fail("a place of %d bytes at %d, on a disk of %d", g.Length, g.At, on)
		}
		if d.err != nil {
			break
		}
		at += g.Length
		a.List = append(a.List, g)
	}
	if d.err == nil && (a.Last != (at == size) || !a.Last && len(a.List) == 0) {
		d.fail("places up to %d of %d", at, size)
	}
	return a, d.done()
}
