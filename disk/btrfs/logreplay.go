package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// replayer does what the log of one subvolume says. It works in the three passes
// of Linux: inodes, entries of directories, all else; then it counts the links of
// what it touched.
type replayer struct {
	log     *tree
	s       *subvolume // as changed so far
	limits  *limits
	ignored map[uint64]bool
	recount map[uint64]bool // inodes whose number of links is to be counted
	files   int
}

// replaySubvolume replays a log, and returns what it changes: nothing if the
// subvolume is not there any more.
func (fs *Filesystem) replaySubvolume(id uint64, log *tree, limits *limits) (*changes, error) {
	s, err := fs.readSubvolume(id)
	if errors.Is(err, disk.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.changes = &changes{}
	r := &replayer{log: log, s: s, limits: limits, ignored: make(map[uint64]bool), recount: make(map[uint64]bool)}
	for _, pass := range []func(key, value) error{r.inodePass, r.entryPass, r.lastPass} {
		if err := r.each(pass); err != nil {
			return nil, err
		}
	}
	if err := r.countLinks(); err != nil {
		return nil, err
	}
	fs.replayed += r.files
	return s.changes, nil
}

// each calls yield for all items of the log, but for those of files without a
// name: to replay these would be to make and delete them.
func (r *replayer) each(yield func(key, value) error) error {
	var w walk
	err := r.log.seek(&w, key{})
	for ; err == nil && w.valid(); err = w.next() {
		if r.ignored[w.key().object] {
			continue
		}
		if err := yield(w.key(), w.value()); err != nil {
			return err
		}
	}
	return err
}

func (r *replayer) damaged(object uint64, at int64, format string, args ...any) error {
	return layer.Damaged(logName+" of "+inodeName(r.s.id, object), at, format, args...)
}

// spend counts what the replay keeps.
func (r *replayer) spend(n int) error {
	if r.limits.kept += n + changeOverhead; r.limits.kept > maxChangeBytes {
		return layer.Unsupported(logName, r.at(), logHint, "a log that changes more than %d bytes", maxChangeBytes)
	}
	return nil
}

// look counts an item that the replay looks through or writes.
func (r *replayer) look(raw []byte) error {
	if r.limits.seen += len(raw) + changeOverhead; r.limits.seen > maxLogWork {
		return layer.Unsupported(logName, r.at(), logHint, "a log for which more than %d bytes must be looked through", maxLogWork)
	}
	return nil
}

// at is the place of the log, for errors.
func (r *replayer) at() int64 { return offsetOf(r.log.root.block) }

// put gives an item a content, which it copies.
func (r *replayer) put(k key, v value) error {
	return r.change(change{key: k, value: value{bytes.Clone(v.raw), v.at}})
}

// remove takes an item away.
func (r *replayer) remove(k key) error {
	return r.change(change{key: k, gone: true, value: value{at: r.at()}})
}

func (r *replayer) change(n change) error {
	if at, found := r.s.changes.find(n.key); found {
		r.limits.kept -= len(r.s.changes.at(&at).value.raw) + changeOverhead
	}
	r.s.changes.set(n)
	if err := r.look(n.value.raw); err != nil {
		return err
	}
	return r.spend(len(n.value.raw))
}

// inodePass replays the inode items, and what must go before anything else comes:
// attributes, entries, and extents behind the end.
func (r *replayer) inodePass(k key, v value) error {
	if k.kind == kindRoot {
		return layer.Damaged(r.log.name, v.at, "item %v, which is one of the tree of logs", k)
	}
	if k.kind != kindInode {
		return nil
	}
	if _, err := r.s.parseInode(k.object, v); err != nil {
		return fmt.Errorf("%s: %w", logName, err)
	}
	if binary.LittleEndian.Uint32(v.raw[linksOffset:]) == 0 {
		r.ignored[k.object] = true
		return r.spend(0)
	}
	r.files++
	if err := r.dropXattrs(k.object); err != nil {
		return err
	}
	if modeOf(v.raw)&disk.ModeType == disk.ModeDir {
		if err := r.dropEntries(k.object); err != nil {
			return err
		}
	}
	if err := r.putInode(k, v); err != nil {
		return err
	}
	return r.recounted(k.object)
}

// recounted notes that the links of an inode are to be counted.
func (r *replayer) recounted(object uint64) error {
	if r.recount[object] {
		return nil
	}
	r.recount[object] = true
	return r.spend(0)
}

func modeOf(inode []byte) uint32 { return binary.LittleEndian.Uint32(inode[modeOffset:]) }
func sizeOf(inode []byte) uint64 { return binary.LittleEndian.Uint64(inode[sizeOffset:]) }

// inode returns the item of an inode of the subvolume as changed, as [tree.get] does.
func (r *replayer) inode(object uint64) (value, error) {
	v, err := r.s.get(key{object, kindInode, 0})
	if err == nil && v.raw != nil && len(v.raw) != inodeItemSize {
		return value{}, r.damaged(object, v.at, "an inode of %d bytes", len(v.raw))
	}
	return v, err
}

// putInode replays an inode item. One of generation 0 says only that the inode is
// there, and how large it is, if that is not 0. The size of a directory follows
// from what happens to its entries.
func (r *replayer) putInode(k key, v value) error {
	before, err := r.inode(k.object)
	if err != nil {
		return err
	}
	old, raw := before.raw, v.raw
	n := bytes.Clone(raw)
	kind := modeOf(raw) & disk.ModeType
	same := old != nil && modeOf(old)&disk.ModeType == kind
	generation := binary.LittleEndian.Uint64(raw)
	switch {
	case old != nil && generation == 0:
		n = bytes.Clone(old)
		if same && kind == disk.ModeRegular && sizeOf(raw) != 0 {
			binary.LittleEndian.PutUint64(n[sizeOffset:], sizeOf(raw))
		}
	case kind == disk.ModeDir && same:
		binary.LittleEndian.PutUint64(n[sizeOffset:], sizeOf(old))
	case kind == disk.ModeDir:
		binary.LittleEndian.PutUint64(n[sizeOffset:], 0)
	}
	if generation == 0 && old == nil {
		binary.LittleEndian.PutUint64(n, r.s.sb.generation+1)
	}
	if err := r.put(key{k.object, kindInode, 0}, value{n, v.at}); err != nil {
		return err
	}
	if kind != disk.ModeRegular {
		return nil
	}
	// Now, and not at the end: the log may have preallocated extents there.
	sector := uint64(r.s.sb.sectorSize)
	if end := sizeOf(n); end <= maxFileEnd {
		return r.dropExtents(k.object, (end+sector-1)&^(sector-1), maxOffset)
	}
	return nil
}

// dropXattrs takes away the attributes that the log does not have: it has all of
// an inode that it has.
func (r *replayer) dropXattrs(object uint64) error {
	var gone []key
	err := r.s.items(object, kindXattr, 0, func(hash uint64, v value) error {
		if err := r.look(v.raw); err != nil {
			return err
		}
		k := key{object, kindXattr, hash}
		logged, err := r.log.get(k)
		if err == nil && logged.raw == nil {
			gone = append(gone, k)
			err = r.spend(0)
		}
		return err
	})
	for i := 0; err == nil && i < len(gone); i++ {
		err = r.remove(gone[i])
	}
	return err
}

// lastPass replays attributes, references and extents.
func (r *replayer) lastPass(k key, v value) error {
	switch k.kind {
	case kindXattr:
		return r.put(k, v)
	case kindInodeRef, kindInodeExtref:
		return r.replayRefs(k, v)
	case kindExtentData:
		return r.replayExtent(k, v)
	}
	return nil
}

// countLinks sets the number of links of what was touched to that of its names.
// What has none is gone, and what was in it loses a name in turn.
func (r *replayer) countLinks() error {
	for len(r.recount) > 0 {
		todo := make([]uint64, 0, len(r.recount))
		for object := range r.recount {
			todo = append(todo, object)
		}
		slices.Sort(todo)
		clear(r.recount)
		for _, object := range todo {
			if err := r.countLinksOf(object); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *replayer) countLinksOf(object uint64) error {
	v, err := r.inode(object)
	if err != nil || v.raw == nil {
		return err
	}
	links := uint32(0)
	for _, kind := range []uint8{kindInodeRef, kindInodeExtref} {
		err := r.s.items(object, kind, 0, func(offset uint64, refs value) error {
			if err := r.look(refs.raw); err != nil {
				return err
			}
			list, ok := parseRefs(key{object, kind, offset}, refs.raw)
			if !ok {
				return r.damaged(object, refs.at, "a reference of %d bytes", len(refs.raw))
			}
			links += uint32(len(list))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if links == 0 {
		if modeOf(v.raw)&disk.ModeType == disk.ModeDir {
			if err := r.dropRange(object, 0, maxOffset, func(dirItem, uint64) (bool, error) { return false, nil }); err != nil {
				return err
			}
		}
		return r.remove(key{object, kindInode, 0})
	}
	if links == binary.LittleEndian.Uint32(v.raw[linksOffset:]) {
		return nil
	}
	n := bytes.Clone(v.raw)
	binary.LittleEndian.PutUint32(n[linksOffset:], links)
	return r.put(key{object, kindInode, 0}, value{n, v.at})
}
