package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk"
)

// holeSize is the shortest run of zeros that becomes a hole, in bytes, and what
// such holes are aligned to, in files of which nobody knows where their holes were. Shorter ones would break files that a guest fills with
// zeros in advance into pieces, and win little.
const holeSize = 32 << 10

// zeros is what a hole is compared with.
var zeros [holeSize]byte

// file writes the content of a regular file.
func (r *restorer) file(at place, inode disk.Inode) (err error) {
	content, err := r.fsys.Open(inode.Ino)
	if err != nil {
		return err
	}
	if r.bytes += min(content.Size(), r.opts.MaxBytes); r.bytes > r.opts.MaxBytes {
		return fmt.Errorf("%w: there are files of more than %d bytes (restore a part of it)", disk.ErrLimit, r.opts.MaxBytes)
	}
	f, err := at.in.root.OpenFile(at.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return onTarget(err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = onTarget(cerr)
		}
	}()
	size := content.Size()
	if size != inode.Size {
		return r.damaged(fmt.Sprintf("inode %d", inode.Ino), "it has %d bytes, and its content %d", inode.Size, size)
	}
	// All of it is a hole now; and a size that the target cannot have is found
	// before the guest makes us read for it.
	if err := f.Truncate(size); err != nil || size == 0 {
		return onTarget(err)
	}
	return r.copy(f, content, size)
}

// guessed reports whether content has zeros that may have been holes.
func guessed(f disk.Sparse) bool {
	c, ok := f.(*content)
	return ok && !c.known
}

// copy writes what is no hole.
func (r *restorer) copy(f *os.File, content disk.Sparse, size int64) error {
	var next int64
	err := content.Extents(0, size, func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 || e.Length > size-next {
			return r.damaged("extents", "%d bytes at %d come after %d of %d", e.Length, e.Offset, next, size)
		}
		next += e.Length
		if e.Kind != disk.ExtentData {
			return nil
		}
		return r.copyData(f, content, e.Offset, next)
	})
	if err == nil && next != size {
		err = r.damaged("extents", "they cover %d of %d bytes", next, size)
	}
	return err
}

// copyData writes the bytes from off to end.
func (r *restorer) copyData(f *os.File, content disk.Sparse, off, end int64) error {
	for off < end {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		// Pieces end where holes can begin.
		p := r.piece[:min(pieceSize-off%pieceSize, end-off)]
		if n, err := content.ReadAt(p, off); n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = r.damaged("content", "it ends at %d, before its size", off+int64(n))
			}
			return err
		}
		write := r.write
		if guessed(content) {
			write = r.writeData
		}
		if err := write(f, p, off); err != nil {
			return err
		}
		off += int64(len(p))
		if r.opts.Progress != nil {
			r.opts.Progress(r.report)
		}
	}
	return nil
}

func (r *restorer) write(f *os.File, p []byte, off int64) error {
	n, err := f.WriteAt(p, off)
	r.report.Written += int64(n)
	return onTarget(err)
}

// writeData writes what is no long run of zeros.
func (r *restorer) writeData(f *os.File, p []byte, off int64) error {
	n, err := writeSparse(f, p, off)
	r.report.Written += n
	return onTarget(err)
}

// writeSparse writes p at off, but for long runs of zeros, and returns how many
// bytes it wrote.
func writeSparse(f io.WriterAt, p []byte, off int64) (written int64, err error) {
	for len(p) > 0 {
		data := 0 // how much of p is to be written before the next hole
		skip := 0 // the hole behind that
		for at := 0; at < len(p) && skip == 0; {
			n := min(holeSize-int((off+int64(at))%holeSize), len(p)-at)
			if n == holeSize && bytes.Equal(p[at:at+n], zeros[:]) {
				skip = n
			} else {
				data += n
			}
			at += n
		}
		if data > 0 {
			n, err := f.WriteAt(p[:data], off)
			written += int64(n)
			if err != nil {
				return written, err
			}
		}
		p, off = p[data+skip:], off+int64(data+skip)
	}
	return written, nil
}
