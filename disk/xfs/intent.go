package xfs

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Operations that change several structures are logged in steps, the whole of
// them as an intent first. Linux ends at the next mount what was begun. For a
// reader only a few kinds matter: extents that are to be freed, and counts and
// reverse mappings that are to be changed, belong to no file any more.

const (
	// maxIntents bounds the intents that are open at a time. Linux has some
	// hundreds.
	maxIntents = 1 << 14
	// maxChanges bounds those of one file's mapping, each of which is looked at
	// for each extent. Linux has two.
	maxChanges = 64
	// maxOwners bounds the forks that got the tree of another, at some 40 bytes
	// each: as many files as xfs_fsr(8) can have put in order since the last
	// checkpoint.
	maxOwners = 1 << 18
)

// intents is what the log says was begun and not ended.
type intents struct {
	open map[intentKey]intent
	// order is in which the intents of open were begun.
	order []intentKey

	content    map[uint64]bool // inodes whose content is in between
	attributes map[uint64]bool // or whose attributes are
	mappings   map[forkKey][]change
	owners     map[forkKey]bool // forks whose tree has blocks of another owner
}

type intentKey struct {
	kind uint16 // of the intent
	id   uint64
}

type forkKey struct {
	ino  uint64
	attr bool
}

// intent is one that matters to a reader.
type intent struct {
	at      int64     // byte offset of its record
	inodes  [2]uint64 // of an attribute, or of an exchange
	changes []forkChange
}

// forkChange is a change of a mapping.
type forkChange struct {
	forkKey
	change
}

// change says what a range of a fork is to be.
type change struct {
	logical, length, physical uint64
	kind                      disk.ExtentKind
}

func (i *intents) count() int { return len(i.open) }

// newOwner notes that a fork got the tree of another. It returns false where there
// are too many.
func (i *intents) newOwner(ino uint64, attr bool) bool {
	if i.owners == nil {
		i.owners = make(map[forkKey]bool)
	}
	i.owners[forkKey{ino, attr}] = true
	return len(i.owners) <= maxOwners
}

// note reads an intent, or what says that one is done. Layout of all: 0 2 type,
// 2 2 regions, 4 4 count or unused, 8 8 identity, which that of the end repeats.
func (i *intents) note(it *item) error {
	c := ondisk.NewCursor(it.regions[0], binary.LittleEndian)
	kind := c.U16()
	c.Skip(2)
	count := c.U32()
	key := intentKey{kind, c.U64()}
	switch kind {
	case itemBUD, itemATTRD, itemXMD:
		key.kind-- // the intent's
		delete(i.open, key)
		if c.Err() != nil {
			return damagedIntent(it.at, kind, c.Err())
		}
		return nil
	}
	in := parseIntent(c, kind)
	in.at = it.at
	switch {
	case c.Err() != nil:
		return damagedIntent(it.at, kind, c.Err())
	case kind == itemBUI && count != 1:
		return damagedIntent(it.at, kind, fmt.Errorf("a change of %d extents, one is possible", count))
	case len(i.open) >= maxIntents:
		return layer.Beyond(logName, it.at, "more than %d open intents", maxIntents)
	}
	if i.open == nil {
		i.open = make(map[intentKey]intent)
	}
	i.open[key] = in
	if i.order = append(i.order, key); len(i.order) > 2*maxIntents {
		i.compact()
	}
	return nil
}

// parseIntent reads what follows the identity: of an attribute 16 8 inode, 24 4
// operation; of an exchange 16 8 and 24 8 inodes.
func parseIntent(c *ondisk.Cursor, kind uint16) intent {
	switch kind {
	case itemBUI:
		return intent{changes: []forkChange{parseChange(c)}}
	case itemATTRI:
		const parents = 4 // operations from there on are of parent pointers
		if ino, operation := c.U64(), c.U32()&0xff; operation < parents {
			return intent{inodes: [2]uint64{ino}}
		}
	case itemXMI:
		return intent{inodes: [2]uint64{c.U64(), c.U64()}}
	}
	return intent{}
}

func damagedIntent(at int64, kind uint16, err error) error {
	return layer.Damaged("logged intent", at, "of type %#x: %v", kind, err)
}

// compact forgets the order of what is done.
func (i *intents) compact() {
	seen := make(map[intentKey]bool)
	i.order = slices.DeleteFunc(i.order, func(k intentKey) bool {
		_, open := i.open[k]
		drop := !open || seen[k]
		seen[k] = true
		return drop
	})
}

// parseChange reads a change of a mapping. Layout (xfs_map_extent): 0 8 inode, 8
// 8 block, 16 8 logical block, 24 4 length, 28 4 flags.
func parseChange(c *ondisk.Cursor) forkChange {
	const (
		typeMask  = 0xff
		unmap     = 2
		attrFork  = 1 << 31
		unwritten = 1 << 30
	)
	var f forkChange
	f.ino, f.physical, f.logical, f.length = c.U64(), c.U64(), c.U64(), uint64(c.U32())
	flags := c.U32()
	f.attr = flags&attrFork != 0
	switch {
	case flags&typeMask == unmap:
		f.kind = disk.ExtentHole
	case flags&unwritten != 0:
		f.kind = disk.ExtentZero
	}
	return f
}

// settle is for the end of a replay: what is open now stays so.
func (i *intents) settle(sb *superblock) error {
	i.compact()
	i.content, i.attributes = make(map[uint64]bool), make(map[uint64]bool)
	i.mappings = make(map[forkKey][]change)
	for _, key := range i.order {
		in := i.open[key]
		for _, ino := range in.inodes {
			i.attributes[ino] = true
			if key.kind == itemXMI {
				i.content[ino] = true
			}
		}
		for _, f := range in.changes {
			if f.length == 0 || f.logical >= maxLogical || f.kind != disk.ExtentHole && !sb.validBlocks(f.physical, f.length) {
				return layer.Damaged("logged intent", in.at, "%d blocks of inode %d from %d on are said to be at %#x", f.length, f.ino, f.logical, f.physical)
			}
			if len(i.mappings[f.forkKey]) == maxChanges {
				return layer.Beyond(logName, in.at, "more than %d open changes of inode %d", maxChanges, f.ino)
			}
			i.mappings[f.forkKey] = append(i.mappings[f.forkKey], f.change)
		}
	}
	return nil
}

func (i *intents) refuseContent(ino uint64) error {
	if i.content[ino] {
		return layer.Unsupported(inodeName(ino), ondisk.Nowhere, hintClean, "its content was being exchanged with that of another file when the guest stopped")
	}
	return nil
}

func (i *intents) refuseAttributes(ino uint64) error {
	if i.attributes[ino] {
		return layer.Unsupported(attrName(ino).String(), ondisk.Nowhere, hintClean, "they were being changed when the guest stopped")
	}
	return nil
}

// changed is what is known of a fork from logical block on, if s is what the disk
// says: the last change counts.
func (m *mapping) changed(block uint64, s stretch) stretch {
	for k := len(m.changes) - 1; k >= 0; k-- {
		c := m.changes[k]
		switch {
		case block < c.logical:
			s.length = min(s.length, c.logical-block)
		case block < c.logical+c.length:
			skip := block - c.logical
			found := stretch{physical: c.physical + skip, length: c.length - skip, kind: c.kind}
			for _, later := range m.changes[k+1:] {
				if later.logical > block {
					found.length = min(found.length, later.logical-block)
				}
			}
			return found
		}
	}
	return s
}
