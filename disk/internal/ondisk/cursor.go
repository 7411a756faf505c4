// Package ondisk reads fixed on-disk structures: one bounded cursor whose
// first error sticks, and one overflow-safe range check. Every reader below
// disk uses these and nothing else to take numbers from a disk.
package ondisk

import (
	"encoding/binary"
	"fmt"
)

// Within reports whether [off, off+length) lies within [0, size), without
// overflow and for any values.
func Within(off, length, size int64) bool {
	return off >= 0 && length >= 0 && off <= size && length <= size-off
}

// WithinU is [Within] for the unsigned numbers that disks keep.
func WithinU(off, length, size uint64) bool {
	return off <= size && length <= size-off
}

// Cursor takes numbers one after the other from a structure. The first read
// past the end is remembered; from then on every read returns zero, so that
// callers check Err once, after the last field.
type Cursor struct {
	buf   []byte
	off   int
	order binary.ByteOrder
	err   error
}

// NewCursor reads buf in the given byte order.
func NewCursor(buf []byte, order binary.ByteOrder) *Cursor {
	return &Cursor{buf: buf, order: order}
}

// Err returns the first error, or nil.
func (c *Cursor) Err() error { return c.err }

// Offset returns the offset of the next read.
func (c *Cursor) Offset() int { return c.off }

// Seek moves to an absolute offset.
func (c *Cursor) Seek(off int) {
	if off < 0 || off > len(c.buf) {
		c.fail(off, 0)
		return
	}
	c.off = off
}

// Skip moves on by n bytes.
func (c *Cursor) Skip(n int) { c.take(n) }

// Bytes returns the next n bytes, without copying them, or nil.
func (c *Cursor) Bytes(n int) []byte { return c.take(n) }

// U8 returns the next byte.
func (c *Cursor) U8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 returns the next two bytes as a number.
func (c *Cursor) U16() uint16 {
	if b := c.take(2); b != nil {
		return c.order.Uint16(b)
	}
	return 0
}

// U32 returns the next four bytes as a number.
func (c *Cursor) U32() uint32 {
	if b := c.take(4); b != nil {
		return c.order.Uint32(b)
	}
	return 0
}

// U64 returns the next eight bytes as a number.
func (c *Cursor) U64() uint64 {
	if b := c.take(8); b != nil {
		return c.order.Uint64(b)
	}
	return 0
}

func (c *Cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.buf)-c.off {
		c.fail(c.off, n)
		return nil
	}
	b := c.buf[c.off : c.off+n : c.off+n]
	c.off += n
	return b
}

func (c *Cursor) fail(off, n int) {
	if c.err == nil {
		c.err = fmt.Errorf("%d bytes at offset %d, but the structure has %d", n, off, len(c.buf))
	}
}
