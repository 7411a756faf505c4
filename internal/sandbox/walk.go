package sandbox

import (
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Who walks through a tree lists one directory after the other. Once a caller
// has been seen to do that, the worker tells of the directories that come next
// together with the one that is asked for, as far as one answer reaches.
const (
	// maxAhead bounds the memory of what is known of directories that nobody
	// has listed yet, in bytes.
	maxAhead = 8 << 20
	// maxDirs bounds how many directories are known with their order.
	maxDirs = 64 << 10
)

// tree knows the directories that were seen, and some of those to come.
type tree struct {
	mu       sync.Mutex // guards what follows, and all that hangs on it
	dirs     map[uint64]dirPlace
	listings []*dirListing // oldest first
	expected predictor

	ahead   map[uint64]*aheadPage
	waiting []*aheadPage // oldest first
	size    int          // of waiting
}

// dirListing is the directories in one directory.
type dirListing struct {
	ordering
	inos []uint64
}

// dirPlace is where a directory stands in another.
type dirPlace struct {
	place
	in *dirListing
}

// aheadPage is a whole directory that was told ahead of time.
type aheadPage struct {
	wire.DirPage
	call  *call // that told
	files *listing
	size  int
}

// visit says that a directory is being listed. It returns what is known of it
// already; if that is nothing, it sets in req which walk this is part of.
func (t *tree) visit(req *wire.ReadDir) *aheadPage {
	t.mu.Lock()
	defer t.mu.Unlock()
	here := t.dirs[req.Ino]
	t.expected.learn(here.place)
	if p := t.ahead[req.Ino]; p != nil {
		delete(t.ahead, req.Ino) // a second listing asks anew
		return p
	}
	order, score := t.expected.expect()
	if score < missCost {
		return nil
	}
	req.Walk = wire.WalkDisk
	if order == nameOrder {
		req.Walk = wire.WalkNames
	}
	for i := range here.following(order) {
		if len(req.Then) == wire.MaxThen {
			break
		}
		if ino := here.in.inos[i]; t.ahead[ino] == nil {
			req.Then = append(req.Then, ino)
		}
	}
	return nil
}

// expect remembers a directory that was told ahead of time.
func (t *tree) expect(p *aheadPage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range p.Entries {
		p.size += entrySize + 2*len(e.Name)
	}
	t.ahead[p.Ino] = p
	t.waiting = append(t.waiting, p)
	t.size += p.size
	for t.size > maxAhead {
		old := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.size -= old.size
		if t.ahead[old.Ino] == old {
			delete(t.ahead, old.Ino)
		}
	}
}

// add makes the directories in a page known. All pages of a directory go to one
// listing.
func (t *tree) add(l *dirListing, names *[][]byte, p *wire.DirPage) {
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Inode != nil && e.Inode.Type() == disk.ModeDir && len(l.inos) < maxDirs {
			l.inos = append(l.inos, e.Ino)
			*names = append(*names, e.Name)
		}
	}
	if !p.Last || len(l.inos) == 0 {
		return
	}
	places := make([]place, len(l.inos))
	for i := range places {
		places[i] = l.ordering.add()
	}
	l.sort(*names, func(index, at int) { places[index].at[nameOrder] = at })

	t.mu.Lock()
	defer t.mu.Unlock()
	for i, ino := range l.inos {
		t.dirs[ino] = dirPlace{place: places[i], in: l}
	}
	t.listings = append(t.listings, l)
	for len(t.dirs) > maxDirs && len(t.listings) > 1 {
		for _, ino := range t.listings[0].inos {
			if t.dirs[ino].in == t.listings[0] {
				delete(t.dirs, ino)
			}
		}
		t.listings = t.listings[1:]
	}
}
