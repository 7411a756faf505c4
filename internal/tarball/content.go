package tarball

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

const (
	// maxSegments is how many runs of data between holes are kept apart. The
	// holes behind them are written out. It costs 1 MB to get there.
	maxSegments = 1 << 16
)

// segment is a run of data in a file.
type segment struct{ off, length int64 }

// file archives a regular file.
func (a *archiver) file(h *tar.Header, inode disk.Inode) error {
	content, err := a.fsys.Open(inode.Ino)
	if err != nil {
		return err
	}
	h.Size = content.Size()
	if h.Size != inode.Size || h.Size < 0 {
		return a.damaged(fmt.Sprintf("inode %d", inode.Ino), "it has %d bytes, and its content %d", inode.Size, h.Size)
	}
	if h.Size <= pieceSize {
		p := a.piece[:h.Size]
		if err := a.read(content, p, 0); err != nil {
			return err
		}
		if !disk.MayHaveHoles(p, a.fsys.Info().BlockSize) {
			return a.whole(h, p)
		}
	}
	segments, err := a.segments(content, h.Size)
	if err != nil {
		return err
	}
	if len(segments) == 1 && segments[0] == (segment{0, h.Size}) || h.Size == 0 {
		if err := a.writeHeader(h); err != nil {
			return err
		}
		return a.data(a.tar, content, segments, h.Name)
	}
	return a.sparse(h, content, segments)
}

// whole archives a file that was read already.
func (a *archiver) whole(h *tar.Header, p []byte) error {
	if err := a.writeHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(p)
	return err
}

// segments lists the runs of data of a file that lie between its holes.
func (a *archiver) segments(content disk.Sparse, size int64) ([]segment, error) {
	var list []segment
	var next int64
	err := content.Extents(0, size, func(e disk.Extent) error {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if e.Offset != next || e.Length <= 0 || e.Length > size-next {
			return a.damaged("extents", "%d bytes at %d come after %d of %d", e.Length, e.Offset, next, size)
		}
		next += e.Length
		if e.Kind == disk.ExtentData {
			list = addSegment(list, segment{e.Offset, e.Length})
		}
		return nil
	})
	if err == nil && next != size {
		err = a.damaged("extents", "they cover %d of %d bytes", next, size)
	}
	if err != nil {
		return nil, err
	}
	return aligned(list, size), nil
}

// aligned makes the segments begin and end at blocks, which is what GNU tar reads:
// holes begin and end at blocks of a filesystem, none of which are smaller. Between
// segments is a hole that is larger than what this takes.
func aligned(list []segment, size int64) []segment {
	for i, s := range list {
		start, end := s.off&^(blockSize-1), s.off+s.length
		end = min(end+padding(end), size)
		list[i] = segment{start, end - start}
	}
	return list
}

func addSegment(list []segment, s segment) []segment {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if s.off-last.off-last.length < 2*blockSize || n == maxSegments {
			last.length = s.off + s.length - last.off
			return list
		}
	}
	return append(list, s)
}

// data writes the content of segments. What is damaged becomes zeros: the header
// has said how much there is.
func (a *archiver) data(w io.Writer, content disk.Sparse, segments []segment, name string) error {
	var first error
	for _, s := range segments {
		for off, end := s.off, s.off+s.length; off < end; {
			p := a.piece[:min(pieceSize, end-off)]
			err := a.read(content, p, off)
			if err != nil && (a.ctx.Err() != nil || !isDamage(err)) {
				return err
			}
			if err != nil {
				clear(p)
				if first == nil {
					first = fmt.Errorf("it is damaged, and some or all of its bytes from %d on are zeros in the archive: %w", off, err)
				}
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			off += int64(len(p))
			a.progress()
		}
	}
	return a.fail([]byte("/"+name), first)
}

// read fills p.
func (a *archiver) read(content disk.Sparse, p []byte, off int64) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if n, err := content.ReadAt(p, off); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = a.damaged("content", "it ends at %d, before its size", off+int64(n))
		}
		return err
	}
	return nil
}
