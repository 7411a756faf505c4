package btrfs

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Open implements [disk.Filesystem]. What it returns is a [disk.Locator].
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, layer.Absent(n.name(), "mode %#o is not a regular file", n.Mode)
	}
	return newFile(fs, n), nil
}

// file is the content of a regular file or a symlink. It keeps the extents that
// it looked up last and their checksums, so that reading on costs no lookup, and
// nothing else: a file of any size costs the same.
type file struct {
	fs    *Filesystem
	inode *inode
	last  atomic.Pointer[segment]
	sums  atomic.Pointer[sumWindow]
}

var _ disk.Locator = (*file)(nil)

func newFile(fs *Filesystem, n *inode) *file { return &file{fs: fs, inode: n} }

// Size implements [disk.Sparse].
func (f *file) Size() int64 { return f.inode.Size }

func (f *file) name() string { return "content of " + f.inode.name() }

// at returns the extent or hole at off.
func (f *file) at(off int64) (extent, error) {
	s := f.last.Load()
	if s == nil || off < s.first || off >= s.end {
		var err error
		if s, err = f.inode.segment(off); err != nil {
			return extent{}, err
		}
		f.last.Store(s)
	}
	return s.at(off), nil
}

// ReadAt implements [disk.Sparse].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("btrfs: a read at a negative offset")
	}
	return ondisk.ReadPieces(p, off, f.Size(), f.readSome)
}

// readSome reads from one extent or hole, at least one byte.
func (f *file) readSome(p []byte, off int64) (int, error) {
	e, err := f.at(off)
	if err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), e.end-off)]
	switch {
	case e.kind != disk.ExtentData:
		clear(p)
		return len(p), nil
	case e.compression == 0 && e.inline == nil:
		return f.readPlain(p, &e, off)
	}
	data := e.inline
	if e.compression != 0 {
		if data, err = f.decompressed(&e); err != nil {
			return 0, err
		}
	}
	from := uint64(off-e.start) + e.offset
	n := copy(p, data[min(from, uint64(len(data))):])
	clear(p[n:])
	return len(p), nil
}

// checkRange checks the arguments of Extents and Locate.
func checkRange(off, length, size int64) error {
	if !ondisk.Within(off, length, size) {
		return fmt.Errorf("btrfs: %d bytes at %d of a file of %d", length, off, size)
	}
	return nil
}

// Extents implements [disk.Sparse].
func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	if err := checkRange(off, length, f.Size()); err != nil {
		return err
	}
	for end := off + length; off < end; {
		e, err := f.at(off)
		if err != nil {
			return err
		}
		n := min(e.end, end) - off
		if err := yield(disk.Extent{Offset: off, Length: n, Kind: e.kind}); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// Locate implements [disk.Locator]. Only what is not compressed, and has no
// checksum or a CRC-32C, can be read without us.
func (f *file) Locate(off, length int64, yield func(disk.Location) error) error {
	if err := checkRange(off, length, f.Size()); err != nil {
		return err
	}
	for end := off + length; off < end; {
		e, err := f.at(off)
		if err != nil {
			return err
		}
		n := min(e.end, end) - off
		if e.kind != disk.ExtentData || e.compression != 0 || e.inline != nil || !f.locatable(&e, off) {
			err = yield(disk.Location{Offset: off, Length: n, Device: -1})
		} else {
			n, err = f.locatePlain(&e, off, n, yield)
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// locatable reports whether the content of e from off on is verified by nobody, or
// by anybody.
func (f *file) locatable(e *extent, off int64) bool {
	if f.inode.flags&flagNoDataSum != 0 {
		return true
	}
	sb := f.fs.sb
	return sb.checksum.isCRC32C() && (e.offset+uint64(off-e.start))%uint64(sb.sectorSize) == 0
}

// locatePlain yields where up to n bytes of e from off on lie, and returns for
// how many that was.
func (f *file) locatePlain(e *extent, off, n int64, yield func(disk.Location) error) (int64, error) {
	v := f.fs.volume
	logical := e.logical + e.offset + uint64(off-e.start)
	c, err := v.chunkOf(logical, uint64(n), f.name())
	if err != nil {
		return 0, err
	}
	for copy := range c.copies {
		s, at, length := c.piece(logical-c.logical, copy)
		if s.device < 0 {
			continue
		}
		l := disk.Location{Offset: off, Length: min(n, int64(length), windowBytes), Device: s.device, At: int64(at)}
		if f.inode.flags&flagNoDataSum == 0 {
			sector := uint64(f.fs.sb.sectorSize)
			whole := (uint64(l.Length) + sector - 1) &^ (sector - 1)
			sums, err := f.checksums(logical, whole, e.logical+e.length)
			if err != nil {
				break // who reads it learns why
			}
			l.Sums = &disk.Checksums{Block: int64(sector), CRC32C: sums}
		}
		return l.Length, yield(l)
	}
	return n, yield(disk.Location{Offset: off, Length: n, Device: -1})
}
