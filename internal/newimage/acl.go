package newimage

import (
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// acls is a filesystem without the attributes that are XFS's own form of ACLs. Linux
// lists them beside system.posix_acl_access and _default, which say the same and which
// every filesystem takes.
type acls struct{ disk.Filesystem }

func (a acls) Xattrs(ino uint64) ([]disk.Xattr, error) { return attributes(a.Filesystem, ino) }

// Xattrs hides them in the backup too.
func (s *source) Xattrs(ino uint64) ([]disk.Xattr, error) { return attributes(s.Filesystem, ino) }

// attributes returns the extended attributes that are to be in an image.
func attributes(fsys disk.Filesystem, ino uint64) ([]disk.Xattr, error) {
	list, err := fsys.Xattrs(ino)
	return slices.DeleteFunc(slices.Clone(list), func(x disk.Xattr) bool {
		name := string(x.Name)
		return name == "trusted.SGI_ACL_FILE" || name == "trusted.SGI_ACL_DEFAULT"
	}), err
}
