package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/drydock-vm/drydock/disk"
)

// dropEntries takes out of a directory what lies in a range of which the log has
// all, and is not in the log.
func (r *replayer) dropEntries(dir uint64) error {
	var w walk
	next := uint64(0) // what is before is done: ranges may overlap
	err := r.log.seek(&w, key{dir, kindDirLogIndex, 0})
	for ; err == nil && w.valid() && w.key().is(dir, kindDirLogIndex); err = w.next() {
		v := w.value()
		if len(v.raw) != 8 {
			return r.damaged(dir, v.at, "a range of entries in %d bytes", len(v.raw))
		}
		first, last := max(w.key().offset, next), binary.LittleEndian.Uint64(v.raw)
		if first > last {
			continue
		}
		err := r.dropRange(dir, first, last, func(item dirItem, index uint64) (bool, error) {
			v, err := r.log.get(key{dir, kindDirIndex, index})
			if err != nil {
				return false, err
			}
			logged, _, ok := parseDirItem(v.raw)
			return ok && bytes.Equal(logged.name, item.name), nil
		})
		if err != nil || last == maxOffset {
			return err
		}
		next = last + 1
	}
	return err
}

// dropRange takes the entries with an index from first to last out of a directory,
// but for those that keep says to leave.
func (r *replayer) dropRange(dir, first, last uint64, keep func(dirItem, uint64) (bool, error)) error {
	var gone []dirItem
	err := r.s.items(dir, kindDirIndex, first, func(index uint64, v value) error {
		if index > last {
			return errEnough
		}
		if err := r.look(v.raw); err != nil {
			return err
		}
		item, _, ok := parseDirItem(v.raw)
		if !ok {
			return r.damaged(dir, v.at, "an entry of %d bytes", len(v.raw))
		}
		stays, err := keep(item, index)
		if err == nil && !stays {
			gone = append(gone, item)
			err = r.spend(0)
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	for _, item := range gone {
		if item.location.kind != kindInode {
			continue // whoever deletes a subvolume commits
		}
		if err := r.unlink(dir, item.location.object, item.name); err != nil {
			return err
		}
	}
	return nil
}

// entryPass replays the entries of directories. Only names of inodes that are
// there come back: to sync a directory is not to sync what is new in it.
func (r *replayer) entryPass(k key, v value) error {
	if k.kind != kindDirIndex {
		return nil
	}
	item, rest, ok := parseDirItem(v.raw)
	if !ok || len(rest) != 0 || !validName(item.name) {
		return r.damaged(k.object, v.at, "an entry of %d bytes", len(v.raw))
	}
	dir, err := r.inode(k.object)
	if err != nil {
		return err
	}
	if dir.raw == nil {
		return r.damaged(k.object, v.at, "it has entries, but is not there")
	}
	var target value
	if item.location.kind == kindInode {
		if target, err = r.inode(item.location.object); err != nil {
			return err
		}
	}
	old, found, err := r.byName(k.object, item.name)
	if err != nil {
		return err
	}
	named, err := r.displace(k.object, old, found, item, target.raw != nil)
	if err != nil {
		return err
	}
	old, found, err = r.byIndex(k.object, k.offset, item.name)
	if err != nil {
		return err
	}
	placed, err := r.displace(k.object, old, found, item, target.raw != nil)
	if err != nil || named && placed || target.raw == nil {
		return err
	}
	return r.addEntry(k, item, target.raw)
}

// displace makes room for item: an entry for something else loses its name, if
// what item names is there. It reports whether the entry is that of item already.
func (r *replayer) displace(dir uint64, old dirItem, found bool, item dirItem, exists bool) (bool, error) {
	switch {
	case !found:
		return false, nil
	case old.location == item.location && old.kind == item.kind:
		return true, nil
	case !exists || old.location.kind != kindInode:
		return false, nil
	}
	return false, r.unlink(dir, old.location.object, old.name)
}

// addEntry adds an entry with its reference, unless the log has that: then it
// comes with it.
func (r *replayer) addEntry(k key, item dirItem, target []byte) error {
	object := item.location.object
	if later, err := r.logged(object, k.object, item.name); err != nil || later {
		return err
	}
	added, err := r.link(k.object, object, k.offset, item.name, target)
	if err != nil || !added {
		return err
	}
	ref := key{object, kindInodeRef, k.object}
	list, err := r.refs(r.s.get, ref)
	if err != nil {
		return err
	}
	if err := r.putRefs(ref, append(list, inodeRef{dir: k.object, index: k.offset, name: item.name})); err != nil {
		return err
	}
	if modeOf(target)&disk.ModeType == disk.ModeDir {
		return nil
	}
	return r.recounted(object)
}

// replayRefs replays an item with references of an inode: afterwards it has those
// names in that place, and no others.
func (r *replayer) replayRefs(k key, v value) error {
	refs, ok := parseRefs(k, v.raw)
	if !ok {
		return r.damaged(k.object, v.at, "a reference of %d bytes", len(v.raw))
	}
	target, err := r.inode(k.object)
	if err != nil {
		return err
	}
	if target.raw == nil {
		return r.damaged(k.object, v.at, "it has references, but is not there")
	}
	if k.is(subvolumeRoot, kindInodeRef) && k.offset == subvolumeRoot {
		return nil // the root directory has itself for a parent
	}
	searched := false
	for _, ref := range refs {
		// Directories that were not logged may be missing: then there is no
		// such name.
		dir, err := r.inode(ref.dir)
		if err != nil || dir.raw == nil {
			return err
		}
		there, err := r.hasName(k.object, ref)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if !searched {
			if err := r.dropOtherRefs(k.object, ref); err != nil {
				return err
			}
			searched = true
		}
		if err := r.addName(k.object, target.raw, ref); err != nil {
			return err
		}
	}
	if err := r.dropOldRefs(k); err != nil {
		return err
	}
	return r.put(k, v)
}

// dropOtherRefs takes away what an inode has for names where a new one comes, and
// the log does not have.
func (r *replayer) dropOtherRefs(object uint64, ref inodeRef) error {
	for _, k := range refKeys(object, ref.dir, ref.name) {
		if err := r.dropOldRefs(k); err != nil {
			return err
		}
	}
	return nil
}

// dropOldRefs takes the names of an inode away that an item of the subvolume has
// and that of the log does not.
func (r *replayer) dropOldRefs(k key) error {
	old, err := r.refs(r.s.get, k)
	if err != nil {
		return err
	}
	refs, err := r.refs(r.log.get, k)
	if err != nil {
		return err
	}
	stays := make(map[string]bool, len(refs)) // at most what an item has room for
	for _, ref := range refs {
		stays[string(appendRef(nil, kindInodeExtref, inodeRef{dir: ref.dir, name: ref.name}))] = true
	}
	for _, ref := range old {
		if stays[string(appendRef(nil, kindInodeExtref, inodeRef{dir: ref.dir, name: ref.name}))] {
			continue
		}
		if err := r.unlink(ref.dir, k.object, ref.name); err != nil {
			return err
		}
	}
	return nil
}

// hasName reports whether an inode has a name where a reference says.
func (r *replayer) hasName(object uint64, ref inodeRef) (bool, error) {
	if !validName(ref.name) {
		return false, r.damaged(object, r.at(), "a reference with the name %q", ref.name)
	}
	placed, atIndex, err := r.byIndex(ref.dir, ref.index, ref.name)
	if err != nil {
		return false, err
	}
	named, atName, err := r.byName(ref.dir, ref.name)
	return atIndex && atName && placed.location.is(object, kindInode) && named.location.is(object, kindInode), err
}

// addName adds a name of an inode, whose item is target. What has the name or the
// place loses it; the inode itself may have the name in another place.
func (r *replayer) addName(object uint64, target []byte, ref inodeRef) error {
	victims := []uint64{object}
	for _, k := range []key{{ref.dir, kindDirIndex, ref.index}, hashKey(ref.dir, ref.name)} {
		old, found, err := r.entryOf(k, ref.name)
		if err != nil {
			return err
		}
		if found && old.location.kind == kindInode {
			victims = append(victims, old.location.object)
		}
	}
	for _, victim := range victims {
		if err := r.unlink(ref.dir, victim, ref.name); err != nil {
			return err
		}
	}
	added, err := r.link(ref.dir, object, ref.index, ref.name, target)
	if err == nil && !added {
		err = r.damaged(object, r.at(), "the place of name %q in directory %d is taken", ref.name, ref.dir)
	}
	return err
}
