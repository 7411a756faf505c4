package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// maxIno bounds inode numbers: those of a guest's tree, which carry the number of
// a filesystem above [disk.MaxIno], are the largest.
const maxIno = disk.MaxIno * MaxMounts

// CheckEntry checks what package disk promises about an entry of a directory.
func CheckEntry(e disk.DirEntry) error {
	switch {
	case len(e.Name) == 0:
		return errors.New("an entry has no name")
	case len(e.Name) > MaxName:
		return fmt.Errorf("a name has %d bytes, at most %d are possible", len(e.Name), MaxName)
	case bytes.IndexByte(e.Name, '/') >= 0:
		return fmt.Errorf("the name %q has a slash", e.Name)
	case bytes.IndexByte(e.Name, 0) >= 0:
		return fmt.Errorf("the name %q has a NUL", e.Name)
	case string(e.Name) == "." || string(e.Name) == "..":
		return fmt.Errorf("the name %q stands among the entries", e.Name)
	case e.Ino == 0 || e.Ino >= maxIno:
		return fmt.Errorf("the entry %q has the impossible inode %d", e.Name, e.Ino)
	case e.Type != 0 && !knownType(e.Type):
		return fmt.Errorf("the entry %q has the unknown type %#o", e.Name, e.Type)
	}
	return nil
}

func knownType(t uint32) bool {
	switch t {
	case disk.ModeSocket, disk.ModeSymlink, disk.ModeRegular, disk.ModeBlock,
		disk.ModeDir, disk.ModeChar, disk.ModeFIFO:
		return true
	}
	return false
}

// CheckInode checks what package disk promises about inode ino.
func CheckInode(n *disk.Inode, ino uint64) error {
	switch {
	case n.Ino != ino:
		return fmt.Errorf("asked for inode %d, got %d", ino, n.Ino)
	case !knownType(n.Type()):
		return fmt.Errorf("mode %#o has an unknown file type", n.Mode)
	case n.Mode>>16 != 0:
		return fmt.Errorf("mode %#o has more than 16 bits", n.Mode)
	case n.Size < 0:
		return fmt.Errorf("the size is %d", n.Size)
	}
	for _, t := range []disk.Time{n.Access, n.Modify, n.Change, n.Birth} {
		if t.Nsec >= 1e9 {
			return fmt.Errorf("a time has %d nanoseconds", t.Nsec)
		}
	}
	return nil
}

// CheckTarget checks the target of a symlink.
func CheckTarget(b []byte) error {
	switch {
	case len(b) == 0:
		return errors.New("the symlink has no target")
	case len(b) > MaxTarget:
		return fmt.Errorf("the symlink's target has %d bytes, at most %d are possible", len(b), MaxTarget)
	case bytes.IndexByte(b, 0) >= 0:
		return errors.New("the symlink's target has a NUL")
	}
	return nil
}

// CheckXattrs checks a file's attributes: sizes, and that the names are sorted,
// which also says that none is there twice.
func CheckXattrs(list []disk.Xattr) error {
	if len(list) > MaxXattrs {
		return fmt.Errorf("%d extended attributes, at most %d are possible", len(list), MaxXattrs)
	}
	total := 0
	for i, x := range list {
		switch {
		case len(x.Name) == 0 || len(x.Name) > MaxName:
			return fmt.Errorf("an extended attribute's name has %d bytes", len(x.Name))
		case bytes.IndexByte(x.Name, 0) >= 0:
			return fmt.Errorf("the extended attribute %q has a NUL in its name", x.Name)
		case len(x.Value) > MaxXattrValue:
			return fmt.Errorf("the extended attribute %q has %d bytes, at most %d are possible", x.Name, len(x.Value), MaxXattrValue)
		case i > 0 && bytes.Compare(list[i-1].Name, x.Name) >= 0:
			return fmt.Errorf("the extended attribute %q is out of order", x.Name)
		}
		total += xattrSize + len(x.Name) + len(x.Value)
	}
	if total > MaxXattrBytes {
		return fmt.Errorf("%d bytes of extended attributes, at most %d are read", total, MaxXattrBytes)
	}
	return nil
}

// CheckInfo checks the description of a filesystem.
func CheckInfo(i disk.FilesystemInfo) error {
	switch {
	case i.Type == "" || len(i.Type) > MaxName:
		return fmt.Errorf("a filesystem type of %d bytes", len(i.Type))
	case len(i.Label) > MaxLabel:
		return fmt.Errorf("a label of %d bytes", len(i.Label))
	case i.Root == 0 || i.Root >= maxIno:
		return fmt.Errorf("the filesystem's root is inode %d", i.Root)
	case i.BlockSize <= 0:
		return fmt.Errorf("blocks of %d bytes", i.BlockSize)
	case i.Size < 0:
		return fmt.Errorf("a filesystem of %d bytes", i.Size)
	}
	return nil
}
