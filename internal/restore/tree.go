package restore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Tree is the tree of a snapshot as a filesystem, so that a backup is looked into,
// packed and restored by the code that does so with a live disk. It implements
// [disk.Filesystem]: a node that is damaged is a [*disk.Error], and any other error
// is one of the repository's storage.
//
// Inode numbers are made up as folders are read, and hold for this Tree only.
// Names that were hardlinks of one file have one number. The root directory has
// made-up attributes, because a snapshot does not keep them.
type Tree struct {
	ctx     context.Context
	repo    *repository.Repository
	info    disk.FilesystemInfo
	made    time.Time // of the snapshot
	unread  error     // index files that could not be read, or nil
	folders folderCache
	blobs   *blobCache

	history []repository.Node // the root folder, where that is made up of snapshots

	mu    sync.Mutex        // guards what follows
	dirs  []dir             // the folders that were seen
	byIno map[uint64]int    // inode number to index in dirs
	links map[linkID]uint64 // hardlinked file to inode number

	longMu  sync.Mutex // guards what follows
	longIno uint64     // of long, or 0
	long    *repository.Node
}

var _ disk.Filesystem = (*Tree)(nil)

// dir is a folder that was seen.
type dir struct {
	id       repository.ID // of its tree blob
	snapshot int32         // which of several it belongs to
}

// linkID is the identity of a file in the filesystem that was backed up.
type linkID struct {
	snapshot      int32
	device, inode uint64
	kind          repository.NodeType
}

const (
	rootIno = 1
	// positionBits are the bits of an inode number that say which node of its
	// folder it is; the others say which folder, counted from 1. The repository
	// refuses folders of more nodes than fit.
	positionBits = 21
	// maxFolders is how many folders a tree can have. Folders of equal content
	// are stored once, so a few blobs can be more folders than anybody can
	// visit. It costs some 300 MB to get there.
	maxFolders = 1 << 22
	// maxLinks is how many hardlinked files are known as such; further ones are
	// files of their own. It costs some 80 MB to get there.
	maxLinks = 1 << 20
)

// OpenTree opens the tree of a snapshot. It loads the index. The caller holds a
// lock of the repository, or takes it that a blob goes missing when somebody prunes
// meanwhile. Everything that the Tree reads is read with ctx.
func OpenTree(ctx context.Context, repo *repository.Repository, snapshot *repository.Snapshot) (*Tree, error) {
	t := newTree(ctx, repo, snapshot.Time, snapshot.Tree)
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("open backup %s: %w", snapshot.ID.Short(), err)
	}
	return t, nil
}

func newTree(ctx context.Context, repo *repository.Repository, made time.Time, root repository.ID) *Tree {
	return &Tree{
		ctx: ctx, repo: repo, made: made,
		info:  disk.FilesystemInfo{Type: "backup", Root: rootIno},
		blobs: newBlobCache(ctx, repo),
		dirs:  []dir{{id: root}},
		byIno: map[uint64]int{rootIno: 0},
		links: map[linkID]uint64{},
	}
}

// load loads the index and the root folder.
func (t *Tree) load() error {
	if t.unread = t.repo.LoadIndex(t.ctx); t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	_, err := t.folder(0)
	return err
}

// Info describes the tree. Sizes and numbers of inodes are not known, and 0.
func (t *Tree) Info() disk.FilesystemInfo { return t.info }

// nodeTypes are the types of st_mode by type of node. Others have none.
var nodeTypes = map[repository.NodeType]uint32{
	repository.NodeFile:    disk.ModeRegular,
	repository.NodeDir:     disk.ModeDir,
	repository.NodeSymlink: disk.ModeSymlink,
	repository.NodeDev:     disk.ModeBlock,
	repository.NodeCharDev: disk.ModeChar,
	repository.NodeFIFO:    disk.ModeFIFO,
	repository.NodeSocket:  disk.ModeSocket,
}

// Inode returns the attributes of a node. Its Links are those of the file that was
// backed up, which may have had names that were not.
func (t *Tree) Inode(ino uint64) (disk.Inode, error) {
	if ino == rootIno {
		at := diskTime(t.made)
		return disk.Inode{Ino: ino, Mode: disk.ModeDir | 0o755, Links: 1, Access: at, Modify: at, Change: at}, nil
	}
	n, err := t.node(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	// The type alone says what it is: a mode that says otherwise is a lie.
	const permissions = 0o7777
	inode := disk.Inode{
		Ino: ino, Flags: disk.FlagsOf(n.Flags()), Mode: nodeTypes[n.Type] | repository.UnixMode(n.Mode)&permissions, UID: n.UID, GID: n.GID,
		Links:  uint32(min(max(n.Links, 1), math.MaxUint32)),
		Access: diskTime(n.AccessTime), Modify: diskTime(n.ModTime), Change: diskTime(n.ChangeTime),
	}
	if inode.Flags&disk.FlagSubvolume != 0 {
		inode.Subvolume = disk.SubvolumeOf(n.Inode)
	}
	switch n.Type {
	case repository.NodeFile:
		if n.Size > math.MaxInt64 {
			return disk.Inode{}, damaged(n, "its size is %d bytes, more than a file can have", n.Size)
		}
		inode.Size = int64(n.Size)
	case repository.NodeSymlink:
		inode.Size = int64(len(n.LinkTarget))
	case repository.NodeDev, repository.NodeCharDev:
		inode.Rdev = disk.Device{Major: unix.Major(n.Device), Minor: unix.Minor(n.Device)}
	}
	return inode, nil
}

// ReadDir lists a folder, in ascending byte order of the names.
func (t *Tree) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	t.mu.Lock()
	dir, ok := t.byIno[ino]
	t.mu.Unlock()
	if !ok {
		if n, err := t.node(ino); err != nil {
			return err
		} else {
			return damaged(n, "it is a %s, not a directory", n.Type)
		}
	}
	nodes, err := t.folder(dir)
	if err != nil {
		return err
	}
	for i := range nodes {
		n := &nodes[i]
		e := disk.DirEntry{Name: []byte(n.Name), Ino: t.number(dir, i, n), Type: nodeTypes[n.Type]}
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

// Readlink returns the target of a symlink, as it was backed up.
func (t *Tree) Readlink(ino uint64) ([]byte, error) {
	n, err := t.node(ino)
	if err != nil {
		return nil, err
	}
	if n.Type != repository.NodeSymlink {
		return nil, damaged(n, "it is a %s, not a symlink", n.Type)
	}
	return []byte(n.LinkTarget), nil
}

// Xattrs returns the extended attributes, sorted by name.
func (t *Tree) Xattrs(ino uint64) ([]disk.Xattr, error) {
	if ino == rootIno {
		return nil, nil
	}
	n, err := t.node(ino)
	if err != nil {
		return nil, err
	}
	xattrs, err := n.AllXattrs()
	if err != nil {
		return nil, damaged(n, "%v", err)
	}
	var list []disk.Xattr
	for _, x := range xattrs {
		list = append(list, disk.Xattr{Name: []byte(x.Name), Value: slices.Clone(x.Value)})
	}
	return list, nil
}

// Identity returns what tells the content of a file, or all that is in a folder with
// all its attributes, from any other of this repository that has the same size: the hash
// of the tree blob, or of the names of the file's pieces. It is false where none is known.
func (t *Tree) Identity(ino uint64) ([32]byte, bool) {
	t.mu.Lock()
	dir, isDir := t.byIno[ino]
	var id repository.ID
	if isDir {
		id = t.dirs[dir].id
	}
	t.mu.Unlock()
	if isDir {
		return id, !id.IsZero()
	}
	n, err := t.node(ino)
	if err != nil || n.Type != repository.NodeFile {
		return [32]byte{}, false
	}
	h := sha256.New()
	for _, piece := range n.Content {
		h.Write(piece[:])
	}
	return [32]byte(h.Sum(nil)), true
}

// Open returns the content of a file. Its holes are those that the backup knows of;
// in a file without a record of them, pieces of zeros are extents of zeros.
func (t *Tree) Open(ino uint64) (disk.Sparse, error) {
	n, err := t.node(ino)
	if err != nil {
		return nil, err
	}
	if n.Type != repository.NodeFile {
		return nil, damaged(n, "it is a %s, not a regular file", n.Type)
	}
	if n.Long > 0 {
		if n, err = t.longNode(ino, n.Name); err != nil {
			return nil, err
		}
	}
	return t.openContent(n)
}

// longNode returns a node with all of its content, which is long. The last one is kept.
func (t *Tree) longNode(ino uint64, name string) (*repository.Node, error) {
	t.longMu.Lock()
	defer t.longMu.Unlock()
	if t.longIno == ino {
		return t.long, nil
	}
	t.longIno, t.long = 0, nil // before the next one takes as much
	t.mu.Lock()
	id := t.dirs[ino>>positionBits-1].id
	t.mu.Unlock()
	nodes, err := t.repo.Children(t.ctx, id, name)
	if err != nil {
		return nil, t.failed("folder "+id.Short(), err)
	}
	t.longIno, t.long = ino, nodes[0]
	return t.long, nil
}

// node returns the node that has an inode number, which a folder handed out.
func (t *Tree) node(ino uint64) (*repository.Node, error) {
	dir, position := ino>>positionBits, ino&(1<<positionBits-1)
	t.mu.Lock()
	known := dir > 0 && dir <= uint64(len(t.dirs))
	t.mu.Unlock()
	if known {
		nodes, err := t.folder(int(dir - 1))
		if err != nil {
			return nil, err
		}
		if position < uint64(len(nodes)) {
			return &nodes[position], nil
		}
	}
	return nil, &disk.Error{Layer: t.info.Type, Structure: fmt.Sprintf("inode %d", ino), Offset: -1, Err: disk.ErrNotExist}
}

// number is the inode number of node i of folder dir, which [Tree.folder] has seen.
func (t *Tree) number(dir, i int, n *repository.Node) uint64 {
	if linked(n) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if ino, ok := t.links[linkID{t.dirs[dir].snapshot, n.DeviceID, n.Inode, n.Type}]; ok {
			return ino
		}
	}
	return inoOf(dir, i)
}

func inoOf(dir, i int) uint64 { return uint64(dir+1)<<positionBits | uint64(i) }

func linked(n *repository.Node) bool {
	return n.Type != repository.NodeDir && n.Links > 1 && n.Inode != 0
}

// folder returns the nodes of folder dir, which are not to be changed.
func (t *Tree) folder(dir int) ([]repository.Node, error) {
	if dir == 0 && t.history != nil {
		return t.history, t.register(0, t.history)
	}
	if nodes, ok := t.folders.get(dir); ok {
		return nodes, nil
	}
	t.mu.Lock()
	id := t.dirs[dir].id
	t.mu.Unlock()
	tree, err := t.repo.LoadTree(t.ctx, id)
	if err != nil {
		return nil, t.failed("folder "+id.Short(), err)
	}
	// Without the lists of large files: Open reads them again.
	var nodes []repository.Node
	err = tree.WalkBrief(func(n *repository.Node) error {
		nodes = append(nodes, *n)
		return nil
	})
	if err != nil {
		return nil, t.failed("folder "+id.Short(), err)
	}
	if err := t.register(dir, nodes); err != nil {
		return nil, err
	}
	t.folders.put(dir, nodes, tree.Size())
	return nodes, nil
}

// register makes the folders and the hardlinked files among the nodes of a folder
// known. To do so again changes nothing.
func (t *Tree) register(number int, nodes []repository.Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	snapshot := t.dirs[number].snapshot
	for i := range nodes {
		n, ino := &nodes[i], inoOf(number, i)
		if linked(n) && len(t.links) < maxLinks {
			id := linkID{snapshot, n.DeviceID, n.Inode, n.Type}
			if _, ok := t.links[id]; !ok {
				t.links[id] = ino
			}
		}
		if _, known := t.byIno[ino]; known || n.Type != repository.NodeDir {
			continue
		}
		if len(t.dirs) == maxFolders {
			return &disk.Error{Layer: t.info.Type, Structure: "tree", Offset: -1, Err: disk.ErrLimit,
				Detail: fmt.Sprintf("it has more than %d folders", maxFolders), Hint: "restore a part of it"}
		}
		t.byIno[ino] = len(t.dirs)
		sub := dir{id: *n.Subtree, snapshot: snapshot}
		if number == 0 && t.history != nil {
			sub.snapshot = int32(i)
		}
		t.dirs = append(t.dirs, sub)
	}
	return nil
}

// failed turns an error of the repository that concerns one blob into one of the
// file or folder that needs it. Any other error is of the storage, and passed on.
func (t *Tree) failed(structure string, err error) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	e := &disk.Error{Layer: t.info.Type, Structure: structure, Offset: -1}
	switch {
	case errors.Is(err, repository.ErrBlobNotFound):
		e.Err = fmt.Errorf("%w: %w", disk.ErrCorrupt, errors.Join(err, t.unread))
	case errors.Is(err, repository.ErrDamaged), errors.Is(err, backend.ErrNotExist):
		e.Err = fmt.Errorf("%w: %w", disk.ErrCorrupt, err)
	case errors.Is(err, repository.ErrLimit):
		e.Err = fmt.Errorf("%w: %w", disk.ErrLimit, err)
	default:
		return fmt.Errorf("%s: %w", structure, err)
	}
	return e
}

func damaged(n *repository.Node, format string, args ...any) error {
	return &disk.Error{Layer: "backup", Structure: fmt.Sprintf("node %.300q", n.Name), Offset: -1, Err: disk.ErrCorrupt, Detail: fmt.Sprintf(format, args...)}
}

func diskTime(t time.Time) disk.Time { return disk.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} }
