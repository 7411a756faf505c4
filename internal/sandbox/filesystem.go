package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// filesystem is a guest's filesystem that the worker reads. It implements
// [disk.Filesystem] and [disk.SubvolumeLister].
type filesystem struct {
	client *client
	files  *images
	tree   uint32
	info   disk.FilesystemInfo
	nodes  nodeCache
	small  smallReader
	dirs   tree
}

var (
	_ disk.Filesystem      = (*filesystem)(nil)
	_ disk.SubvolumeLister = (*filesystem)(nil)
)

func newFilesystem(r *Reader, number uint32, info disk.FilesystemInfo) *filesystem {
	fs := &filesystem{
		client: r.client, files: &r.files, tree: number, info: info,
		nodes: nodeCache{nodes: make(map[uint64]node)},
		small: smallReader{client: r.client, tree: number, files: make(map[uint64]*smallFile)},
		dirs:  tree{dirs: make(map[uint64]dirPlace), ahead: make(map[uint64]*aheadPage)},
	}
	fs.nodes.ask = fs.describe
	return fs
}

func (fs *filesystem) Info() disk.FilesystemInfo { return fs.info }

func (fs *filesystem) node(ino uint64) wire.Node { return wire.Node{Tree: fs.tree, Ino: ino} }

// ask sends a request and waits for its answer.
func (fs *filesystem) ask(op wire.Op, r request) (*call, error) {
	k, err := fs.client.send(op, r)
	if err != nil {
		return nil, err
	}
	<-k.done
	return k, k.err
}

// Subvolumes lists those of btrfs. Other filesystems, and a guest's tree, have none.
// Those that were read before an error are returned with it.
func (fs *filesystem) Subvolumes() (list []disk.Subvolume, err error) {
	paths := 0
	err = fs.client.list(context.Background(), wire.OpSubvolumes, fs.tree, maxSubvolumes, func(body []byte, _ uint32) (int, bool, error) {
		page, err := wire.DecodeSubvolumePage(body)
		list = append(list, page.List...)
		for i := range page.List {
			paths += len(page.List[i].Path)
		}
		if err == nil && paths > maxSubvolumePaths {
			err = fmt.Errorf("paths of subvolumes of more than %d bytes", maxSubvolumePaths)
		}
		return len(page.List), page.Last, err
	})
	return list, err
}

func (fs *filesystem) Inode(ino uint64) (disk.Inode, error) {
	e, err := fs.entry(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	if e != nil && e.Inode != nil {
		return *e.Inode, nil
	}
	k, err := fs.ask(wire.OpInode, fs.node(ino))
	if err != nil {
		return disk.Inode{}, err
	}
	n, err := wire.DecodeInode(k.body, ino)
	if err != nil {
		return disk.Inode{}, fs.client.lied(k, err)
	}
	return n, nil
}

func (fs *filesystem) Readlink(ino uint64) ([]byte, error) {
	if e := fs.nodes.known(ino); e != nil && e.Target != nil {
		return bytes.Clone(e.Target), nil
	}
	k, err := fs.ask(wire.OpReadlink, fs.node(ino))
	if err != nil {
		return nil, err
	}
	target, err := wire.DecodeTarget(k.body)
	if err != nil {
		return nil, fs.client.lied(k, err)
	}
	return target, nil
}

func (fs *filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	if e := fs.nodes.known(ino); e != nil && e.HasXattrs {
		// Copies, so that one that is kept does not keep a whole page.
		var list []disk.Xattr
		for _, x := range e.Xattrs {
			list = append(list, disk.Xattr{Name: bytes.Clone(x.Name), Value: bytes.Clone(x.Value)})
		}
		return list, nil
	}
	k, err := fs.ask(wire.OpXattrs, fs.node(ino))
	if err != nil {
		return nil, err
	}
	list, err := wire.DecodeXattrs(k.body)
	if err != nil {
		return nil, fs.client.lied(k, err)
	}
	return list, nil
}

func (fs *filesystem) Open(ino uint64) (disk.Sparse, error) {
	if e := fs.nodes.open(ino); e != nil && e.Pieces != nil {
		return &located{fs: fs, ino: ino, size: e.Inode.Size, pieces: e.Pieces}, nil
	} else if e != nil && e.Content != nil {
		return fs.held(ino, e.Content), nil
	}
	n, err := fs.Inode(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, &disk.Error{Layer: fs.info.Type, Structure: fmt.Sprintf("inode %d", ino), Offset: -1,
			Err: disk.ErrUnsupported, Detail: "it is no regular file and has no content"}
	}
	return &file{fs: fs, ino: ino, content: fs.content(ino, n.Size)}, nil
}

func (fs *filesystem) content(ino uint64, size int64) content {
	return content{client: fs.client, files: fs.files, size: size, object: wire.Object{Kind: wire.ObjectFile, Node: fs.node(ino)}}
}

func (fs *filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	seen := wire.NewNameSet()
	req := wire.ReadDir{Node: fs.node(ino), Contents: fs.nodes.reads()}
	known, asked := fs.dirs.visit(&req)
	if asked != nil {
		var err error
		if known, err = fs.dirs.arrived(asked, ino); err != nil {
			return err
		}
	}
	if known != nil {
		if err := fs.askAhead(known); err != nil {
			return err
		}
		if err := fs.small.anticipate(known.files); err != nil {
			return err
		}
		return fs.yield(known.call, &known.DirPage, seen, yield)
	}
	list, names := newDirectory(ino), new(nameListing)
	req.Names = fs.nodes.large(ino) && fs.nodes.room(names)
	var next *call
	var err error
	if asked != nil && asked.req.Ino == ino {
		next, req = asked.call, asked.req
	} else if next, err = fs.client.send(wire.OpReadDir, req); err != nil {
		return err
	}
	defer fs.small.end(&list.files)
	for next != nil {
		k := next
		<-k.done
		if k.err != nil {
			return k.err
		}
		pages, err := wire.DecodeDirPages(k.body, req, fs.files.sizes)
		if err != nil {
			return fs.client.lied(k, err)
		}
		if req.Skip += uint64(len(pages[0].Entries)); req.Skip > wire.MaxDirEntries {
			return fs.client.lied(k, fmt.Errorf("a directory has more than %d entries", wire.MaxDirEntries))
		}
		// The worker reads the next page while the caller looks at this one.
		next = nil
		named := req.Names
		if !pages[0].Last {
			req.Names = fs.nodes.room(names)
			if next, err = fs.client.send(wire.OpReadDir, req); err != nil {
				return err
			}
		}
		told := pages
		if named {
			fs.nodes.addNames(names, &pages[0])
			told = slices.Clone(pages[1:]) // a part of pages would keep the names
		}
		fs.nodes.addPages(told, len(k.body))
		fs.note(list, &pages[0])
		fs.expect(k, pages[1:], &list.files)
		if pages[0].Last {
			if err := fs.small.anticipate(&list.files); err != nil {
				return err
			}
		}
		if err := fs.yield(k, &pages[0], seen, yield); err != nil {
			return err
		}
	}
	return nil
}

// directory is what is gathered from the pages of a directory.
type directory struct {
	files listing
	dirs  dirListing
	names [][]byte // of dirs
}

func newDirectory(ino uint64) *directory { return &directory{dirs: dirListing{ino: ino}} }

// note remembers what a page tells of the files and the directories in a directory.
func (fs *filesystem) note(list *directory, p *wire.DirPage) {
	fs.small.add(&list.files, p)
	fs.dirs.add(&list.dirs, &list.names, p)
}

// expect remembers directories that are likely to be listed next, the first of them
// after the one that has the files of last.
func (fs *filesystem) expect(k *call, pages []wire.DirPage, last *listing) {
	for i := range pages {
		d := newDirectory(pages[i].Ino)
		fs.note(d, &pages[i])
		fs.small.chain(last, &d.files)
		last = &d.files
		fs.dirs.expect(&aheadPage{DirPage: pages[i], call: k, files: last, dirs: &d.dirs})
	}
}

// yield passes the entries of a page on.
func (fs *filesystem) yield(k *call, p *wire.DirPage, seen *wire.NameSet, yield func(disk.DirEntry) error) error {
	for i := range p.Entries {
		e := p.Entries[i].DirEntry
		if !seen.Add(e.Name) {
			return fs.client.lied(k, fmt.Errorf("the name %q is twice in the directory", e.Name))
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}
