package fusefs

import (
	"bytes"
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/drydock-vm/drydock/disk"
)

// maxKeptXattrs bounds the attributes of a file that are kept for the next
// question, in bytes. Programs ask for the list, and then for one after another.
const maxKeptXattrs = 64 << 10

// list returns the extended attributes of ino.
func (fs *filesystem) list(ino uint64) ([]disk.Xattr, error) {
	var large []disk.Xattr
	list, err := fs.xattrs.get(ino, func(ino uint64) ([]disk.Xattr, error) {
		list, err := fs.fsys.Xattrs(ino)
		size := 0
		for _, x := range list {
			size += len(x.Name) + len(x.Value)
		}
		if err == nil && size > maxKeptXattrs {
			large, err = list, errLarge
		}
		return list, err
	})
	if errors.Is(err, errLarge) {
		return large, nil
	}
	return list, err
}

// errLarge says that attributes were read but are not to be kept.
var errLarge = errors.New("too large to keep")

// GetXAttr returns a value's length, with ERANGE if dest has no room for it.
func (fs *filesystem) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	ino := fs.node(header.NodeId)
	list, err := fs.list(ino)
	if err != nil {
		return 0, fs.status(ino, err)
	}
	for _, x := range list {
		if string(x.Name) == name {
			return fill(dest, x.Value)
		}
	}
	return 0, fuse.ENODATA
}

// ListXAttr returns the names, each with a NUL behind it.
func (fs *filesystem) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ino := fs.node(header.NodeId)
	list, err := fs.list(ino)
	if err != nil {
		return 0, fs.status(ino, err)
	}
	var names []byte
	for _, x := range list {
		// The kernel refuses the whole list for one name that it cannot have.
		if len(x.Name) > 0 && bytes.IndexByte(x.Name, 0) < 0 {
			names = append(append(names, x.Name...), 0)
		}
	}
	return fill(dest, names)
}

func fill(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}
