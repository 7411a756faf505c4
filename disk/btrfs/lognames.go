package btrfs

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// A name is in four places: the entry in the order of the directory (DIR_INDEX),
// that by hash (DIR_ITEM), the reference of the inode (INODE_REF or
// INODE_EXTREF), and the size of the directory, twice the length of all names.

// parseRefs returns the references of an item.
func parseRefs(k key, raw []byte) (list []inodeRef, ok bool) {
	c := newCursor(raw)
	for c.Offset() < len(raw) && c.Err() == nil {
		ref := inodeRef{dir: k.offset}
		if k.kind == kindInodeExtref {
			ref.dir = c.U64()
		}
		ref.index = c.U64()
		ref.name = c.Bytes(int(c.U16()))
		list = append(list, ref)
	}
	return list, c.Err() == nil
}

func appendRef(raw []byte, kind uint8, ref inodeRef) []byte {
	if kind == kindInodeExtref {
		raw = binary.LittleEndian.AppendUint64(raw, ref.dir)
	}
	raw = binary.LittleEndian.AppendUint64(raw, ref.index)
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(ref.name)))
	return append(raw, ref.name...)
}

// parseDirItems returns the entries of an item.
func parseDirItems(raw []byte) (list []dirItem, ok bool) {
	ok = true
	for len(raw) > 0 {
		var item dirItem
		if item, raw, ok = parseDirItem(raw); !ok {
			return nil, false
		}
		list = append(list, item)
	}
	return list, ok
}

func appendDirItem(raw []byte, item dirItem) []byte {
	raw = binary.LittleEndian.AppendUint64(raw, item.location.object)
	raw = append(raw, item.location.kind)
	raw = binary.LittleEndian.AppendUint64(raw, item.location.offset)
	raw = binary.LittleEndian.AppendUint64(raw, 0) // transid, which nothing reads
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(item.data)))
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(item.name)))
	raw = append(raw, item.kind)
	raw = append(raw, item.name...)
	return append(raw, item.data...)
}

func hashKey(dir uint64, name []byte) key { return key{dir, kindDirItem, uint64(nameHash(name))} }

// refKeys are the two places where inode object can have its reference for a name.
func refKeys(object, dir uint64, name []byte) [2]key {
	return [2]key{{object, kindInodeRef, dir}, {object, kindInodeExtref, extrefHash(dir, name)}}
}

// byName returns the entry of a directory with a name.
func (r *replayer) byName(dir uint64, name []byte) (dirItem, bool, error) {
	return r.entryOf(hashKey(dir, name), name)
}

// byIndex returns the entry of a directory with an index, if it has that name.
func (r *replayer) byIndex(dir, index uint64, name []byte) (dirItem, bool, error) {
	return r.entryOf(key{dir, kindDirIndex, index}, name)
}

func (r *replayer) entryOf(k key, name []byte) (dirItem, bool, error) {
	list, err := r.entries(k)
	if err != nil {
		return dirItem{}, false, err
	}
	i := slices.IndexFunc(list, func(e dirItem) bool { return bytes.Equal(e.name, name) })
	if i < 0 {
		return dirItem{}, false, nil
	}
	return list[i], true, nil
}

// entries returns the entries in an item, which may be absent.
func (r *replayer) entries(k key) ([]dirItem, error) {
	v, err := r.s.get(k)
	if err == nil {
		err = r.look(v.raw)
	}
	if err != nil {
		return nil, err
	}
	list, ok := parseDirItems(v.raw)
	if !ok {
		return nil, r.damaged(k.object, v.at, "an entry of %d bytes", len(v.raw))
	}
	return list, nil
}

// refs returns the references in an item of a tree, which may be absent.
func (r *replayer) refs(get func(key) (value, error), k key) ([]inodeRef, error) {
	v, err := get(k)
	if err == nil {
		err = r.look(v.raw)
	}
	if err != nil {
		return nil, err
	}
	list, ok := parseRefs(k, v.raw)
	if !ok {
		return nil, r.damaged(k.object, v.at, "a reference of %d bytes", len(v.raw))
	}
	return list, nil
}

func findRef(list []inodeRef, dir uint64, name []byte) int {
	return slices.IndexFunc(list, func(ref inodeRef) bool { return ref.dir == dir && bytes.Equal(ref.name, name) })
}

// logged reports whether the log has a reference of an inode for a name.
func (r *replayer) logged(object, dir uint64, name []byte) (bool, error) {
	for _, k := range refKeys(object, dir, name) {
		list, err := r.refs(r.log.get, k)
		if err != nil || findRef(list, dir, name) >= 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// unlink takes a name of inode object out of a directory.
func (r *replayer) unlink(dir, object uint64, name []byte) error {
	name = bytes.Clone(name) // it may be part of what changes
	if err := r.recounted(object); err != nil {
		return err
	}
	for _, k := range refKeys(object, dir, name) {
		list, err := r.refs(r.s.get, k)
		if err != nil {
			return err
		}
		i := findRef(list, dir, name)
		if i < 0 {
			continue
		}
		if err := r.dropIndex(dir, list[i].index, name); err != nil {
			return err
		}
		if err := r.putRefs(k, slices.Delete(list, i, i+1)); err != nil {
			return err
		}
	}
	return r.dropHashed(dir, object, name)
}

func (r *replayer) putRefs(k key, list []inodeRef) error {
	if len(list) == 0 {
		return r.remove(k)
	}
	var raw []byte
	for _, ref := range list {
		raw = appendRef(raw, k.kind, ref)
	}
	return r.put(k, value{raw, r.at()})
}

func (r *replayer) dropIndex(dir, index uint64, name []byte) error {
	if _, found, err := r.byIndex(dir, index, name); err != nil || !found {
		return err
	}
	return r.remove(key{dir, kindDirIndex, index})
}

// dropHashed takes the entry by hash away, unless something else has the name now,
// and what the directory has for its size.
func (r *replayer) dropHashed(dir, object uint64, name []byte) error {
	k := hashKey(dir, name)
	list, err := r.entries(k)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(e dirItem) bool { return e.location.is(object, kindInode) && bytes.Equal(e.name, name) })
	if i < 0 {
		return nil
	}
	if err := r.putHashed(k, slices.Delete(list, i, i+1)); err != nil {
		return err
	}
	return r.resize(dir, -2*len(name))
}

func (r *replayer) putHashed(k key, list []dirItem) error {
	if len(list) == 0 {
		return r.remove(k)
	}
	var raw []byte
	for _, e := range list {
		raw = appendDirItem(raw, e)
	}
	return r.put(k, value{raw, r.at()})
}

// resize changes the size of a directory.
func (r *replayer) resize(dir uint64, by int) error {
	v, err := r.inode(dir)
	if err != nil || v.raw == nil {
		return err
	}
	n := bytes.Clone(v.raw)
	binary.LittleEndian.PutUint64(n[sizeOffset:], uint64(max(int64(sizeOf(v.raw))+int64(by), 0)))
	return r.put(key{dir, kindInode, 0}, value{n, v.at})
}

// link gives inode object, whose item is raw, a name in a directory. It reports
// whether the place was free.
func (r *replayer) link(dir, object, index uint64, name, raw []byte) (bool, error) {
	k := hashKey(dir, name)
	list, err := r.entries(k)
	if err != nil {
		return false, err
	}
	taken, err := r.s.get(key{dir, kindDirIndex, index})
	if err != nil {
		return false, err
	}
	if taken.raw != nil || slices.ContainsFunc(list, func(e dirItem) bool { return bytes.Equal(e.name, name) }) {
		return false, nil
	}
	e := dirItem{location: key{object, kindInode, 0}, kind: typeOf(modeOf(raw)), name: name}
	if err := r.put(key{dir, kindDirIndex, index}, value{appendDirItem(nil, e), r.at()}); err != nil {
		return false, err
	}
	if err := r.putHashed(k, append(list, e)); err != nil {
		return false, err
	}
	return true, r.resize(dir, 2*len(name))
}

// typeOf is the type that an entry has for a mode; 0 for none.
func typeOf(mode uint32) uint8 {
	return uint8(max(slices.Index(fileTypes[1:], mode&disk.ModeType)+1, 0))
}
