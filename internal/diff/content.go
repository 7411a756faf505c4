package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// pieceSize is how much of a file is read at a time, in bytes.
const pieceSize = 1 << 20

// compare says in what two files differ. What is on one side only differs in
// nothing.
func (c *comparer) compare(path []byte, before, after node) (What, error) {
	if !before.there || !after.there {
		return 0, nil
	}
	if before.Type() != after.Type() {
		return Type, nil
	}
	w := attributes(&before.Inode, &after.Inode)
	const marks = disk.FlagSubvolume | disk.FlagReadOnly | disk.FlagDefault
	if len(path) > 0 && (before.Flags^after.Flags)&marks != 0 { // what the root lies in is not compared
		w |= Subvolume
	}
	same, err := c.xattrs(before.Ino, after.Ino)
	if err = c.damaged(path, err); err != nil {
		return 0, err
	}
	if !same {
		w |= Xattrs
	}
	switch before.Type() {
	case disk.ModeSymlink:
		same, err = c.targets(before.Ino, after.Ino)
		if !same && err == nil {
			w |= Target
		}
	case disk.ModeRegular:
		var more What
		more, err = c.content(&before.Inode, &after.Inode, w)
		w |= more
	}
	return w, c.damaged(path, err)
}

func (c *comparer) xattrs(before, after uint64) (bool, error) {
	a, err := c.sides[0].fs.Xattrs(before)
	if err != nil {
		return true, err
	}
	b, err := c.sides[1].fs.Xattrs(after)
	return err != nil || sameXattrs(a, b), err
}

func (c *comparer) targets(before, after uint64) (bool, error) {
	a, err := c.sides[0].fs.Readlink(before)
	if err != nil {
		return false, err
	}
	b, err := c.sides[1].fs.Readlink(after)
	return bytes.Equal(a, b), err
}

// content says whether the content of two files differs, or may: known are the
// differences that were found so far.
func (c *comparer) content(before, after *disk.Inode, known What) (What, error) {
	if before.Size != after.Size {
		return Content, nil
	}
	same, sure := c.identical(before.Ino, after.Ino)
	switch {
	case same && sure:
		return 0, nil
	case c.opts.Content:
		same, err := c.equal(before.Ino, after.Ino)
		if err != nil || same {
			return 0, err
		}
		return Content, nil
	case sure, known&Time != 0:
		return Content, nil
	case known == 0 && before.Change != after.Change:
		return Ctime, nil
	}
	return 0, nil
}

// equal compares the bytes of two files of one size.
func (c *comparer) equal(before, after uint64) (bool, error) {
	var spans [2]span
	for i, ino := range []uint64{before, after} {
		f, err := c.sides[i].fs.Open(ino)
		if err != nil {
			return false, err
		}
		spans[i].file = f
		if c.bufs[i] == nil {
			c.bufs[i] = make([]byte, pieceSize)
		}
	}
	size := spans[0].file.Size()
	if spans[1].file.Size() != size {
		return false, nil
	}
	for off := int64(0); off < size; {
		if c.ctx.Err() != nil {
			return false, context.Cause(c.ctx)
		}
		next := size
		for i := range spans {
			start, err := spans[i].data(off)
			if err != nil {
				return false, err
			}
			next = min(next, start)
		}
		if next == size {
			break // both are zeros to the end
		}
		n := min(pieceSize, size-next)
		for i := range spans {
			if err := readFull(c.sides[i].fs, spans[i].file, c.bufs[i][:n], next); err != nil {
				return false, err
			}
		}
		if !bytes.Equal(c.bufs[0][:n], c.bufs[1][:n]) {
			return false, nil
		}
		off = next + n
	}
	return true, nil
}

func readFull(fsys disk.Filesystem, f disk.Sparse, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &disk.Error{Layer: fsys.Info().Type, Structure: "content", Offset: -1, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("it ends at %d, before its size", off+int64(n))}
	}
	return err
}

// span is a file, and the run of data in it that was found last.
type span struct {
	file       disk.Sparse
	start, end int64
}

// errFound ends a listing of extents.
var errFound = errors.New("found")

// data returns where, from off on, the next byte is that may not be zero; the size
// of the file if there is none.
func (s *span) data(off int64) (int64, error) {
	if off < s.end {
		return max(off, s.start), nil
	}
	size := s.file.Size()
	s.start, s.end = size, size
	err := s.file.Extents(off, size-off, func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		s.start, s.end = e.Offset, e.Offset+e.Length
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	return max(off, s.start), nil
}
