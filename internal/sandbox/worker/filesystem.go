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

// tree is a filesystem on the disks, or a guest's tree of several, and what is
// kept between requests about it.
type tree struct {
	disk.Filesystem
	place func(ino uint64) place // of a file's content
	// subvolumes lists those of btrfs, once: there may be many pages of them.
	subvolumes func() ([]disk.Subvolume, error)

	mu     sync.Mutex // guards what follows
	files  map[uint64]disk.Sparse
	order  []uint64     // the keys of files, oldest first
	paused []*dirReader // oldest first
}

func newTree(fs disk.Filesystem, place func(uint64) place) *tree {
	return &tree{Filesystem: fs, place: place, files: make(map[uint64]disk.Sparse), subvolumes: sync.OnceValues(func() ([]disk.Subvolume, error) {
		if lister, ok := fs.(disk.SubvolumeLister); ok {
			return lister.Subvolumes()
		}
		return nil, nil
	})}
}

// tree returns a tree that was opened.
func (d *reader) tree(number uint32) (*tree, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.trees[number]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: tree %d is not open", errProtocol, number)
}

// damaged says that a reader returned what package disk rules out.
func damaged(structure string, err error) error {
	return &disk.Error{Layer: "reader", Structure: structure, Offset: -1, Err: disk.ErrCorrupt, Detail: err.Error()}
}

func nodeName(ino uint64) string { return fmt.Sprintf("inode %d", ino) }

// open returns the content of a file.
func (t *tree) open(ino uint64) (disk.Sparse, error) {
	t.mu.Lock()
	f := t.files[ino]
	t.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := t.Open(ino)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.files[ino] != nil {
		return f, nil // another request was faster
	}
	if len(t.order) == maxOpenFiles {
		delete(t.files, t.order[0])
		t.order = append(t.order[:0], t.order[1:]...)
	}
	t.files[ino] = f
	t.order = append(t.order, ino)
	return f, nil
}

func (t *tree) checkedInode(ino uint64) (disk.Inode, error) {
	n, err := t.Inode(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	if err := wire.CheckInode(&n, ino); err != nil {
		return disk.Inode{}, damaged(nodeName(ino), err)
	}
	return n, nil
}

func (t *tree) checkedTarget(ino uint64) ([]byte, error) {
	target, err := t.Readlink(ino)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckTarget(target); err != nil {
		return nil, damaged(nodeName(ino), err)
	}
	return target, nil
}

func (t *tree) checkedXattrs(ino uint64) ([]disk.Xattr, error) {
	list, err := t.Xattrs(ino)
	if err != nil {
		return nil, err
	}
	if err := wire.CheckXattrs(list); err != nil {
		return nil, damaged("extended attributes of "+nodeName(ino), err)
	}
	return list, nil
}

func (d *reader) inode(r wire.Node, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	n, err := t.checkedInode(r.Ino)
	if err != nil {
		return nil, err
	}
	return wire.AppendInode(b, &n), nil
}

func (d *reader) readlink(r wire.Node, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	target, err := t.checkedTarget(r.Ino)
	if err != nil {
		return nil, err
	}
	return append(b, target...), nil
}

func (d *reader) xattrs(r wire.Node, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	list, err := t.checkedXattrs(r.Ino)
	if err != nil {
		return nil, err
	}
	return wire.AppendXattrs(b, list), nil
}

// readMany answers with the content of small files.
func (d *reader) readMany(r wire.ReadMany, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	slot := d.slot(r.Slot)
	for _, f := range r.Files {
		b = wire.AppendContent(b, t.readSmall(f, slot[:f.Size]))
		slot = slot[f.Size:]
	}
	return b, nil
}

// readSmall reads the content of one small file to p, or says that it is to be
// asked for alone if anything is wrong. It does not keep the file open: who
// reads small files reads each once.
func (t *tree) readSmall(f wire.SmallFile, p []byte) wire.Content {
	content, err := t.Open(f.Ino)
	if err != nil || content.Size() != int64(f.Size) {
		return wire.Content{}
	}
	extents, err := listExtents(content, 0, int64(f.Size), wire.MaxManyPieces+1)
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
