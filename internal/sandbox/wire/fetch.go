package wire

// Fetch is what the worker asks of the parent, over a second socket: Length bytes
// at Off of a file that it has no descriptor of. It is for disks that are no file
// of the host. The answer is the bytes, or an error.
//
// A worker asks for one thing at a time, and, but for what it reads ahead, while it
// works on a request of the parent. One that does otherwise is not to be trusted.
type Fetch struct {
	File   uint8 // among those of all disks, as a [Piece] counts them
	Off    int64
	Length uint32
}

// FetchSize is the size of an encoded Fetch, in bytes.
const FetchSize = 1 + 8 + 4

// Append appends the encoded request to b.
func (r Fetch) Append(b []byte) []byte {
	return putU32(putI64(putU8(b, r.File), r.Off), r.Length)
}

// DecodeFetch decodes a [Fetch] from files of which sizes has the sizes: -1 for
// those of which the worker has a descriptor.
func DecodeFetch(payload []byte, sizes []int64) (Fetch, error) {
	d := decoder{buf: payload}
	r := Fetch{File: d.u8(), Off: d.i64(), Length: d.u32()}
	switch {
	case d.err != nil:
	case int(r.File) >= len(sizes) || sizes[r.File] < 0:
		d.fail("content of file %d, which is not served", r.File)
	case r.Length == 0 || r.Length > MaxFetch:
		d.fail("%d bytes of content, at most %d are served at once", r.Length, MaxFetch)
	case r.Off < 0 || r.Off > sizes[r.File] || int64(r.Length) > sizes[r.File]-r.Off:
		d.fail("%d bytes at %d of a file of %d", r.Length, r.Off, sizes[r.File])
	}
	return r, d.done()
}
