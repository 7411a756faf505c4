package tarball

import (
	"archive/tar"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

// socket is the type of what tar has no type for.
const socket = 's'

const (
	// maxName bounds a name and a symlink's target, and maxXattrs the extended
	// attributes of a file, in bytes: together they fit into the 1 MiB that
	// archive/tar, and others, allow for a PAX header.
	maxName   = 64 << 10
	maxXattrs = 512 << 10

	recordXattr = "SCHILY.xattr."
)

// kind is the type of file as a tar header spells it.
func (a *archiver) kind(inode disk.Inode) (byte, error) {
	switch inode.Type() {
	case disk.ModeRegular:
		return tar.TypeReg, nil
	case disk.ModeDir:
		return tar.TypeDir, nil
	case disk.ModeSymlink:
		return tar.TypeSymlink, nil
	case disk.ModeBlock:
		return tar.TypeBlock, nil
	case disk.ModeChar:
		return tar.TypeChar, nil
	case disk.ModeFIFO:
		return tar.TypeFifo, nil
	case disk.ModeSocket:
		return socket, nil
	}
	return 0, a.damaged(fmt.Sprintf("inode %d", inode.Ino), "its mode is %#o, a type that does not exist", inode.Mode)
}

// header describes a file, but for the size of its content.
func (a *archiver) header(name string, kind byte, inode disk.Inode) (*tar.Header, error) {
	const permissions = 0o7777
	if len(name) > maxName {
		return nil, a.refused(disk.ErrLimit, "directory", "the path has %d bytes, more than %d", len(name), maxName)
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: kind, Name: name, Mode: int64(inode.Mode & permissions),
		Uid: int(inode.UID), Gid: int(inode.GID), ModTime: goTime(inode.Modify),
	}
	if kind == tar.TypeLink {
		return h, nil // its attributes are those of the file
	}
	var err error
	if h.PAXRecords, err = a.xattrs(name, inode.Ino); err != nil {
		return nil, err
	}
	switch kind {
	case tar.TypeSymlink:
		target, err := a.fsys.Readlink(inode.Ino)
		if err != nil {
			return nil, err
		}
		if len(target) > maxName {
			return nil, a.refused(disk.ErrLimit, "symlink", "its target has %d bytes, more than %d", len(target), maxName)
		}
		h.Linkname = string(target)
	case tar.TypeBlock, tar.TypeChar:
		h.Devmajor, h.Devminor = int64(inode.Rdev.Major), int64(inode.Rdev.Minor)
	}
	return h, nil
}

// escapeXattr is how GNU tar spells the names of attributes that a PAX record
// cannot have.
var escapeXattr = strings.NewReplacer("%", "%25", "=", "%3D")

// xattrs returns the PAX records of extended attributes. Those that cannot be read
// do not cost the file.
func (a *archiver) xattrs(name string, ino uint64) (map[string]string, error) {
	list, err := a.fsys.Xattrs(ino)
	if err != nil {
		if !isDamage(err) {
			return nil, err
		}
		a.warn([]byte("/"+name), err)
	}
	var records map[string]string
	size := 0
	for _, x := range list {
		if strings.ContainsRune(string(x.Name), 0) {
			continue // no attribute can have this name
		}
		if size += len(x.Name) + len(x.Value); size > maxXattrs {
			a.warn([]byte("/"+name), a.refused(disk.ErrLimit, "extended attributes", "they have more than %d bytes; some are left out", maxXattrs))
			break
		}
		if records == nil {
			records = map[string]string{}
		}
		records[recordXattr+escapeXattr.Replace(string(x.Name))] = string(x.Value)
	}
	return records, nil
}

// writeHeader writes a header, unless what it describes is more than tar can say.
func (a *archiver) writeHeader(h *tar.Header) error {
	err := a.tar.WriteHeader(h)
	if err == nil {
		return nil
	}
	// The writer remembers an error of its output, and no other.
	if err := a.tar.Flush(); err != nil {
		return err
	}
	return a.refused(disk.ErrUnsupported, "attributes", "tar cannot keep them: %v", err)
}
