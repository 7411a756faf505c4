package treetest

import (
	"bytes"

	"github.com/drydock-vm/drydock/disk"
)

// Root is the inode number of a [Fake]'s root directory, which is there always.
const Root = 2

// Fake is a filesystem of what a test says, true or not.
type Fake struct {
	Inodes  map[uint64]disk.Inode
	Entries map[uint64][]disk.DirEntry
	Targets map[uint64]string
	Attrs   map[uint64][]disk.Xattr
	Files   map[uint64]disk.Sparse
	Fails   map[uint64]error // what Inode of a number returns
}

var _ disk.Filesystem = (*Fake)(nil)

// NewFake returns an empty filesystem.
func NewFake() *Fake {
	return &Fake{
		Inodes:  map[uint64]disk.Inode{Root: {Ino: Root, Mode: disk.ModeDir | 0o755, Links: 2}},
		Entries: map[uint64][]disk.DirEntry{}, Targets: map[uint64]string{},
		Attrs: map[uint64][]disk.Xattr{}, Files: map[uint64]disk.Sparse{}, Fails: map[uint64]error{},
	}
}

// Add puts inode ino into folder dir, and returns ino.
func (f *Fake) Add(dir uint64, name string, ino uint64, mode uint32) uint64 {
	f.Entries[dir] = append(f.Entries[dir], disk.DirEntry{Name: []byte(name), Ino: ino})
	if _, known := f.Inodes[ino]; !known {
		f.Inodes[ino] = disk.Inode{Ino: ino, Mode: mode, Links: 1}
	}
	return ino
}

// Dir puts a folder into another.
func (f *Fake) Dir(dir uint64, name string, ino uint64) uint64 {
	return f.Add(dir, name, ino, disk.ModeDir|0o755)
}

// Symlink puts a symlink into a folder.
func (f *Fake) Symlink(dir uint64, name string, ino uint64, target string) {
	f.Targets[f.Add(dir, name, ino, disk.ModeSymlink|0o777)] = target
}

// File puts a file into a folder.
func (f *Fake) File(dir uint64, name string, ino uint64, content disk.Sparse) {
	f.Add(dir, name, ino, disk.ModeRegular|0o644)
	n := f.Inodes[ino]
	n.Size = content.Size()
	f.Inodes[ino], f.Files[ino] = n, content
}

func (f *Fake) Info() disk.FilesystemInfo { return disk.FilesystemInfo{Type: "fake", Root: Root} }

func (f *Fake) Inode(ino uint64) (disk.Inode, error) {
	if err := f.Fails[ino]; err != nil {
		return disk.Inode{}, err
	}
	return f.Inodes[ino], nil
}

func (f *Fake) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	for _, e := range f.Entries[ino] {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fake) Readlink(ino uint64) ([]byte, error)     { return []byte(f.Targets[ino]), nil }
func (f *Fake) Xattrs(ino uint64) ([]disk.Xattr, error) { return f.Attrs[ino], nil }
func (f *Fake) Open(ino uint64) (disk.Sparse, error)    { return f.Files[ino], nil }

// Content is a file of bytes, of which those from BadFrom on cannot be read if that
// is not 0, and which calls OnRead before each read if that is not nil.
type Content struct {
	Data    []byte
	BadFrom int64
	Err     error
	OnRead  func()
}

func (c Content) Size() int64 { return int64(len(c.Data)) }

func (c Content) ReadAt(p []byte, off int64) (int, error) {
	if c.OnRead != nil {
		c.OnRead()
	}
	if c.BadFrom > 0 && off+int64(len(p)) > c.BadFrom {
		return 0, c.Err
	}
	return bytes.NewReader(c.Data).ReadAt(p, off)
}

func (c Content) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// Extents is a file of ones and holes, as its extents say.
type Extents []disk.Extent

func (x Extents) Size() int64 {
	var size int64
	for _, e := range x {
		size += e.Length
	}
	return size
}

// ReadAt reads ones and zeros.
func (x Extents) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	var at int64
	for _, e := range x {
		for i := max(at, off); e.Kind == disk.ExtentData && i < min(at+e.Length, off+int64(len(p))); i++ {
			p[i-off] = 1
		}
		at += e.Length
	}
	return len(p), nil
}

// Extents yields the extents as they are; where they say no offset it is filled in.
func (x Extents) Extents(_, _ int64, yield func(disk.Extent) error) error {
	var at int64
	for _, e := range x {
		if e.Offset == 0 {
			e.Offset = at
		}
		if err := yield(e); err != nil {
			return err
		}
		at += e.Length
	}
	return nil
}
