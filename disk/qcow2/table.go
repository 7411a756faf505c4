package qcow2

import (
	"bufio"
	"errors"
	"io"
)

// maxTable is the bytes that all entries of a table take together: 256 for each
// of the 65536 snapshots or bitmaps that QEMU allows. QEMU's own entries take some
// 80 bytes, at most 450 with the longest id and name that it makes.
const maxTable = 16 << 20

// tableReader hands out the bytes of a table whose entries differ in length: that
// of the snapshots, or the bitmap directory.
type tableReader struct {
	name string // for errors: "snapshot table"
	ends string // why it is no longer: "the file ends"

	r             *bufio.Reader
	start, length int64
	done          int64
}

func newTableReader(name, ends string, r io.ReaderAt, start, length int64) *tableReader {
	return &tableReader{
		name: name, ends: ends, start: start, length: length,
		r: bufio.NewReader(io.NewSectionReader(r, start, length)),
	}
}

// take returns the next n bytes, and where in the file they are. n is at most
// twice 64 KiB and a little, by the widths of the fields that it is made of.
func (t *tableReader) take(n int64) ([]byte, int64, error) {
	at := t.start + t.done
	if n > t.length-t.done {
		if t.length == maxTable {
			return nil, at, layer.Beyond(t.name, t.start, "more than %d bytes", maxTable)
		}
		return nil, at, layer.Damaged(t.name, at, "%s within it", t.ends)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(t.r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, at, layer.Unreadable(t.name, at, err)
	}
	t.done += n
	return buf, at, nil
}
