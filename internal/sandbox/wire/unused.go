package wire

// Unused asks for the ranges of disk Number that its guest does not use, from
// offset From on. The answer is an [UnusedPage].
type Unused struct {
	Number uint32
	From   int64
}

// Append appends the encoded request to b.
func (r Unused) Append(b []byte) []byte { return putI64(putU32(b, r.Number), r.From) }

// DecodeUnused decodes an [Unused].
func DecodeUnused(payload []byte) (Unused, error) {
	d := decoder{buf: payload}
	r := Unused{Number: d.u32(), From: d.i64()}
	if r.From < 0 {
		d.fail("ranges from %d on", r.From)
	}
	return r, d.done()
}

// UnusedRange is a range of a disk that is not in use.
type UnusedRange struct {
	ByteRange
	Swap bool // in swap space
}

// UnusedPage is the answer to [Unused]: ranges in ascending order. Last says that
// none follow. The last page tells of volumes all of which counts as used, and why.
type UnusedPage struct {
	List []UnusedRange
	Last bool
	Kept []error // each a [*disk.Error] or [*Error]
}

const (
	unusedSize = 16 + 1
	keptSize   = 4 + 1 // of an error, at least
)

// Append appends the encoded answer to b.
func (a UnusedPage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for _, r := range a.List {
		b = putBool(putI64(putI64(b, r.Off), r.Length), r.Swap)
	}
	b = putU32(b, uint32(len(a.Kept)))
	for _, err := range a.Kept {
		b = putBytes(b, AppendError(nil, err))
	}
	return b
}

// DecodeUnusedPage decodes the answer to r about a disk of size bytes.
func DecodeUnusedPage(payload []byte, r Unused, size int64) (UnusedPage, error) {
	d := decoder{buf: payload}
	a := UnusedPage{Last: d.bool()}
	next := r.From
	for range d.count(MaxPieces, unusedSize) {
		g := UnusedRange{ByteRange: d.byteRange(next, size), Swap: d.bool()}
		next = g.Off + g.Length
		a.List = append(a.List, g)
	}
	for range d.count(MaxRemarks, keptSize) {
		remote, err := DecodeError(d.bytes(MaxAnswer))
		if err != nil {
			d.fail("%v", err)
			return a, d.err
		}
		a.Kept = append(a.Kept, remote)
	}
	if !a.Last && (len(a.List) == 0 || len(a.Kept) > 0) {
		d.fail("page of %d ranges and %d volumes, and more to come", len(a.List), len(a.Kept))
	}
	return a, d.done()
}
