package sandbox

import (
	"iter"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Who lists a directory first gets its names, and asks what they are afterwards. So
// of a large directory only the first page tells more than names: the others come
// the faster, and what they leave out is asked for, several files at a time, when the
// first of them is wanted, and ahead of a caller who goes through them in the order
// of the disk or in that of their names.

const (
	// maxNodeBytes bounds the memory of what a nodeCache was told about files: some
	// 40,000 of them, which is more than one that was listed is read after, and what a
	// directory of 100,000 has beyond maxNamed.
	maxNodeBytes = 16 << 20
	// maxNamed bounds how many files are known by their names alone. What a directory
	// has beyond them is told with their names.
	maxNamed = 64 << 10
	// entrySize is what a decoded entry takes beside the bytes of its page.
	entrySize = 300
)

// nodeCache keeps what was told about files last, and knows what to ask about those
// that were listed by their names alone.
type nodeCache struct {
	// ask asks what the files of a description are, which follow those of another,
	// or of none.
	ask func(k, before *description) error

	mu       sync.Mutex // guards what follows, and all that hangs on it
	nodes    map[uint64]node
	answers  []told         // oldest first
	size     int            // of answers
	named    int            // how many files the listings have
	listings []*nameListing // oldest first
	expected predictor
	last     *wire.Entry // that was looked up; may be nil

	// How many files were looked at, and how many of those opened, for a while.
	looked, opened int
}

// node is what is known of a file: its entry, or where it stands among those of which
// only the names were listed.
type node struct {
	entry *wire.Entry
	in    *nameListing
	index int
}

// told is an answer: pages of directories, or the description of files that had been
// listed.
type told struct {
	pages       []wire.DirPage
	description *description
	size        int
}

// nameListing is the files of a directory of which only the names are known.
type nameListing struct {
	ordering
	files    []namedFile
	names    [][]byte // until they are sorted
	complete bool
	dropped  bool // for others, while it was being read
}

// namedFile is a file in a nameListing.
type namedFile struct {
	ino   uint64
	rank  int          // in the order of names, once they are sorted
	asked *description // that it is part of, or nil
	entry *wire.Entry  // what is known of it; or nil
}

// description is what was asked for about files of a listing.
type description struct {
	in    *nameListing
	files []int // their indexes
	ahead bool  // the description after this one was asked for
	small listing

	contents bool // are wanted, too

	done chan struct{} // closed when it is in the cache
	err  error         // valid then
}

// room reports whether the names of another page of l can be known without more.
func (c *nodeCache) room(l *nameListing) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(l.files) < maxNamed && !l.dropped
}

// largeDir is the size from which on a directory has more files than a page describes.
const largeDir = 64 << 10

// large reports whether a directory is known to be one of which names are asked for first.
func (c *nodeCache) large(ino uint64) bool {
	e := c.known(ino)
	return e != nil && e.Inode != nil && e.Inode.Size >= largeDir
}

// addPages adds the pages of an answer that had length bytes.
func (c *nodeCache) addPages(pages []wire.DirPage, length int) {
	if len(pages) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	count := len(pages) // an empty one takes memory, too
	for _, p := range pages {
		count += len(p.Entries)
		for i := range p.Entries {
			c.nodes[p.Entries[i].Ino] = node{entry: &p.Entries[i]}
		}
	}
	c.keep(told{pages: pages, size: length + count*entrySize})
}

// addNames makes the files of a page known that tells names alone.
func (c *nodeCache) addNames(l *nameListing, p *wire.DirPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.dropped {
		return
	}
	l.complete = p.Last
	if len(p.Entries) == 0 {
		return // a disk may have any number of large directories without a file
	}
	if len(l.files) == 0 {
		c.listings = append(c.listings, l)
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		c.nodes[e.Ino] = node{in: l, index: len(l.files)}
		l.ordering.add()
		l.files, l.names = append(l.files, namedFile{ino: e.Ino}), append(l.names, e.Name)
	}
	c.named += len(p.Entries)
	for c.named > maxNamed && len(c.listings) > 1 {
		old := c.listings[0]
		c.listings = c.listings[1:]
		c.named -= len(old.files)
		old.dropped = true
		for i := range old.files {
			if ino := old.files[i].ino; c.nodes[ino].in == old {
				delete(c.nodes, ino)
			}
		}
	}
}

// addDescription adds what was told about the files of k, in an answer of length
// bytes. The last ones, of which nothing was told, count as not asked for, as there may
// have been no room for them. Others, and all if there is none, are not to be asked about
// in this way again. It returns the entries of those that were told.
func (c *nodeCache) addDescription(k *description, list []wire.Entry, length int) []wire.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := len(list) // of what was told
	for end > 0 && list[end-1].Inode == nil {
		end--
	}
	n := 0
	for i, index := range k.files {
		f := &k.in.files[index]
		if list[i].Inode == nil {
			if i >= end && end > 0 {
				f.asked = nil
			}
			continue
		}
		list[n], k.files[n] = list[i], index
		f.entry = &list[n]
		n++
	}
	k.files = slices.Clip(k.files[:n])
	if n == 0 {
		return nil
	}
	c.keep(told{description: k, size: length + n*entrySize})
	return list[:n]
}

// keep makes room for an answer.
func (c *nodeCache) keep(a told) {
	c.answers = append(c.answers, a)
	c.size += a.size
	for c.size > maxNodeBytes && len(c.answers) > 1 {
		c.forget(c.answers[0])
		c.answers = c.answers[1:]
	}
}

func (c *nodeCache) forget(a told) {
	c.size -= a.size
	for _, p := range a.pages {
		for i := range p.Entries {
			// A later page may know the same file under another name.
			if ino := p.Entries[i].Ino; c.nodes[ino].entry == &p.Entries[i] {
				delete(c.nodes, ino)
			}
		}
	}
	if k := a.description; k != nil {
		for _, index := range k.files {
			if f := &k.in.files[index]; f.asked == k {
				f.asked, f.entry = nil, nil
			}
		}
	}
}

// known returns what is known of a file; nil if that is nothing.
func (c *nodeCache) known(ino uint64) *wire.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(ino)
}

// open is known of a file that is opened.
func (c *nodeCache) open(ino uint64) *wire.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	return c.find(ino)
}

// memory is how many files that were looked at tell whether others will be read.
const memory = 256

// reads reports whether the caller opens what he looks at, as a rule.
func (c *nodeCache) reads() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading()
}

// reading is reads, for who holds mu.
func (c *nodeCache) reading() bool {
	if c.looked > memory {
		c.looked, c.opened = c.looked/2, c.opened/2
	}
	return c.opened >= missCost && c.opened >= c.looked/2
}

// find is known, for who holds mu. Several things are wanted of a file in turn.
func (c *nodeCache) find(ino uint64) *wire.Entry {
	if c.last != nil && c.last.Ino == ino {
		return c.last
	}
	n := c.nodes[ino]
	c.last = n.entry
	if n.in != nil {
		c.last = n.in.files[n.index].entry
	}
	return c.last
}

// want is known of a file that is about to be looked at. One that was listed by its
// name alone is asked about, if that was not done, and the files that are likely to be
// wanted next; k is what was asked, and may have to be waited for.
func (c *nodeCache) want(ino uint64) (e *wire.Entry, k *description, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Ino != ino {
		c.looked++
	}
	n := c.nodes[ino]
	if n.in == nil {
		c.last = n.entry
		return n.entry, nil, nil
	}
	f := &n.in.files[n.index]
	n.in.sortFor(n.index)
	c.expected.learn(n.in.place(n.index))
	if f.asked == nil {
		if err := c.describe(n.in, n.index, nil); err != nil {
			return nil, nil, err
		}
	}
	k = f.asked
	if !k.ahead {
		if err := c.askAfter(k); err != nil {
			return nil, nil, err
		}
	}
	c.last = f.entry
	return f.entry, k, nil
}

// askAfter asks for the description after k, if the caller goes on in order.
func (c *nodeCache) askAfter(k *description) error {
	if _, score := c.expected.expect(); len(k.files) == 0 || score < missCost {
		return nil
	}
	k.ahead = true
	for next := range c.following(k.in, k.files[len(k.files)-1]) {
		return c.describe(k.in, next, k)
	}
	return nil
}

// sortFor sorts the names if the file at index is not the next one in the order of the
// disk.
func (l *nameListing) sortFor(index int) {
	if gap := index - l.last[diskOrder]; !l.complete || l.byName != nil || max(gap, -gap) <= nearby {
		return
	}
	l.sort(l.names, func(index, place int) { l.files[index].rank = place })
	l.names = nil // they keep the pages
}

func (l *nameListing) place(index int) place {
	return place{in: &l.ordering, at: [orders]int{diskOrder: index, nameOrder: l.files[index].rank}}
}

// maxPassed bounds how far a file that was not asked about is looked for: a damaged
// disk may have few in many.
const maxPassed = 2 * wire.MaxDescribe

// following returns the files after one that were not asked about.
func (c *nodeCache) following(l *nameListing, index int) iter.Seq[int] {
	order, _ := c.expected.expect()
	return func(yield func(int) bool) {
		passed := 0
		for i := range l.place(index).following(order) {
			if passed++; passed > maxPassed || l.files[i].asked == nil && !yield(i) {
				return
			}
		}
	}
}

// describe asks what the file at index is, and as many of those that follow it as is
// sure enough.
func (c *nodeCache) describe(l *nameListing, index int, before *description) error {
	k := &description{in: l, contents: c.reading(), done: make(chan struct{})}
	_, score := c.expected.expect()
	add := func(index int) bool {
		if len(k.files) == 1<<score {
			return false
		}
		l.files[index].asked = k
		k.files = append(k.files, index)
		return true
	}
	add(index)
	c.following(l, index)(add)
	err := c.ask(k, before)
	if err != nil {
		for _, index := range k.files { // nobody is to wait for it
			l.files[index].asked = nil
		}
	}
	return err
}

// describe asks what the files of k are.
func (fs *filesystem) describe(k, before *description) error {
	r := wire.Describe{Tree: fs.tree, Contents: k.contents}
	for _, index := range k.files {
		r.Inos = append(r.Inos, k.in.files[index].ino)
	}
	c, err := fs.client.send(wire.OpDescribe, r)
	if err == nil {
		go fs.receive(c, r, k, before)
	}
	return err
}

// receive takes the answer to r, while the caller works on what came before.
func (fs *filesystem) receive(c *call, r wire.Describe, k, before *description) {
	defer close(k.done)
	<-c.done
	list := make([]wire.Entry, len(r.Inos)) // if it is answered with an error: each file may be known alone
	if c.err == nil {
		var err error
		if list, err = wire.DecodeDescriptions(c.body, r, fs.files.sizes); err != nil {
			k.err = fs.client.lied(c, err)
			return
		}
	}
	list = fs.nodes.addDescription(k, list, len(c.body))
	fs.small.append(&k.small, &wire.DirPage{Entries: list})
	if before != nil {
		<-before.done
		fs.small.chain(&before.small, &k.small)
		k.err = fs.small.foresee(&before.small)
	}
}

// entry returns what is known of a file that is about to be looked at; nil if it is to
// be asked for alone.
func (fs *filesystem) entry(ino uint64) (*wire.Entry, error) {
	e, k, err := fs.nodes.want(ino)
	if e != nil || k == nil || err != nil {
		return e, err
	}
	<-k.done
	return fs.nodes.known(ino), k.err
}
