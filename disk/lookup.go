package disk

import (
	"bytes"
	"errors"
	"fmt"
)

// maxPathLength bounds a path to look up, in bytes: Linux's PATH_MAX, which is
// all that a guest itself could use in one go.
const maxPathLength = 4096

// errFound ends a search.
var errFound = errors.New("found")

// Lookup returns the inode at an absolute path of fsys, which may use "/" more
// than once and at its end. Symlinks are not followed: one in the middle of the
// path is not a directory. The error wraps [ErrNotExist] where there is nothing.
func Lookup(fsys Filesystem, path []byte) (Inode, error) {
	if len(path) > maxPathLength {
		return Inode{}, fmt.Errorf("look up %.40q…: %w: a path has at most %d bytes", path, ErrLimit, maxPathLength)
	}
	inode, err := fsys.Inode(fsys.Info().Root)
	if err != nil {
		return Inode{}, err
	}
	for name := range bytes.SplitSeq(path, []byte("/")) {
		if len(name) == 0 {
			continue
		}
		if inode.Type() != ModeDir {
			return Inode{}, fmt.Errorf("look up %q: %w: what is before %q is not a directory", path, ErrNotExist, name)
		}
		ino, err := find(fsys, inode.Ino, name)
		if err != nil {
			return Inode{}, fmt.Errorf("look up %q: %w", path, err)
		}
		if inode, err = fsys.Inode(ino); err != nil {
			return Inode{}, err
		}
	}
	return inode, nil
}

func find(fsys Filesystem, dir uint64, name []byte) (uint64, error) {
	var ino uint64
	err := fsys.ReadDir(dir, func(e DirEntry) error {
		if !bytes.Equal(e.Name, name) {
			return nil
		}
		ino = e.Ino
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return ino, nil
	case err != nil:
		return 0, err
	}
	return 0, ErrNotExist
}
