package btrfs

import (
	"bytes"

	"github.com/drydock-vm/drydock/disk"
)

// A snapshot copies the names of the subvolumes in a subvolume, but not the
// subvolumes. Linux shows an empty directory there, always number 2; here each
// has a number of its own, made of the ID that the name refers to, so that no
// directory is there twice.

// rootRef says where a subvolume lies in its parent.
//
// Layout of struct btrfs_root_ref, little endian, followed by the name; its key
// is (parent, ROOT_REF, ID), and (ID, ROOT_BACKREF, parent) of an equal one:
//
//	0x0 8 dirid   0x8 8 sequence   0x10 2 name_len
type rootRef struct {
	dir, index uint64
	name       []byte
}

func parseRootRef(raw []byte) (ref rootRef, ok bool) {
	c := newCursor(raw)
	ref.dir, ref.index = c.U64(), c.U64()
	ref.name = c.Bytes(int(c.U16()))
	return ref, c.Err() == nil && c.Offset() == len(raw)
}

// refersTo reports whether the entry with a name in directory n is where
// subvolume id lies, and that is there.
func (fs *Filesystem) refersTo(n *inode, id uint64, name []byte) (bool, error) {
	v, err := fs.roots.get(key{n.volume.id, kindRootRef, id})
	if err != nil || v.raw == nil {
		return false, err
	}
	ref, ok := parseRootRef(v.raw)
	if !ok || ref.dir != n.object || !bytes.Equal(ref.name, name) {
		return false, nil // as Linux does: it lies elsewhere
	}
	return true, nil
}

// stub makes the empty directory that stands for a subvolume in a copy of its
// parent. Linux takes the owner and the time of the last access from the
// directory that it is in, and the other times from the clock; here they are
// those of that directory too.
func (fs *Filesystem) stub(s *subvolume, object uint64) (*inode, error) {
	dir, err := fs.stubParent(s, object-firstStub)
	if err != nil {
		return nil, err
	}
	n := &inode{volume: s, object: object, at: dir.at}
	n.Inode = disk.Inode{
		Ino: makeIno(s.id, object), Mode: disk.ModeDir | 0o755, Links: 1, UID: dir.UID, GID: dir.GID,
		Access: dir.Access, Modify: dir.Modify, Change: dir.Modify, Birth: dir.Modify,
	}
	return n, nil
}

// stubParent returns the directory of s that has a name for subvolume id: most
// times it is that in which the subvolume lies in its own parent. If not, it is
// said to be the root.
func (fs *Filesystem) stubParent(s *subvolume, id uint64) (*inode, error) {
	if !isSubvolume(id) {
		return nil, layer.Absent(inodeName(s.id, firstStub+id), "there is no such inode")
	}
	object := uint64(subvolumeRoot)
	var w walk
	if err := fs.roots.seek(&w, key{id, kindRootBackref, 0}); err != nil {
		return nil, err
	}
	if w.valid() && w.key().is(id, kindRootBackref) {
		if ref, ok := parseRootRef(w.value().raw); ok {
			v, err := s.get(key{ref.dir, kindDirIndex, ref.index})
			if err != nil {
				return nil, err
			}
			if item, _, ok := parseDirItem(v.raw); ok && item.location.is(id, kindRoot) {
				object = ref.dir
			}
		}
	}
	v, err := s.get(key{object, kindInode, 0})
	if err != nil {
		return nil, err
	}
	if v.raw == nil {
		return nil, layer.Damaged(inodeName(s.id, object), v.at, "it has names, but is not there")
	}
	return s.parseInode(object, v)
}
