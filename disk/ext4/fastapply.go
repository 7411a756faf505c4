package ext4

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	fastCommitName = "fast commit"

	// maxFastCommitScan bounds how much of the directories that fast commits
	// change is read when a filesystem is opened, in bytes: some 25 million
	// names.
	maxFastCommitScan = 1 << 30
)

// fastApplier plays changes in order, by the rules of Linux (ext4_fc_replay in
// fs/ext4/fast_commit.c), with two exceptions, in which Linux loses what the log
// tells. It gives the directories whose entries change the time of the replay. And
// it keeps the blocks of removed directories, which show up in files that get
// their inodes, and on which new directories founder.
type fastApplier struct {
	fs *Filesystem
	*changes
}

// applyFast makes the filesystem show what tags say. The names of the
// directories they speak of are looked up first, in one pass through each.
func (fs *Filesystem) applyFast(tags []fastTag) error {
	a := &fastApplier{fs: fs, changes: &changes{
		inodes: make(map[uint64]*changedInode), dirs: make(map[uint64]*changedDir),
	}}
	for _, t := range tags {
		if t.kind == tagCreate || t.kind == tagLink || t.kind == tagUnlink {
			e := parseEntryTag(t.value)
			a.changedDir(e.parent).entry(e.name)
		}
	}
	if err := a.scanDirs(); err != nil {
		return err
	}
	fs.changes = a.changes
	for _, t := range tags {
		if err := a.apply(t); err != nil {
			return err
		}
	}
	for _, c := range a.inodes {
		c.settle()
	}
	return nil
}

func (a *fastApplier) changedDir(ino uint64) *changedDir {
	d := a.dirs[ino]
	if d == nil {
		d = &changedDir{index: make(map[string]int)}
		a.dirs[ino] = d
	}
	return d
}

// scanDirs finds the entries on disk. Of a directory that cannot be read,
// ReadDir will tell.
func (a *fastApplier) scanDirs() error {
	var size int64
	for _, ino := range slices.Sorted(maps.Keys(a.dirs)) {
		n, err := a.fs.file(ino)
		if err != nil || n.Type() != disk.ModeDir {
			continue
		}
		if size += n.Size; size > maxFastCommitScan {
			return layer.Beyond(fastCommitName, ondisk.Nowhere, "the directories that it changes have more than %d bytes", int64(maxFastCommitScan))
		}
		d := a.dirs[ino]
		_ = a.fs.ReadDir(ino, func(e disk.DirEntry) error {
			if i, ok := d.index[string(e.Name)]; ok {
				d.entries[i].base, d.entries[i].ino = e.Ino, e.Ino
			}
			return nil
		})
	}
	return nil
}

func (a *fastApplier) apply(t fastTag) error {
	switch t.kind {
	case tagAddRange:
		return a.addRange(t.value)
	case tagDelRange:
		return a.delRange(t.value)
	case tagInode:
		return a.inodeTag(t.value)
	case tagCreate:
		return a.create(parseEntryTag(t.value))
	case tagLink:
		return a.link(parseEntryTag(t.value))
	default:
		return a.unlink(parseEntryTag(t.value))
	}
}

// entryTag is a change of a directory. Layout, little endian:
//
//	0x0 4 fc_parent_ino   0x4 4 fc_ino   0x8 the name, to the end of the value
type entryTag struct {
	parent, ino uint64
	name        []byte
}

func parseEntryTag(value []byte) entryTag {
	return entryTag{
		parent: uint64(binary.LittleEndian.Uint32(value)), ino: uint64(binary.LittleEndian.Uint32(value[4:])),
		name: value[entryTagSize:],
	}
}

// usable returns an inode that is in use, ready to be changed, or nil.
func (a *fastApplier) usable(ino uint64) (*inode, *changedInode, error) {
	n, err := a.fs.file(ino)
	if errors.Is(err, disk.ErrNotExist) || errors.Is(err, disk.ErrCorrupt) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	c := a.inodes[ino]
	if c == nil {
		c = &changedInode{head: slices.Clone(n.raw[:oldInodeSize])}
		a.inodes[ino] = c
	}
	return n, c, nil
}

// isDir reports whether ino is a directory that entries can be added to.
func (a *fastApplier) isDir(ino uint64) bool {
	n, err := a.fs.file(ino)
	return err == nil && n.Type() == disk.ModeDir
}

func (a *fastApplier) create(e entryTag) error {
	n, c, err := a.usable(e.ino)
	if err != nil {
		return err
	}
	if n == nil {
		return layer.Damaged(fastCommitName, ondisk.Nowhere, "inode %d, which it creates, is not in use", e.ino)
	}
	if !a.isDir(e.parent) {
		return nil
	}
	if n.Type() == disk.ModeDir {
		a.changedDir(e.ino).create()
	} else {
		c.setLinks(1)
	}
	if entry := a.dirs[e.parent].entry(e.name); entry.ino == 0 {
		entry.ino = e.ino
	}
	return nil
}

func (a *fastApplier) link(e entryTag) error {
	n, c, err := a.usable(e.ino)
	if n == nil || !a.isDir(e.parent) {
		return err
	}
	if entry := a.dirs[e.parent].entry(e.name); entry.ino == 0 {
		entry.ino = e.ino
		c.setLinks(uint16(min(int(c.links())+1, math.MaxUint16)))
	}
	return nil
}

func (a *fastApplier) unlink(e entryTag) error {
	n, c, err := a.usable(e.ino)
	if n == nil || !a.isDir(e.parent) {
		return err
	}
	entry := a.dirs[e.parent].entry(e.name)
	if entry.ino == 0 {
		return nil
	}
	if entry.ino == e.ino { // else it was renamed over
		entry.ino = 0
	}
	c.setLinks(c.links() - 1)
	if n.Type() == disk.ModeDir {
		c.setLinks(0)
	}
	if c.links() == 0 {
		c.free()
	}
	return nil
}

// inodeTag takes an inode. Layout of the value, little endian:
//
//	0x0 4 fc_ino   0x4 the start of the inode
func (a *fastApplier) inodeTag(value []byte) error {
	ino := uint64(binary.LittleEndian.Uint32(value))
	if ino == 0 || ino > uint64(a.fs.sb.inodeCount) || a.fs.reserved(ino) {
		return layer.Damaged(fastCommitName, ondisk.Nowhere, "it writes inode %d", ino)
	}
	c := a.inodes[ino]
	if c == nil {
		raw, _, err := a.fs.rawInode(ino)
		if err != nil {
			return err
		}
		c = &changedInode{head: slices.Clone(raw[:oldInodeSize])}
		a.inodes[ino] = c
	}
	c.take(value[inodeTagSize:])
	return nil
}

// addRange notes where blocks of a file are. Layout of the value, little endian:
//
//	0x0 4 fc_ino   0x4 12 an extent, as in a leaf of an extent tree
func (a *fastApplier) addRange(value []byte) error {
	n, c, err := a.usable(uint64(binary.LittleEndian.Uint32(value)))
	if n == nil {
		return err
	}
	r := parseExtent(value[4:])
	kind := disk.ExtentData
	if r.unwritten {
		kind = disk.ExtentZero
	}
	c.note(change{first: r.logical, end: r.logical + r.length, physical: r.physical, kind: kind})
	return nil
}

// delRange notes that blocks of a file are gone. Layout of the value, little
// endian:
//
//	0x0 4 fc_ino   0x4 4 fc_lblk   0x8 4 fc_len
func (a *fastApplier) delRange(value []byte) error {
	n, c, err := a.usable(uint64(binary.LittleEndian.Uint32(value)))
	if n == nil {
		return err
	}
	first, length := uint64(binary.LittleEndian.Uint32(value[4:])), uint64(binary.LittleEndian.Uint32(value[8:]))
	c.note(change{first: first, end: first + length, kind: disk.ExtentHole})
	return nil
}

// note adds a change of blocks to the log.
func (c *changedInode) note(next change) {
	next.end = min(next.end, maxLogical)
	if next.first < next.end {
		c.log = append(c.log, next)
	}
}
