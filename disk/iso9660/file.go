package iso9660

import (
	"fmt"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// section is one extent of a file.
type section struct {
	off, length int64 // bytes, of the file
	at          int64 // of the disk
	interleaved bool
}

// file is the content of a file, all of which lies on the disk.
type file struct {
	fs       *Filesystem
	ino      uint64
	size     int64
	sections []section
}

var (
	_ disk.Sparse  = (*file)(nil)
	_ disk.Locator = (*file)(nil)
)

func (f *file) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	return ondisk.ReadPieces(p, off, f.size, func(p []byte, off int64) (int, error) {
		s := f.sections[f.sectionOf(off)]
		p = p[:min(int64(len(p)), s.off+s.length-off)]
		at := s.at + off - s.off
		if err := ondisk.ReadFull(f.fs.dev.Disk, p, at); err != nil {
			return 0, layer.Unreadable(fmt.Sprintf("content of inode %d", f.ino), at, err)
		}
		return len(p), nil
	})
}

// sectionOf returns the section that has byte off, which is less than the size.
func (f *file) sectionOf(off int64) int {
	return sort.Search(len(f.sections), func(i int) bool { return f.sections[i].off+f.sections[i].length > off })
}

// Extents implements [disk.Sparse]: all of it is data.
func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil || length == 0 {
		return err
	}
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentData})
}

// Locate implements [disk.Locator].
func (f *file) Locate(off, length int64, yield func(disk.Location) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil {
		return err
	}
	for end := off + length; off < end; {
		s := f.sections[f.sectionOf(off)]
		n := min(end, s.off+s.length) - off
		if err := yield(disk.Location{Offset: off, Length: n, At: s.at + off - s.off}); err != nil {
			return err
		}
		off += n
	}
	return nil
}
