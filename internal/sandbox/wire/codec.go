package wire

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk"
)

// The encoders append; each has its counterpart in decoder.

func putU8(b []byte, v uint8) []byte   { return append(b, v) }
func putU16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }
func putU32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func putU64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }
func putI64(b []byte, v int64) []byte  { return putU64(b, uint64(v)) }

func putBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// putBytes writes a length of 32 bits and v.
func putBytes(b, v []byte) []byte {
	return append(putU32(b, uint32(len(v))), v...)
}

func putString(b []byte, v string) []byte {
	return append(putU32(b, uint32(len(v))), v...)
}

// decoder takes values from a payload. The first failure sticks; from then on
// every value is zero, so that a message checks for it once, in done.
type decoder struct {
	buf []byte
	err error

	contents bool // they may be told with entries

	// Room for what there is one of for each of many files.
	inodes []disk.Inode
	places []Piece
}

// roomFor is for how many files there is room at once.
const roomFor = 64

// newInode returns room for an inode.
func (d *decoder) newInode() *disk.Inode {
	if len(d.inodes) == 0 {
		d.inodes = make([]disk.Inode, roomFor)
	}
	n := &d.inodes[0]
	d.inodes = d.inodes[1:]
	return n
}

// newPieces returns an empty list with room for n pieces, which the payload has.
func (d *decoder) newPieces(n int) []Piece {
	if n > roomFor/4 {
		return make([]Piece, 0, n)
	}
	if len(d.places) < n {
		d.places = make([]Piece, roomFor)
	}
	list := d.places[:0:n]
	d.places = d.places[n:]
	return list
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = broken(format, args...)
		d.buf = nil
	}
}

// done returns the first failure, or one if bytes are left over.
func (d *decoder) done() error {
	if d.err == nil && len(d.buf) != 0 {
		d.fail("%d bytes too many", len(d.buf))
	}
	return d.err
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.buf) {
		d.fail("%d bytes are missing", n-len(d.buf))
		return nil
	}
	b := d.buf[:n:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); len(b) == 2 {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); len(b) == 4 {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); len(b) == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) i64() int64 { return int64(d.u64()) }

func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 {
		d.fail("%d is neither true nor false", v)
	}
	return v == 1
}

// bytes returns a run of at most limit bytes, without copying it.
func (d *decoder) bytes(limit int) []byte {
	n := d.u32()
	if uint64(n) > uint64(limit) {
		d.fail("run of %d bytes, at most %d are allowed", n, limit)
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) string(limit int) string { return string(d.bytes(limit)) }

// count returns a number of items of at least size bytes each that follow, at
// most limit. It fails when the payload is too short for them, so that what is
// allocated for them is never more than a small multiple of the payload.
func (d *decoder) count(limit, size int) int {
	n := d.u32()
	if uint64(n) > uint64(limit) {
		d.fail("%d items, at most %d are allowed", n, limit)
		return 0
	}
	if int(n)*size > len(d.buf) {
		d.fail("%d items in %d bytes", n, len(d.buf))
		return 0
	}
	return int(n)
}
