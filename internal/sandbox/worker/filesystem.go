package worker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// maxOpenFiles is how many files are kept ready to be read. It covers what a
// backup reads at the same time, many times over.
const maxOpenFiles = 64

// filesystem is a filesystem on the disk, and what is kept between requests
// about it.
type filesystem struct {
	disk.Filesystem

	mu     sync.Mutex // guards what follows
	files  map[uint64]disk.Sparse
	order  []uint64     // the keys of files, oldest first
	paused []*dirReader // oldest first
}

// mount opens the filesystem in a volume.
func (d *openDisk) mount(r wire.Mount, b []byte) ([]byte, error) {
	fs, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	info := fs.Info()
	info.Label = clip(info.Label, wire.MaxLabel)
	if err := wire.CheckInfo(info); err != nil {
		return nil, damaged("superblock", err)
	}
	return wire.AppendInfo(b, info), nil
}

// mounted returns the filesystem in a volume, opened once.
func (d *openDisk) mounted(volume uint32) (*filesystem, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fs := d.mounts[volume]; fs != nil {
		return fs, nil
	}
	content, err := d.volume(volume)
	if err != nil {
		return nil, err
	}
	fs, err := openFilesystem(content, volume)
	if err != nil {
		return nil, err
	}
	d.mounts[volume] = &filesystem{Filesystem: fs, files: make(map[uint64]disk.Sparse)}
	return d.mounts[volume], nil
}

// damaged says that a reader returned what package disk rules out.
func damaged(structure string, err error) error {
	return &disk.Error{Layer: "reader", Structure: structure, Offset: -1, Err: disk.ErrCorrupt, Detail: err.Error()}
}

func nodeName(ino uint64) string { return fmt.Sprintf("inode %d", ino) }

// open returns the content of a file.
func (fs *filesystem) open(ino uint64) (disk.Sparse, error) {
	fs.mu.Lock()
	f := fs.files[ino]
	fs.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := fs.Open(ino)
	if err != nil {
		return nil, err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.files[ino] != nil {
		return f, nil // another request was faster
	}
	if len(fs.order) == maxOpenFiles {
		delete(fs.files, fs.order[0])
		fs.order = append(fs.order[:0], fs.order[1:]...)
	}
	fs.files[ino] = f
	fs.order = append(fs.order, ino)
	return f, nil
}

func (fs *filesystem) checkedInode(ino uint64) (disk.Inode, error) {
	n, err := fs.Inode(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	if err := wire.CheckInode(&n, ino); err != nil {
		return disk.Inode{}, damaged(nodeName(ino), err)
	}
	return n, nil
}

func (fs *filesystem) checkedTarget(ino uint64) ([]byte, error) {
	target, err := fs.Readlink(ino)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckTarget(target); err != nil {
		return nil, damaged(nodeName(ino), err)
	}
	return target, nil
}

func (fs *filesystem) checkedXattrs(ino uint64) ([]disk.Xattr, error) {
	list, err := fs.Xattrs(ino)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckXattrs(list); err != nil {
		return nil, damaged("extended attributes of "+nodeName(ino), err)
	}
	return list, nil
}

func (d *openDisk) inode(r wire.Node, b []byte) ([]byte, error) {
	fs, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	n, err := fs.checkedInode(r.Ino)
	if err != nil {
		return nil, err
	}
	return wire.AppendInode(b, &n), nil
}

func (d *openDisk) readlink(r wire.Node, b []byte) ([]byte, error) {
	fs, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	target, err := fs.checkedTarget(r.Ino)
	if err != nil {
		return nil, err
	}
	return append(b, target...), nil
}

func (d *openDisk) xattrs(r wire.Node, b []byte) ([]byte, error) {
	fs, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	list, err := fs.checkedXattrs(r.Ino)
	if err != nil {
		return nil, err
	}
	return wire.AppendXattrs(b, list), nil
}

// readMany answers with the content of small files.
func (d *openDisk) readMany(r wire.ReadMany, b []byte) ([]byte, error) {
	fs, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	slot := d.slot(r.Slot)
	for _, f := range r.Files {
		b = wire.AppendContent(b, fs.readSmall(f, slot[:f.Size]))
		slot = slot[f.Size:]
	}
	return b, nil
}

// readSmall reads the content of one small file to p, or says that it is to be
// asked for alone if anything is wrong. It does not keep the file open: who
// reads small files reads each once.
func (fs *filesystem) readSmall(f wire.SmallFile, p []byte) wire.Content {
	content, err := fs.Open(f.Ino)
	if err != nil || content.Size() != int64(f.Size) {
		return wire.Content{}
	}
	extents, err := listExtents(content, 0, int64(f.Size), wire.MaxManyExtents+1)
	if err != nil {
		return wire.Content{}
	}
	if err := readExactly(content, p, 0); err != nil {
		return wire.Content{}
	}
	return wire.Content{Told: true, Extents: extents}
}

// errEnough stops a reader's iteration.
var errEnough = errors.New("enough")
