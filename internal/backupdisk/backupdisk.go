// Package backupdisk shows a disk of which a backup has only the files as a disk,
// without restoring it.
//
//	s, err := newimage.MakeSkeleton(ctx, tree, at, newimage.Options{Filesystem: "ext4", Size: 20 << 30, …})
//	d := backupdisk.New(s, tree)
//
// What the filesystem needs beside the content of files is in a skeleton, a local
// file that takes as much room as that. Content is read from the repository when it
// is asked for, and each piece is verified by its hash then. A disk that a backup has
// whole needs none of this: it is a file of the backup.
//
// A filesystem in a partition or a logical volume is shown where it lies, in what the
// backup has around it: [NewInLayout].
//
// # What it promises
//
// The disk never changes, and any number may read it at the same time. What cannot be
// read of the backup is an error where it is read, and nowhere else.
package backupdisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/newimage"
)

// maxOpen is how many files are kept open: each keeps the list of its pieces. A
// search in so many takes no time.
const maxOpen = 64

// Disk is a disk of a backup. It implements [disk.Sparse].
type Disk struct {
	skeleton *newimage.Skeleton
	tree     disk.Filesystem

	mu   sync.Mutex // guards open
	open []openFile // the one that was used last is at the end
}

type openFile struct {
	ino     uint64
	content disk.Sparse
}

// New returns the disk whose files are those of tree, of which s is the skeleton.
// The disk takes the skeleton over.
func New(s *newimage.Skeleton, tree disk.Filesystem) *Disk {
	return &Disk{skeleton: s, tree: tree}
}

// Close gives the skeleton back.
func (d *Disk) Close() error { return d.skeleton.File.Close() }

// Size is that of the filesystem, in bytes.
func (d *Disk) Size() int64 { return d.skeleton.Size }

// next returns the run that byte off is in, or the next one: at last one of no bytes
// at the end.
func (d *Disk) next(off int64) newimage.Run {
	runs := d.skeleton.Runs
	i := sort.Search(len(runs), func(i int) bool { return runs[i].Offset+runs[i].Length > off })
	if i == len(runs) {
		return newimage.Run{Offset: d.skeleton.Size}
	}
	return runs[i]
}

var errOffset = errors.New("negative offset")

// ReadAt is described at [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= d.Size() {
			return n, io.EOF
		}
		r := d.next(at)
		if r.Offset > at {
			k := int(min(int64(len(p)-n), r.Offset-at))
			_, err = d.skeleton.File.ReadAt(p[n:n+k], at)
			n += k
		} else {
			k := int(min(int64(len(p)-n), r.Offset+r.Length-at))
			err = d.content(p[n:n+k], r, at-r.Offset)
			n += k
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

var errLost = errors.New("the backup has lost the file that has its content here")

// content reads what lies at off in a run.
func (d *Disk) content(p []byte, r newimage.Run, off int64) error {
	if r.Ino == 0 {
		return errLost
	}
	f, err := d.file(r.Ino)
	if err != nil {
		return err
	}
	at := r.At + off
	n := int(min(max(f.Size()-at, 0), int64(len(p))))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	if _, err := f.ReadAt(p[:n], at); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// file returns an open file.
func (d *Disk) file(ino uint64) (disk.Sparse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, f := range slices.Backward(d.open) {
		if f.ino == ino {
			d.open = append(slices.Delete(d.open, i, i+1), f)
			return f.content, nil
		}
	}
	content, err := d.tree.Open(ino)
	if err != nil {
		return nil, err
	}
	if len(d.open) == maxOpen {
		d.open = slices.Delete(d.open, 0, 1)
	}
	d.open = append(d.open, openFile{ino, content})
	return content, nil
}

// Extents tells what is data: content, and what the skeleton has.
func (d *Disk) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || length > d.Size()-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, io.ErrUnexpectedEOF)
	}
	for end := off + length; off < end; {
		e, err := d.extent(off)
		if err != nil {
			return err
		}
		e.Length = min(e.Length, end-off)
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

func (d *Disk) extent(off int64) (disk.Extent, error) {
	r := d.next(off)
	if r.Offset <= off {
		return disk.Extent{Offset: off, Length: r.Offset + r.Length - off}, nil
	}
	e := disk.Extent{Offset: off, Length: r.Offset - off}
	data, err := seek(d.skeleton.File, off, unix.SEEK_DATA, d.Size())
	if err == nil && data > off {
		e.Kind, e.Length = disk.ExtentHole, min(data, r.Offset)-off
		return e, nil
	}
	hole, herr := seek(d.skeleton.File, off, unix.SEEK_HOLE, d.Size())
	e.Length = min(hole, r.Offset) - off
	return e, errors.Join(err, herr)
}

// seek finds the next data or hole; end where there is none.
func seek(f *os.File, off int64, whence int, end int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, whence)
	if errors.Is(err, unix.ENXIO) {
		return end, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for holes in the filesystem of the backup: %w", err)
	}
	return min(at, end), nil
}
