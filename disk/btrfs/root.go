package btrfs

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// maxSubvolumeID is the largest ID that an inode number has room for.
const maxSubvolumeID = disk.MaxIno>>disk.SubvolumeShift - 1

// rootItem is what the reader uses of struct btrfs_root_item.
//
// Layout, little endian; what is behind 0xEF is missing in old filesystems:
//
//	0x00 160 inode         0xB8 8 byte_limit        0xDC 17 drop_progress
//	0xA0 8 generation      0xC0 8 bytes_used        0xED 1 drop_level
//	0xA8 8 root_dirid      0xC8 8 last_snapshot     0xEE 1 level
//	0xB0 8 bytenr          0xD0 8 flags             0xEF 8 generation_v2
//	                       0xD8 4 refs              0xF7 16 uuid
//	                       0x107 16 parent_uuid     0x117 16 received_uuid
//	                       0x127 8 ctransid         0x12F 8 otransid
type rootItem struct {
	pointer
	dir                    uint64 // number of its root directory
	flags                  uint64
	refs                   uint32
	uuid, origin, received [16]byte
	changed, made          uint64
	at                     int64 // of the item
}

const (
	oldRootItemSize = 0xef
	rootItemSize    = 0x1b7
	madeEnd         = 0x137

	rootReadOnly = 1 << 0
)

// parseRoot reads and checks a root item.
func parseRoot(name string, v value) (rootItem, error) {
	raw := v.raw
	if len(raw) != oldRootItemSize && len(raw) < 0x107 || len(raw) > rootItemSize {
		return rootItem{}, layer.Damaged(name, v.at, "a root item of %d bytes", len(raw))
	}
	c := newCursor(raw)
	c.Seek(inodeItemSize)
	r := rootItem{at: v.at}
	r.generation, r.dir, r.block = c.U64(), c.U64(), c.U64()
	c.Seek(0xd0)
	r.flags, r.refs = c.U64(), c.U32()
	c.Seek(0xee)
	r.level = c.U8()
	if len(raw) > oldRootItemSize && c.U64() == r.generation { // else a kernel that does not know it has written since
		copy(r.uuid[:], c.Bytes(16))
		if len(raw) >= madeEnd {
			copy(r.origin[:], c.Bytes(16))
			copy(r.received[:], c.Bytes(16))
			r.changed, r.made = c.U64(), c.U64()
		}
	}
	switch {
	case r.level > maxLevel:
		return rootItem{}, layer.Damaged(name, v.at, "a root of level %d, at most %d is possible", r.level, maxLevel)
	case r.block == 0:
		return rootItem{}, layer.Damaged(name, v.at, "it has no root")
	}
	return r, nil
}

// findRoot returns the root item of the tree with a number. The offset of its
// key is the generation in which a snapshot was made.
func (fs *Filesystem) findRoot(id uint64, name string) (rootItem, error) {
	var w walk
	if err := fs.roots.seekBefore(&w, key{id, kindRoot, maxOffset}); err != nil {
		return rootItem{}, err
	}
	if !w.valid() || !w.key().is(id, kindRoot) {
		return rootItem{}, layer.Absent(name, "the tree of roots does not know it")
	}
	return parseRoot(name, w.value())
}

// openTree opens one of the trees of which there is one.
func (fs *Filesystem) openTree(id uint64, name string) (*tree, error) {
	r, err := fs.findRoot(id, name)
	if err != nil {
		return nil, err
	}
	return &tree{volume: fs.volume, name: name, owner: id, root: r.pointer}, nil
}

// subvolume is a tree of files.
type subvolume struct {
	tree
	id        uint64
	item      rootItem
	isDefault bool
	changes   *changes // what the log has for it, or nil
}

func subvolumeName(id uint64) string { return fmt.Sprintf("subvolume %d", id) }

// subvolume returns the subvolume with an ID. It is read once.
func (fs *Filesystem) subvolume(id uint64) (*subvolume, error) {
	fs.mu.Lock()
	s := fs.subvolumes[id]
	fs.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := fs.readSubvolume(id)
	if err != nil {
		return nil, err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if known := fs.subvolumes[id]; known != nil {
		return known, nil
	}
	fs.subvolumes[id] = s // at most maxSubvolumeID
	return s, nil
}

func (fs *Filesystem) readSubvolume(id uint64) (*subvolume, error) {
	name := subvolumeName(id)
	if !isSubvolume(id) {
		return nil, layer.Absent(name, "no subvolume has that ID")
	}
	if id > maxSubvolumeID {
		return nil, layer.Beyond(name, offsetOf(fs.sb.root.block), "IDs up to %d can be read", uint64(maxSubvolumeID))
	}
	item, err := fs.findRoot(id, name)
	if err != nil {
		return nil, err
	}
	if item.refs == 0 {
		return nil, layer.Absent(name, "it was deleted")
	}
	if item.dir != subvolumeRoot {
		return nil, layer.Damaged(name, item.at, "its root directory is inode %d, not %d", item.dir, subvolumeRoot)
	}
	s := &subvolume{id: id, item: item, isDefault: id == fs.chosen, changes: fs.log[id]}
	s.tree = tree{volume: fs.volume, name: name, owner: id, root: item.pointer}
	return s, nil
}
