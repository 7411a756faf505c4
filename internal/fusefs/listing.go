package fusefs

import (
	"bytes"
	"container/list"
	"slices"
	"strings"
	"sync"

	"github.com/drydock-vm/drydock/disk"
)

const (
	// maxNames bounds the names of one directory, in bytes, as
	// [disk.MaxDirEntries] does their number: 64 for each name on average.
	maxNames = 64 << 20
	// maxListings bounds the memory of the directories that are kept, in
	// bytes: some 400,000 files. The one that is used last is kept whatever
	// its size.
	maxListings = 32 << 20
	// maxNameLength is Linux's, in bytes.
	maxNameLength = 255
	// entrySize is what an entry takes beside its name.
	entrySize = 24 + 4
)

// listing is what a directory holds, read once.
type listing struct {
	read sync.Once

	// These are read-only after read.
	names   []byte // one behind the other
	entries []entry
	err     error // why the directory has more than that

	sort   sync.Once
	byName []int32 // the entries, sorted; after sort
}

type entry struct {
	ino   uint64
	start uint32 // in names
	size  uint8
	kind  uint32 // the type bits of the mode, or 0
}

func (l *listing) name(e *entry) []byte { return l.names[e.start:][:e.size] }

// load reads the directory.
func (l *listing) load(fsys disk.Filesystem, ino uint64) {
	l.err = fsys.ReadDir(ino, func(e disk.DirEntry) error {
		if len(l.entries) == disk.MaxDirEntries || len(l.names)+len(e.Name) > maxNames {
			return tooLarge(fsys, ino)
		}
		if len(e.Name) == 0 || len(e.Name) > maxNameLength {
			return badName(fsys, ino, len(e.Name))
		}
		l.entries = append(l.entries, entry{ino: e.Ino, start: uint32(len(l.names)), size: uint8(len(e.Name)), kind: e.Type})
		l.names = append(l.names, e.Name...)
		return nil
	})
}

// find returns the inode of a name; of one that is there twice, the first.
func (l *listing) find(name string) (uint64, bool) {
	l.sort.Do(func() {
		l.byName = make([]int32, len(l.entries))
		for i := range l.byName {
			l.byName[i] = int32(i)
		}
		slices.SortStableFunc(l.byName, func(a, b int32) int {
			return bytes.Compare(l.name(&l.entries[a]), l.name(&l.entries[b]))
		})
	})
	at, ok := slices.BinarySearchFunc(l.byName, name, func(i int32, name string) int {
		return strings.Compare(string(l.name(&l.entries[i])), name)
	})
	if !ok {
		return 0, false
	}
	return l.entries[l.byName[at]].ino, true
}

// listings keeps the directories that were used last.
type listings struct {
	fsys disk.Filesystem

	mu    sync.Mutex // guards what follows
	known map[uint64]*list.Element
	order *list.List // of *kept, the last used first
	size  int
}

type kept struct {
	listing
	ino  uint64
	size int // of the listing, in bytes, once it is read
}

func newListings(fsys disk.Filesystem) listings {
	return listings{fsys: fsys, known: make(map[uint64]*list.Element), order: list.New()}
}

// get returns a directory, and reads it if it is not there.
func (c *listings) get(ino uint64) *listing {
	k := c.take(ino)
	k.read.Do(func() {
		k.load(c.fsys, ino)
		c.account(k)
	})
	return &k.listing
}

func (c *listings) take(ino uint64) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[ino]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*kept)
	}
	k := &kept{ino: ino}
	c.known[ino] = c.order.PushFront(k)
	return k
}

// account adds what a directory takes, and forgets those that were not used for
// longest. Who still uses one keeps it.
func (c *listings) account(k *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.known[k.ino]; e == nil || e.Value != k {
		return // forgotten while it was read
	}
	k.size = len(k.names) + len(k.entries)*entrySize + entrySize
	c.size += k.size
	for c.size > maxListings && c.order.Len() > 1 {
		last := c.order.Back().Value.(*kept)
		c.order.Remove(c.order.Back())
		delete(c.known, last.ino)
		c.size -= last.size
	}
}
