package sandbox

import (
	"iter"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Who walks through a tree lists one directory after the other. Once a caller
// has been seen to do that, the worker tells of the directories that come next
// together with the one that is asked for, as far as one answer reaches. While the
// caller is busy with those, it is asked for the answer after that.
const (
	// maxAhead bounds the memory of what is known of directories that nobody
	// has listed yet, in bytes.
	maxAhead = 4 << 20
	// maxDirs bounds how many directories are known with their order.
	maxDirs = 64 << 10
	// maxHops bounds how far up a tree the next directory is looked for: a
	// damaged one may hold circles.
	maxHops = 64
)

// tree knows the directories that were seen, and some of those to come.
type tree struct {
	mu       sync.Mutex // guards what follows, and all that hangs on it
	dirs     map[uint64]dirPlace
	listings []*dirListing // oldest first
	listed   int           // how many directories they have
	expected predictor

	ahead   map[uint64]*aheadPage
	waiting []*aheadPage // oldest first
	size    int          // of waiting
	newest  *call        // that told of directories ahead last
	asked   *askedPage   // what is asked for before it is wanted; may be nil
}

// askedPage is a request for the page of a directory that nobody has listed yet,
// and for more.
type askedPage struct {
	req   wire.ReadDir
	call  *call
	after *aheadPage // that the caller lists before

	done chan struct{} // closed when the answer was looked at
	err  error         // valid then
}

// dirListing is the directories in one directory.
type dirListing struct {
	ordering
	ino  uint64 // of the one that they are in
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
	dirs  *dirListing
	size  int
}

// visit says that a directory is being listed. It returns what is known of it
// already, or the request on its way that may tell of it; for whoever must ask, it
// sets in req which walk this is part of.
func (t *tree) visit(req *wire.ReadDir) (*aheadPage, *askedPage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected.learn(t.dirs[req.Ino].place)
	asked := t.asked
	p := t.take(req.Ino)
	if p == nil || asked != nil && (asked.req.Ino == req.Ino || asked.call == p.call) {
		t.asked = nil // it was for this one, or a wrong guess, or has told of this one
	}
	if p != nil {
		return p, nil
	}
	t.plan(req)
	if asked != nil && asked.tells(req.Ino) {
		return nil, asked
	}
	return nil, nil
}

// tells reports whether the answer is likely to tell of a directory.
func (a *askedPage) tells(ino uint64) bool {
	return a.req.Ino == ino || slices.Contains(a.req.Then, ino)
}

// take returns a directory that was told ahead, or nil. A second listing asks anew.
func (t *tree) take(ino uint64) *aheadPage {
	p := t.ahead[ino]
	delete(t.ahead, ino)
	return p
}

// arrived waits for the answer to a request that was sent ahead, and returns a directory
// if that tells all of it.
func (t *tree) arrived(asked *askedPage, ino uint64) (*aheadPage, error) {
	<-asked.done
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.take(ino), asked.err
}

// plan completes a request for a directory, if the caller is on a walk.
func (t *tree) plan(req *wire.ReadDir) bool {
	order, score := t.expected.expect()
	if score < missCost {
		return false
	}
	req.Walk = wire.WalkDisk
	if order == nameOrder {
		req.Walk = wire.WalkNames
	}
	for ino := range t.following(req.Ino, order) {
		if len(req.Then) == wire.MaxThen {
			break
		}
		if t.ahead[ino] == nil {
			req.Then = append(req.Then, ino)
		}
	}
	return true
}

// following returns the directories that a walk reaches behind one and all below it:
// those that follow it, those that follow the one that it is in, and so on.
func (t *tree) following(ino uint64, order int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		here := t.dirs[ino]
		for hops := 0; here.in != nil && hops < maxHops; hops++ {
			for i := range here.following(order) {
				if !yield(here.in.inos[i]) {
					return
				}
			}
			here = t.dirs[here.in.ino]
		}
	}
}

// askAhead sends the request that the caller of a walk will need next, once it has
// come to the directories that it was told of last, of which here is one.
func (fs *filesystem) askAhead(here *aheadPage) error {
	t := &fs.dirs
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asked != nil || len(t.waiting) == 0 || here.call != t.newest {
		return nil
	}
	last := t.waiting[len(t.waiting)-1]
	ino, ok := t.after(last)
	if !ok {
		return nil
	}
	next := &askedPage{req: wire.ReadDir{Node: fs.node(ino), Contents: fs.nodes.reads()}, after: last, done: make(chan struct{})}
	if !t.plan(&next.req) {
		return nil
	}
	var err error
	if next.call, err = fs.client.send(wire.OpReadDir, next.req); err == nil {
		t.asked = next
		go fs.receiveAhead(next)
	}
	return err
}

// receiveAhead takes the answer to a request that was sent ahead, while the caller works
// on the directories before. What is not the whole of a directory is left to him.
func (fs *filesystem) receiveAhead(asked *askedPage) {
	defer close(asked.done)
	k := asked.call
	<-k.done
	if k.err != nil {
		return
	}
	pages, err := wire.DecodeDirPages(k.body, asked.req, fs.files.sizes)
	if err != nil {
		asked.err = fs.client.lied(k, err)
		return
	}
	if !pages[0].Last {
		return
	}
	fs.nodes.addPages(pages, len(k.body))
	fs.expect(k, pages, asked.after.files)
	asked.err = fs.small.foresee(asked.after.files)
}

// after returns the directory that a walk reaches behind a page: the first in it,
// or else the one that follows it, or one of those that it is in.
func (t *tree) after(p *aheadPage) (uint64, bool) {
	order, _ := t.expected.expect()
	for i := range p.dirs.all(order) {
		return p.dirs.inos[i], true
	}
	for ino := range t.following(p.Ino, order) {
		return ino, true
	}
	return 0, false
}

// expect remembers a directory that was told ahead of time.
func (t *tree) expect(p *aheadPage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest = p.call
	p.size = entrySize // of an empty one too
	for _, e := range p.Entries {
		p.size += entrySize + 2*len(e.Name) + len(e.Content)
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
		if e.IsDir() && len(l.inos) < maxDirs {
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
	*names = nil // they keep the pages

	t.mu.Lock()
	defer t.mu.Unlock()
	for i, ino := range l.inos {
		t.dirs[ino] = dirPlace{place: places[i], in: l}
	}
	t.listings = append(t.listings, l)
	t.listed += len(l.inos)
	for t.listed > maxDirs && len(t.listings) > 1 {
		t.listed -= len(t.listings[0].inos)
		for _, ino := range t.listings[0].inos {
			if t.dirs[ino].in == t.listings[0] {
				delete(t.dirs, ino)
			}
		}
		t.listings = t.listings[1:]
	}
}
