package disk

import (
	"bytes"
	"fmt"
	"slices"
)

// MaxDirEntries is the largest directory that [List] returns. A million entries
// take some 80 MB, and are ten times what people keep in one directory.
const MaxDirEntries = 1 << 20

// List returns the entries of directory ino, sorted by name. Their names are the
// caller's. What was read before an error is returned with it.
//
// A directory of more than [MaxDirEntries] is cut off there, with [ErrLimit]; of
// a name that is there twice the second is left out, with [ErrCorrupt].
func List(fsys Filesystem, ino uint64) ([]DirEntry, error) {
	var entries []DirEntry
	structure := fmt.Sprintf("directory %d", ino)
	err := fsys.ReadDir(ino, func(e DirEntry) error {
		if len(entries) == MaxDirEntries {
			return &Error{Layer: fsys.Info().Type, Structure: structure, Offset: -1, Err: ErrLimit,
				Detail: fmt.Sprintf("it has more than %d entries", MaxDirEntries)}
		}
		e.Name = bytes.Clone(e.Name)
		entries = append(entries, e)
		return nil
	})
	slices.SortStableFunc(entries, func(a, b DirEntry) int { return bytes.Compare(a.Name, b.Name) })
	n := len(entries)
	entries = slices.CompactFunc(entries, func(a, b DirEntry) bool { return bytes.Equal(a.Name, b.Name) })
	if err == nil && len(entries) < n {
		err = &Error{Layer: fsys.Info().Type, Structure: structure, Offset: -1, Err: ErrCorrupt, Detail: "a name is there twice"}
	}
	return entries, err
}
