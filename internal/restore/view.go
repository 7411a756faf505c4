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

func (v *view) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	if v.empty[ino] {
		return nil
	}
	return v.Filesystem.ReadDir(ino, yield)
}
