package benchdisk

import (
	"bytes"
	"io"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// Read reads everything of a filesystem as tar does, all attributes and all that is
// no hole: file by file as the disk lists them, or each folder sorted by name. It
// returns how many regular files there are, and how many bytes they hold.
func Read(fsys disk.Filesystem, sorted bool) (files int, size int64, err error) {
	r := &reader{fsys: fsys, sorted: sorted, buf: make([]byte, 1<<20)}
	err = r.dir(fsys.Info().Root)
	return r.files, r.bytes, err
}

type reader struct {
	fsys   disk.Filesystem
	sorted bool
	buf    []byte
	files  int
	bytes  int64
}

func (r *reader) dir(ino uint64) error {
	var list []disk.DirEntry
	if err := r.fsys.ReadDir(ino, func(e disk.DirEntry) error {
		e.Name = bytes.Clone(e.Name)
		list = append(list, e)
		return nil
	}); err != nil {
		return err
	}
	if r.sorted {
		slices.SortFunc(list, func(a, b disk.DirEntry) int { return bytes.Compare(a.Name, b.Name) })
	}
	for _, e := range list {
		if err := r.file(e.Ino); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) file(ino uint64) error {
	n, err := r.fsys.Inode(ino)
	if err != nil {
		return err
	}
	if _, err := r.fsys.Xattrs(ino); err != nil {
		return err
	}
	switch n.Type() {
	case disk.ModeDir:
		return r.dir(ino)
	case disk.ModeSymlink:
		_, err = r.fsys.Readlink(ino)
	case disk.ModeRegular:
		r.files++
		err = r.content(ino)
	}
	return err
}

func (r *reader) content(ino uint64) error {
	f, err := r.fsys.Open(ino)
	if err != nil {
		return err
	}
	return f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		for end := e.Offset + e.Length; e.Offset < end; {
			got, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), end-e.Offset)], e.Offset)
			if err != nil && err != io.EOF {
				return err
			}
			e.Offset += int64(got)
			r.bytes += int64(got)
		}
		return nil
	})
}
