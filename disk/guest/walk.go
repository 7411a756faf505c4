package guest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

const (
	// maxSymlinks is how many symlinks are followed on one path: Linux's limit.
	maxSymlinks = 40
	// maxSteps bounds the components of one path, those of its symlinks
	// included.
	maxSteps = 256
	// maxScanned bounds the directory entries that the search for the root may
	// read, and those on the way to all mountpoints: a second or two.
	maxScanned = 1 << 21
)

// place is a file of one of the mounted filesystems.
type place struct {
	mount int
	ino   uint64
}

// step is a place on the way along a path, and where it was found.
type step struct {
	place
	name string
	from place // the directory that has the name
}

// walker finds files by their path while the tree is being put together.
type walker struct {
	fs      *Filesystem
	known   map[dentry]uint64 // inode numbers of names that were found
	scanned *int              // directory entries
}

// dentry is a name in a directory.
type dentry struct {
	place
	name string
}

func newWalker(fs *Filesystem, scanned *int) *walker {
	return &walker{fs: fs, known: make(map[dentry]uint64), scanned: scanned}
}

// walk follows a path from the root through mounts and symlinks, as the guest's
// kernel does. The last step of the root itself has no name.
func (w *walker) walk(path string) (step, error) {
	start := step{place: place{0, w.fs.mounts[0].root}}
	stack := []step{start}
	todo := splitPath(path)
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps == maxSteps {
			return step{}, layer.Beyond(pathName(path), nowhere, "more than %d components", maxSteps)
		}
		name := todo[0]
		todo = todo[1:]
		switch name {
		case ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		here := stack[len(stack)-1].place
		at, err := w.lookup(here, name)
		if err != nil {
			return step{}, fmt.Errorf("%s: %w", pathName(path), err)
		}
		target, isLink, err := w.readlink(at)
		if err != nil {
			return step{}, err
		}
		if !isLink {
			stack = append(stack, step{place: at, name: name, from: here})
			continue
		}
		if links++; links > maxSymlinks {
			return step{}, layer.Beyond(pathName(path), nowhere, "more than %d symlinks", maxSymlinks)
		}
		if bytes.HasPrefix(target, []byte("/")) {
			stack = stack[:1]
		}
		todo = append(splitPath(string(target)), todo...)
	}
	return stack[len(stack)-1], nil
}

func pathName(path string) string { return fmt.Sprintf("path %.150q", path) }

// splitPath returns the components of a path. Those beyond maxSteps are left
// out: the walk ends before them.
func splitPath(path string) []string {
	var list []string
	for name := range bytes.SplitSeq([]byte(path), []byte("/")) {
		if len(name) > 0 {
			list = append(list, string(name))
		}
		if len(list) > maxSteps {
			break
		}
	}
	return list
}

// readlink returns the target of a symlink, or that it is none.
func (w *walker) readlink(at place) ([]byte, bool, error) {
	fs := w.fs.mounts[at.mount].fs
	n, err := fs.Inode(at.ino)
	if err != nil || n.Type() != disk.ModeSymlink {
		return nil, false, err
	}
	target, err := fs.Readlink(at.ino)
	return target, true, err
}

// errFound ends the search of lookup.
var errFound = errors.New("found")

// lookup finds a name in a directory, and what is mounted there.
func (w *walker) lookup(dir place, name string) (place, error) {
	if m, ok := w.fs.mounts[dir.mount].covered[dir.ino][name]; ok {
		return place{m, w.fs.mounts[m].root}, nil
	}
	key := dentry{dir, name}
	if ino, ok := w.known[key]; ok {
		return place{dir.mount, ino}, nil
	}
	fs := w.fs.mounts[dir.mount].fs
	var ino uint64
	err := fs.ReadDir(dir.ino, func(e disk.DirEntry) error {
		if *w.scanned++; *w.scanned > maxScanned {
			return layer.Beyond("directories", nowhere, "more than %d entries in all that are searched", maxScanned)
		}
		if string(e.Name) != name {
			return nil
		}
		ino = e.Ino
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		w.known[key] = ino
		return place{dir.mount, ino}, nil
	case err != nil:
		return place{}, err
	}
	return place{}, layer.Absent(fmt.Sprintf("name %.100q", name), "the directory has no such entry")
}
