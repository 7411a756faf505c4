package find

import (
	"bytes"
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
	top, err := disk.Lookup(fsys, path)
	if err != nil {
		return err
	}
	if top.Type() != disk.ModeDir {
		return fmt.Errorf("%.300q: %w: it is no folder", path, disk.ErrUnsupported)
	}
	f := &finder[uint64]{ctx: ctx, from: filesystem{fsys}, opts: opts, found: found}
	return f.folder(bytes.Trim(path, "/"), trees[uint64]{{top.Ino, []int{0}}}, 0)
}

// filesystem is the folders of one, by their inode numbers.
type filesystem struct{ disk.Filesystem }

func (s filesystem) read(ino uint64, yield func(*repository.Node, uint64) error, damaged func([]byte, error) error) error {
	entries, unread := disk.List(s, ino)
	for _, e := range entries {
		n, err := s.node(&e)
		if err == nil {
			err = yield(n, e.Ino)
		} else {
			err = damaged(e.Name, err)
		}
		if err != nil {
			return err
		}
	}
	return unread
}

// node tells of a file what is asked for, and shown.
func (s filesystem) node(e *disk.DirEntry) (*repository.Node, error) {
	inode, err := s.Inode(e.Ino)
	if err != nil {
		return nil, err
	}
	kind, _ := repository.TypeOf(inode.Mode)
	n := &repository.Node{
		Name: string(e.Name), Type: kind, Mode: repository.FileMode(inode.Mode), UID: inode.UID, GID: inode.GID,
		ModTime: time.Unix(inode.Modify.Sec, int64(inode.Modify.Nsec)),
	}
	switch kind {
	case repository.NodeFile:
		n.Size = uint64(max(0, inode.Size))
	case repository.NodeSymlink:
		target, err := s.Readlink(inode.Ino)
		if err != nil {
			return nil, err
		}
		n.LinkTarget = string(target)
	}
	return n, nil
}

func (filesystem) isDamage(err error) bool {
	var damage *disk.Error
	return errors.As(err, &damage)
}
