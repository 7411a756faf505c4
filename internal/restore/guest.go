package restore

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Guest shows the tree of a snapshot without what drydock has put into it: the
// definition of the VM, and whole disks with the folder that they lie in, unless the
// guest has something in it too. A disk that is made anew has neither.
func (t *Tree) Guest(s *repository.Snapshot) (disk.Filesystem, error) {
	v := &without{Filesystem: t, hidden: map[uint64]bool{}}
	if slices.Contains(s.Tags, definition.Tag) {
		if err := v.hide("/" + definition.Folder); err != nil {
			return nil, err
		}
	}
	folder, err := disk.Lookup(t, []byte("/"+wholedisk.Folder))
	if errors.Is(err, disk.ErrNotExist) {
		return v, nil
	}
	if err != nil || folder.Type() != disk.ModeDir {
		return v, err
	}
	others := 0
	err = t.ReadDir(folder.Ino, func(e disk.DirEntry) error {
		name := strings.TrimSuffix(strings.TrimSuffix(string(e.Name), ".raw"), ".json")
		if name != string(e.Name) && wholedisk.Stored(s, name) {
			v.hidden[e.Ino] = true
		} else {
			others++
		}
		return nil
	})
	if others == 0 && slices.ContainsFunc(s.Tags, wholedisk.IsTag) {
		v.hidden[folder.Ino] = true
	}
	return v, err
}

// Disk shows what one disk has in a snapshot that has its files, at the folder where
// the guest mounts it: without what other disks hold in it, whose folders are empty if
// the disk has them, and without what drydock has put in.
func (t *Tree) Disk(s *repository.Snapshot, name, folder string) (disk.Filesystem, error) {
	guest, err := t.Guest(s)
	if err != nil {
		return nil, err
	}
	top, err := disk.Lookup(guest, []byte(folder))
	if err != nil {
		return nil, err
	}
	own := &without{Filesystem: guest, hidden: map[uint64]bool{}}
	var empty []uint64
	for other, mount := range backup.Mounts(s) {
		if other == name || mount == folder || folder != "/" && !strings.HasPrefix(mount, folder+"/") {
			continue
		}
		switch ino, madeUp, err := t.mountPoint(guest, folder, mount); {
		case err != nil: // then it is not shown either
		case madeUp:
			own.hidden[ino] = true
		default:
			empty = append(empty, ino)
		}
	}
	return Below(own, top.Ino, empty...), nil
}

// mountPoint returns the folder at which another disk is mounted below one, or the first
// on the way to it that no disk has.
func (t *Tree) mountPoint(guest disk.Filesystem, folder, mount string) (ino uint64, madeUp bool, err error) {
	for name := range strings.SplitSeq(strings.Trim(mount[len(folder):], "/"), "/") {
		folder = path.Join(folder, name)
		inode, err := disk.Lookup(guest, []byte(folder))
		if err != nil {
			return 0, false, err
		}
		n, err := t.node(inode.Ino)
		if err != nil || slices.Contains(n.Flags(), repository.FlagMadeUp) {
			return inode.Ino, true, err
		}
		ino = inode.Ino
	}
	return ino, false, nil
}

// without is a filesystem in which some files do not appear.
type without struct {
	disk.Filesystem
	hidden map[uint64]bool
}

// hide hides a path, if it is there.
func (v *without) hide(path string) error {
	inode, err := disk.Lookup(v.Filesystem, []byte(path))
	if errors.Is(err, disk.ErrNotExist) {
		return nil
	}
	v.hidden[inode.Ino] = true
	return err
}

// Identity is that of a file's content; that of a folder would be with what is hidden.
func (v *without) Identity(ino uint64) ([32]byte, bool) { return contentIdentity(v.Filesystem, ino) }

func (v *without) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	return v.Filesystem.ReadDir(ino, func(e disk.DirEntry) error {
		if v.hidden[e.Ino] {
			return nil
		}
		return yield(e)
	})
}
