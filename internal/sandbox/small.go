package sandbox

import (
	"iter"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Most files are small, and a round trip costs as much as reading one. So small
// files are read several at a time: when a caller reads the files of a directory
// one after the other, in the order in which the disk keeps them or in the order
// of their names, the next ones are there before it asks.
const (
	// smallSize is the size up to which a file is read in whole: that of a window, with
	// which reading ahead within a file begins.
	smallSize = windowSize
	// maxBatches is how many batches of at most [wire.MaxData] are kept.
	maxBatches = 8
	// maxBatchesAhead is how many of them are ahead of a steady reader: fewer than there are
	// slots, which larger files need too.
	maxBatchesAhead = 3
	// maxListed bounds how many small files are known with their order.
	maxListed = 64 << 10
)

// smallReader reads small files.
type smallReader struct {
	client *client
	tree   uint32

	mu       sync.Mutex // guards what follows, and all that hangs on it
	files    map[uint64]*smallFile
	listings []*listing // oldest first
	listed   int        // how many files they have
	batches  []*batch   // oldest first
	expected predictor
	first    *batch      // what was asked for when the last directory was listed
	guesses  [2]*listing // of which something was asked for ahead, the older one first
}

// listing is the small files of one directory.
type listing struct {
	ordering
	files   []*smallFile
	names   [][]byte // of the files, until they are sorted: they keep their pages
	dropped bool     // there were too many
	next    *listing // of the files that are read next; may be nil
	read    int      // how many of the files were
	kept    int      // what it counts for among all that are kept
}

// smallFile is a file that may be read in whole.
type smallFile struct {
	place
	ino  uint64
	size uint32
	read bool
	list *listing // nil for one that was not listed

	batch *batch // that holds, or will hold, its content; or nil
	index int    // in batch
}

// batch is the content of several small files.
type batch struct {
	request wire.ReadMany
	files   []*smallFile
	call    *call
	used    bool
	ahead   bool // the batch after this one was asked for

	once     sync.Once // guards what follows
	contents []wire.Content
	err      error
}

// add makes the files of a directory page known. All pages of a directory go to
// one listing.
func (s *smallReader) add(l *listing, p *wire.DirPage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gather(l, p)
	if p.Last && !l.dropped {
		s.complete(l)
	}
}

// append makes the files of a page known that are expected in the order of the page,
// whichever that is.
func (s *smallReader) append(l *listing, p *wire.DirPage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gather(l, p)
	l.names = nil
	l.byName = make([]int, len(l.files))
	for i := range l.byName {
		l.byName[i], l.files[i].at[nameOrder] = i, i
	}
	s.keep(l)
}

// chain says that the files of next are expected after those of l.
func (s *smallReader) chain(l, next *listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.next = next
}

// foresee says that the files of those chained to l are expected soon. If the caller
// has been reading files in order, it asks for the first ones.
func (s *smallReader) foresee(l *listing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The caller is where he was expected to be last, so the guess before is old.
	if old := s.guesses[0]; old != nil && old.read == 0 {
		s.expected.doubt() // he was there, and did not read
	}
	s.guesses[0], s.guesses[1] = s.guesses[1], nil
	order, score := s.expected.expect()
	if score < missCost {
		return nil
	}
	for l = l.next; l != nil; l = l.next {
		for i := range l.all(order) {
			if l.files[i].batch != nil {
				return nil
			}
			s.guesses[1] = l
			return s.fetch(l.files[i])
		}
	}
	return nil
}

// gather adds the small files of a page to a listing.
func (s *smallReader) gather(l *listing, p *wire.DirPage) {
	for i := range p.Entries {
		e := &p.Entries[i]
		n := e.Inode
		if n == nil || n.Type() != disk.ModeRegular || n.Size <= 0 || n.Size > smallSize || e.Pieces != nil || e.Content != nil || l.dropped {
			continue
		}
		if len(l.files) == maxListed {
			s.forget(l)
			l.dropped, l.names = true, nil
			continue
		}
		f := &smallFile{place: l.add(), ino: n.Ino, size: uint32(n.Size), list: l}
		l.files, l.names = append(l.files, f), append(l.names, e.Name)
		s.files[f.ino] = f
	}
}

// complete puts a listing in order, and keeps it.
func (s *smallReader) complete(l *listing) {
	l.sort(l.names, func(index, place int) { l.files[index].at[nameOrder] = place })
	l.names = nil
	s.keep(l)
}

// end says that no more is told of a listing. One of a directory that was not read to its
// end is kept like any other: in the order of the disk alone.
func (s *smallReader) end(l *listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.names != nil {
		l.names = nil
		s.keep(l)
	}
}

// keep makes room for a listing. One of a directory that was listed again counts as well.
func (s *smallReader) keep(l *listing) {
	if len(l.files) == 0 {
		return
	}
	s.listings = append(s.listings, l)
	l.kept = len(l.files)
	s.listed += l.kept
	for s.listed > maxListed && len(s.listings) > 1 {
		s.listed -= s.listings[0].kept
		s.forget(s.listings[0])
		s.listings = s.listings[1:]
	}
}

// anticipate asks for the first files of a listing, if the caller has been
// reading files in order: it will want those of this directory too.
func (s *smallReader) anticipate(l *listing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first != nil && !s.first.used {
		s.expected.doubt() // the caller lists, but does not read
	}
	s.first = nil
	order, score := s.expected.expect()
	if score < missCost || l.dropped {
		return nil
	}
	for i := range l.all(order) {
		f := l.files[i]
		if f.batch != nil {
			return nil
		}
		err := s.fetch(f)
		s.first = f.batch
		return err
	}
	return nil
}

func (s *smallReader) forget(l *listing) {
	for _, f := range l.files {
		if s.files[f.ino] == f {
			delete(s.files, f.ino)
		}
	}
}

// read returns the content of a small file; not Told if it must be read in the
// ordinary way.
func (s *smallReader) read(ino uint64, size uint32) (wire.Content, error) {
	s.mu.Lock()
	f := s.files[ino]
	if f == nil || f.size != size {
		f = &smallFile{ino: ino, size: size} // not listed lately: read alone
	}
	b, index, err := s.batchOf(f)
	s.mu.Unlock()
	if err != nil {
		return wire.Content{}, err
	}
	<-b.call.done
	if b.call.err != nil {
		// The batch as such cannot be answered. The file may be.
		return wire.Content{}, nil
	}
	b.once.Do(func() { b.contents, b.err = wire.DecodeMany(b.call.body, b.request, b.call.dst) })
	if b.err != nil {
		return wire.Content{}, s.client.lied(b.call, b.err)
	}
	return b.contents[index], nil
}

// batchOf returns the batch that holds f, and asks for it, and for the one after
// it, where that is due.
func (s *smallReader) batchOf(f *smallFile) (*batch, int, error) {
	s.expected.learn(f.place)
	s.passed(f)
	if f.batch == nil {
		if err := s.fetch(f); err != nil {
			return nil, 0, err
		}
	}
	b, index := f.batch, f.index
	b.used = true
	// In the second half of a batch those after it are asked for, if the caller has
	// been reading in order for long enough to expect that it goes on.
	if order, score := s.expected.expect(); !b.ahead && score >= missCost && index >= len(b.files)/2 {
		b.ahead = true
		for next := range following(b.files[len(b.files)-1], order) {
			if s.unused(b) >= ahead(score) {
				break
			}
			if err := s.fetch(next); err != nil {
				return nil, 0, err
			}
		}
	}
	return b, index, nil
}

// passed counts f as read. A listing of which all were counts as one file and knows none:
// it would take 200 bytes for each.
func (s *smallReader) passed(f *smallFile) {
	l := f.list
	if l == nil || f.read {
		return
	}
	f.read = true
	if l.read++; l.read == l.kept {
		s.forget(l)
		s.listed -= l.kept - 1
		l.files, l.ordering, l.kept = nil, ordering{}, 1
	}
}

// ahead is how many batches are to be ahead of a caller: one, or, of one who has gone in
// order for long, as many as keep the worker at work while the caller's processors are
// busy with something else.
func ahead(score int) int {
	if score < maxScore {
		return 1
	}
	return maxBatchesAhead
}

// unused returns how many batches that were asked for after b nothing was read of. Those
// before it were wrong guesses.
func (s *smallReader) unused(after *batch) (n int) {
	for _, b := range slices.Backward(s.batches) {
		if b == after {
			break
		}
		if !b.used {
			n++
		}
	}
	return n
}

// following returns the files after f that are in no batch yet, in its directory
// and in those that are walked through next.
func following(f *smallFile, order int) iter.Seq[*smallFile] {
	return func(yield func(*smallFile) bool) {
		if f.list == nil {
			return
		}
		for i := range f.following(order) {
			if next := f.list.files[i]; next.batch == nil && !yield(next) {
				return
			}
		}
		for l := f.list.next; l != nil; l = l.next {
			for i := range l.all(order) {
				if next := l.files[i]; next.batch == nil && !yield(next) {
					return
				}
			}
		}
	}
}

// fetch asks for f, and for as many of those that follow it as is sure enough.
func (s *smallReader) fetch(f *smallFile) error {
	b := &batch{request: wire.ReadMany{Tree: s.tree}}
	order, score := s.expected.expect()
	total := 0
	add := func(f *smallFile) bool {
		if total += int(f.size); total > wire.MaxData || len(b.files) == 1<<score {
			return false
		}
		f.batch, f.index = b, len(b.files)
		b.files = append(b.files, f)
		b.request.Files = append(b.request.Files, wire.SmallFile{Ino: f.ino, Size: f.size})
		return true
	}
	add(f)
	following(f, order)(add)

	k, err := s.client.sendMany(&b.request)
	if err != nil {
		for _, f := range b.files { // nobody is to wait for it
			f.batch = nil
		}
		return err
	}
	b.call = k
	s.batches = append(s.batches, b)
	if len(s.batches) > maxBatches {
		for _, old := range s.batches[0].files {
			old.batch = nil
		}
		s.batches = s.batches[1:]
	}
	return nil
}
