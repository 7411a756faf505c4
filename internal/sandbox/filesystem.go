package sandbox

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// filesystem is a guest's filesystem that the worker reads. It implements
// [disk.Filesystem].
type filesystem struct {
	client *client
	volume uint32
	info   disk.FilesystemInfo
	nodes  nodeCache
	small  smallReader
}

var _ disk.Filesystem = (*filesystem)(nil)

func newFilesystem(c *client, volume uint32, info disk.FilesystemInfo) *filesystem {
	return &filesystem{
		client: c, volume: volume, info: info,
		nodes: nodeCache{entries: make(map[uint64]*wire.Entry)},
		small: smallReader{client: c, volume: volume, files: make(map[uint64]*smallFile)},
	}
}

func (fs *filesystem) Info() disk.FilesystemInfo { return fs.info }

func (fs *filesystem) node(ino uint64) wire.Node { return wire.Node{Volume: fs.volume, Ino: ino} }

// ask sends a request and waits for its answer.
func (fs *filesystem) ask(op wire.Op, r request) (*call, error) {
	k, err := fs.client.send(op, r)
	if err != nil {
		return nil, err
	}
	<-k.done
	return k, k.err
}

func (fs *filesystem) Inode(ino uint64) (disk.Inode, error) {
	if e := fs.nodes.get(ino); e != nil && e.Inode != nil {
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
	if e := fs.nodes.get(ino); e != nil && e.Target != nil {
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
	if e := fs.nodes.get(ino); e != nil && e.HasXattrs {
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
	n, err := fs.Inode(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, &disk.Error{Layer: fs.info.Type, Structure: fmt.Sprintf("inode %d", ino), Offset: -1,
			Err: disk.ErrUnsupported, Detail: "it is no regular file and has no content"}
	}
	return &file{
		fs: fs, ino: ino,
		content: newContent(fs.client, wire.Object{Kind: wire.ObjectFile, Node: fs.node(ino)}, n.Size),
	}, nil
}

func (fs *filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	seen := nameSet{seed: maphash.MakeSeed(), hashes: make(map[uint64]struct{})}
	list := new(listing)
	req := wire.ReadDir{Node: fs.node(ino)}
	next, err := fs.client.send(wire.OpReadDir, req)
	for next != nil {
		k := next
		<-k.done
		if k.err != nil {
			return k.err
		}
		var page wire.DirPage
		if page, err = wire.DecodeDirPage(k.body); err != nil {
			return fs.client.lied(k, err)
		}
		// The worker reads the next page while the caller looks at this one.
		if req.Skip += uint64(len(page.Entries)); req.Skip > wire.MaxDirEntries {
			return fs.client.lied(k, fmt.Errorf("a directory has more than %d entries", wire.MaxDirEntries))
		}
		next = nil
		if !page.Last {
			if next, err = fs.client.send(wire.OpReadDir, req); err != nil {
				return err
			}
		}
		fs.nodes.add(page.Entries, len(k.body))
		fs.small.add(list, page.Entries, page.Last)
		for i := range page.Entries {
			e := page.Entries[i].DirEntry
			if !seen.add(e.Name) {
				return fs.client.lied(k, fmt.Errorf("the name %q is twice in the directory", e.Name))
			}
			if err := yield(e); err != nil {
				return err
			}
		}
	}
	return err
}

// nameSet tells whether a name was there before. It keeps 64 bits of each,
// hashed with a secret seed: a false alarm, which a name that is there once
// could cause, happens in one of 37 million directories of a million files.
type nameSet struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

func (s *nameSet) add(name []byte) bool {
	h := maphash.Bytes(s.seed, name)
	if _, twice := s.hashes[h]; twice {
		return false
	}
	s.hashes[h] = struct{}{}
	return true
}

// maxNodeBytes bounds the memory of a nodeCache. It holds some 60,000 files:
// the largest directories that are listed first and looked at afterwards.
const maxNodeBytes = 24 << 20

// entrySize is what a decoded entry takes beside the bytes of its page.
const entrySize = 300

// nodeCache keeps what directory pages told about files, the latest pages.
type nodeCache struct {
	mu      sync.Mutex // guards what follows
	entries map[uint64]*wire.Entry
	pages   []nodePage // oldest first
	size    int
}

type nodePage struct {
	entries []wire.Entry
	size    int
}

func (c *nodeCache) get(ino uint64) *wire.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[ino]
}

// add adds a page whose payload had length bytes.
func (c *nodeCache) add(entries []wire.Entry, length int) {
	p := nodePage{entries: entries, size: length + len(entries)*entrySize}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range entries {
		c.entries[entries[i].Ino] = &entries[i]
	}
	c.pages = append(c.pages, p)
	c.size += p.size
	for c.size > maxNodeBytes && len(c.pages) > 1 {
		old := c.pages[0]
		c.pages = c.pages[1:]
		c.size -= old.size
		for i := range old.entries {
			// A later page may know the same file under another name.
			if ino := old.entries[i].Ino; c.entries[ino] == &old.entries[i] {
				delete(c.entries, ino)
			}
		}
	}
}
