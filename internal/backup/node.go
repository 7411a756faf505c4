package backup

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// newNode returns the node of a file with everything but its content. The time of
// access is that of modification, as restic has it: the real one would make the
// tree new whenever a file is read.
func newNode(src *Source, name string, inode disk.Inode) (*repository.Node, error) {
	kind, ok := repository.TypeOf(inode.Mode)
	if !ok {
		return nil, damage(src, inode.Ino, fmt.Sprintf("its mode is %#o, a type that does not exist", inode.Mode))
	}
	n := &repository.Node{
		Name: name, Type: kind, Mode: repository.FileMode(inode.Mode),
		ModTime: goTime(inode.Modify), AccessTime: goTime(inode.Modify), ChangeTime: goTime(inode.Change),
		UID: inode.UID, GID: inode.GID, Inode: inode.Ino, DeviceID: src.DeviceID,
	}
	xattrs, err := src.FS.Xattrs(inode.Ino)
	if err != nil {
		return nil, err
	}
	if len(xattrs) > 0 {
		list := make([]repository.Xattr, len(xattrs))
		for i, x := range xattrs {
			list[i] = repository.Xattr{Name: string(x.Name), Value: x.Value}
		}
		n.SetXattrs(list)
	}
	if names := inode.Flags.Names(); len(names) > 0 {
		n.SetAttribute(repository.AttributeFlags, repository.EncodeFlags(names))
	}
	if kind != repository.NodeDir {
		n.Links = uint64(inode.Links)
	}
	switch kind {
	case repository.NodeFile:
		if inode.Size < 0 || inode.Size > MaxFileSize {
			return nil, &disk.Error{Layer: src.FS.Info().Type, Structure: fmt.Sprintf("inode %d", inode.Ino), Offset: -1, Err: disk.ErrLimit,
				Detail: fmt.Sprintf("the file has %d bytes, and at most %d are backed up", inode.Size, int64(MaxFileSize)),
				Hint:   "leave it out with exclude or exclude_larger_than"}
		}
		n.Size = uint64(inode.Size)
	case repository.NodeSymlink:
		target, err := src.FS.Readlink(inode.Ino)
		if err != nil {
			return nil, err
		}
		n.LinkTarget = string(target)
	case repository.NodeDev, repository.NodeCharDev:
		n.Device = unix.Mkdev(inode.Rdev.Major, inode.Rdev.Minor)
	}
	return n, nil
}

func damage(src *Source, ino uint64, detail string) error {
	return &disk.Error{Layer: src.FS.Info().Type, Structure: fmt.Sprintf("inode %d", ino), Offset: -1, Err: disk.ErrCorrupt, Detail: detail}
}

func goTime(t disk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// sameMeta reports whether a file's attributes are those of the parent. What the
// guest changes without a new ctime does not exist.
func sameMeta(old, n *repository.Node) bool {
	return old.Type == n.Type && old.Inode == n.Inode && old.DeviceID == n.DeviceID &&
		old.ModTime.Equal(n.ModTime) && old.ChangeTime.Equal(n.ChangeTime) && old.Mode == n.Mode
}
