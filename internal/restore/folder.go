package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

// folder is a folder of the target that is being filled. Its owner alone gets in
// until it is whole.
//
// The guest chose the names and the links that are made here. It may have put a
// symlink "var -> /etc" and a folder "var" into one directory, names such as
// "../x", or hope that the target already has a symlink where it has a folder.
// Therefore every name is one component, checked by [validName]; a folder is
// entered only when it is no symlink; and all is done relative to a descriptor of
// the folder, through [os.Root], which refuses to leave it even if somebody swaps
// folders for symlinks meanwhile. System calls that os.Root lacks are made relative
// to that descriptor, and do not follow a symlink in the one component they get.
type folder struct {
	root  *os.Root
	fd    *os.File // of the same folder
	path  []byte   // in the source
	inode disk.Inode
	depth int
}

// newFolder takes over root.
func newFolder(root *os.Root, path []byte, inode disk.Inode, depth int) (*folder, error) {
	fd, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, onTarget(err)
	}
	return &folder{root, fd, path, inode, depth}, nil
}

func (d *folder) close() {
	d.fd.Close()
	_ = d.root.Close()
}

// place is a name in a folder of the target.
type place struct {
	in   *folder
	name string
}

// self is the folder itself.
func (d *folder) self() place { return place{d, "."} }

// join is the path in the source of a name in the folder.
func (d *folder) join(name string) []byte {
	path := append(bytes.Clone(d.path), '/')
	if d.depth == 0 {
		path = path[:1]
	}
	return append(path, name...)
}

// children restores what is wanted of the content of a folder.
func (r *restorer) children(d *folder, w *want) error {
	if err := r.fail(d.path, r.sweep(d)); err != nil {
		return err
	}
	entries, err := disk.List(r.fsys, d.inode.Ino)
	if err := r.fail(d.path, err); err != nil {
		return err
	}
	r.held += len(entries)
	defer func() { r.held -= len(entries) }()
	if r.held > maxHeld {
		return r.fail(d.path, r.limit("it and those above it have more than %d entries", maxHeld))
	}
	if r.entries += int64(len(entries)); r.entries > r.opts.MaxEntries {
		return r.fail(d.path, fmt.Errorf("%w: there are more than %d files and folders (restore a part of it)", disk.ErrLimit, r.opts.MaxEntries))
	}
	for _, e := range entries {
		if err := r.ctx.Err(); err != nil {
			return r.fail(d.path, err)
		}
		below := w
		if !w.all {
			if below = w.below[string(e.Name)]; below == nil {
				continue
			}
		}
		name := string(e.Name)
		if err := r.fail(d.join(name), r.entry(d, name, e.Ino, below)); err != nil {
			return err
		}
		if r.opts.Progress != nil {
			r.opts.Progress(r.report)
		}
	}
	return nil
}

// visit refuses what would never end: a folder that is in itself, or in so many
// others that all paths to it cannot be walked.
func (r *restorer) visit(ino uint64, depth int) error {
	switch {
	case r.visited[ino]:
		return r.damaged("directory", "it is in two places, and restored at the first")
	case depth > maxDepth:
		return r.limit("it lies more than %d folders deep", maxDepth)
	case len(r.visited) == maxVisited:
		return r.limit("there are more than %d folders", maxVisited)
	}
	r.visited[ino] = true
	return nil
}

func (r *restorer) limit(format string, args ...any) error {
	return &disk.Error{Layer: r.fsys.Info().Type, Structure: "directory", Offset: -1, Err: disk.ErrLimit, Detail: fmt.Sprintf(format, args...)}
}

// validName reports whether name can be that of something in a folder.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

func (r *restorer) entry(d *folder, name string, ino uint64, w *want) error {
	if !validName(name) {
		return r.damaged("directory", "the name %.300q is not one that a folder can hold", name)
	}
	if n := len(d.path) + len("/") + len(name); n > maxPath {
		return r.limit("the path has %d bytes, more than %d", n, maxPath)
	}
	inode, err := r.fsys.Inode(ino)
	if err != nil {
		return err
	}
	if inode.Type() != disk.ModeDir {
		return r.leaf(d, name, inode)
	}
	if err := r.visit(ino, d.depth+1); err != nil {
		return err
	}
	sub, made, err := r.enter(d, name, inode)
	if err != nil {
		return err
	}
	defer sub.close()
	if err := r.children(sub, w); err != nil {
		return err
	}
	r.report.Dirs++
	if made || w.all {
		err := r.attributes(sub.self(), sub.path, inode)
		r.noteFlags(sub.path, inode)
		return err
	}
	return nil
}

// enter makes a folder, or takes the one that is there, and opens it.
func (r *restorer) enter(d *folder, name string, inode disk.Inode) (sub *folder, made bool, err error) {
	there, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		made = true
	case err != nil:
		return nil, false, onTarget(err)
	case !r.opts.Overwrite:
		return nil, false, onTarget(&fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist})
	case !there.IsDir():
		if err := d.root.Remove(name); err != nil {
			return nil, false, onTarget(err)
		}
		made = true
	}
	if made {
		if err := d.root.Mkdir(name, 0o700); err != nil {
			return nil, false, onTarget(err)
		}
		if there, err = d.root.Lstat(name); err != nil {
			return nil, false, onTarget(err)
		}
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, false, onTarget(err)
	}
	if sub, err = newFolder(root, d.join(name), inode, d.depth+1); err != nil {
		return nil, false, err
	}
	info, err := sub.fd.Stat()
	if err == nil && !os.SameFile(info, there) {
		err = fmt.Errorf("%w: somebody replaces folders in it", ErrTarget)
	}
	if err != nil {
		sub.close()
		return nil, false, onTarget(err)
	}
	return sub, made, nil
}
