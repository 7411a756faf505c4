package find

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// InFilesystem searches a filesystem, from the folder at path on, which paths of
// what is found begin with. It stands for one snapshot: each file is one [Version], in the
// snapshot of index 0. Folders and files that cannot be read are reported as
// Damaged.
func InFilesystem(ctx context.Context, fsys disk.Filesystem, path []byte, opts Options, found func(*File) error) error {
	w := &walker{finder: finder{ctx: ctx, opts: opts, found: found}, fsys: fsys}
	top, err := disk.Lookup(fsys, path)
	if err != nil {
		return err
	}
	if top.Type() != disk.ModeDir {
		return fmt.Errorf("%.300q: %w: it is no folder", path, disk.ErrUnsupported)
	}
	return w.folder(trim(path), top.Ino, 0)
}

// trim returns a path as it is joined with names: without a slash around it.
func trim(path []byte) []byte {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return path
}

// walker does one search in a filesystem.
type walker struct {
	finder
	fsys disk.Filesystem
}

func (w *walker) folder(path []byte, ino uint64, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	if depth > maxDepth {
		return w.unreadable(path, fmt.Errorf("%w: it lies more than %d folders deep", disk.ErrLimit, maxDepth))
	}
	if w.read++; w.read > maxRead {
		return fmt.Errorf("%w: there are more than %d folders", ErrTooMuch, maxRead)
	}
	entries, err := disk.List(w.fsys, ino)
	if err != nil {
		if err := w.unreadable(path, err); err != nil {
			return err
		}
	}
	before := w.held
	defer func() { w.held = before }()
	if w.held += len(entries) * refSize; w.held > maxHeld {
		return fmt.Errorf("/%.300q: %w: more than %d bytes", path, ErrTooMuch, maxHeld)
	}
	for _, e := range entries {
		if err := w.entry(join(path, string(e.Name)), &e, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry looks at a file, and, if it is a folder, at what is in it.
func (w *walker) entry(path []byte, e *disk.DirEntry, depth int) error {
	inode, err := w.fsys.Inode(e.Ino)
	if err != nil {
		return w.unreadable(path, err)
	}
	n, err := w.node(string(e.Name), &inode)
	if err != nil {
		return w.unreadable(path, err)
	}
	if w.matches(path, n) {
		if err := w.found(&File{Path: append([]byte("/"), path...), Versions: []*Version{{Node: n, Snapshots: []int{0}}}}); err != nil {
			return err
		}
	}
	if n.Type != repository.NodeDir {
		return nil
	}
	return w.folder(path, e.Ino, depth+1)
}

// node tells of a file what is asked for, and shown.
func (w *walker) node(name string, inode *disk.Inode) (*repository.Node, error) {
	kind, _ := repository.TypeOf(inode.Mode)
	n := &repository.Node{
		Name: name, Type: kind, Mode: repository.FileMode(inode.Mode), UID: inode.UID, GID: inode.GID,
		ModTime: time.Unix(inode.Modify.Sec, int64(inode.Modify.Nsec)),
	}
	switch kind {
	case repository.NodeFile:
		n.Size = uint64(max(0, inode.Size))
	case repository.NodeSymlink:
		target, err := w.fsys.Readlink(inode.Ino)
		if err != nil {
			return nil, err
		}
		n.LinkTarget = string(target)
	}
	return n, nil
}

// unreadable reports an error that one file or folder is to blame for, and returns
// any other.
func (w *walker) unreadable(path []byte, err error) error {
	var damage *disk.Error
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if !errors.As(err, &damage) && !errors.Is(err, disk.ErrLimit) {
		return err
	}
	if w.opts.Damaged != nil {
		w.opts.Damaged(append([]byte("/"), path...), err)
	}
	return nil
}
