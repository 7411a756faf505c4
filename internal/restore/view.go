package restore

import "github.com/drydock-vm/drydock/disk"

// Below shows a folder of fsys, by its inode number, as a filesystem of its own, in
// which the folders in empty have nothing in them.
func Below(fsys disk.Filesystem, root uint64, empty ...uint64) disk.Filesystem {
	v := &view{Filesystem: fsys, root: root, empty: map[uint64]bool{}}
	for _, ino := range empty {
		v.empty[ino] = true
	}
	return v
}

type view struct {
	disk.Filesystem
	root  uint64
	empty map[uint64]bool
}

func (v *view) Info() disk.FilesystemInfo {
	info := v.Filesystem.Info()
	info.Root = v.root
	return info
}

// Identity is that of a file's content; that of a folder would be without what is left
// empty in it.
func (v *view) Identity(ino uint64) ([32]byte, bool) { return contentIdentity(v.Filesystem, ino) }

func contentIdentity(fsys disk.Filesystem, ino uint64) (id [32]byte, ok bool) {
	known, is := fsys.(interface {
		Identity(ino uint64) ([32]byte, bool)
	})
	if !is {
		return id, false
	}
	if n, err := fsys.Inode(ino); err != nil || n.Type() != disk.ModeRegular {
		return id, false
	}
	return known.Identity(ino)
}

func (v *view) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	if v.empty[ino] {
		return nil
	}
	return v.Filesystem.ReadDir(ino, yield)
}
