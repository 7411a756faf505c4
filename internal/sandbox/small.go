package sandbox

import (
	"bytes"
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
	// smallSize is the size up to which a file is read in whole.
	smallSize = 128 << 10
	// maxBatches is how many batches of at most [wire.MaxData] are kept.
	maxBatches = 8
	// maxListed bounds how many small files are known with their order.
	maxListed = 64 << 10
	// nearby is how far from its expected place a file may be read by a
	// caller that still counts as going in order: one that reads a few files
	// at once, or leaves some out.
	nearby = 8
	// maxScore bounds how sure a prediction can be: a batch has up to
	// 1<<score files.
	maxScore = 9
	// missCost is how many right predictions a wrong one outweighs.
	missCost = 4
)

// The orders in which files are expected to be read.
const (
	diskOrder = iota
	nameOrder
	orders
)

// smallReader reads small files.
type smallReader struct {
	client *client
	volume uint32

	mu       sync.Mutex // guards what follows, and all that hangs on it
	files    map[uint64]*smallFile
	listings []*listing // oldest first
	batches  []*batch   // oldest first
	last     *smallFile // the one that was read last
	score    [orders]int
}

// listing is the small files of one directory.
type listing struct {
	files   [orders][]*smallFile
	dropped bool // there were too many
}

// smallFile is a file that may be read in whole.
type smallFile struct {
	ino   uint64
	size  uint32
	name  []byte
	in    *listing
	place [orders]int // in in.files

	batch *batch // that holds, or will hold, its content; or nil
	index int    // in batch
}

// batch is the content of several small files.
type batch struct {
	request wire.ReadMany
	files   []*smallFile
	call    *call
	ahead   bool // the batch after this one was asked for

	once     sync.Once // guards what follows
	contents []wire.Content
	err      error
}

// add makes the files of a directory page known. All pages of a directory go to
// one listing.
func (s *smallReader) add(l *listing, entries []wire.Entry, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range entries {
		n := entries[i].Inode
		if n == nil || n.Type() != disk.ModeRegular || n.Size <= 0 || n.Size > smallSize || l.dropped {
			continue
		}
		list := l.files[diskOrder]
		if len(list) == maxListed {
			s.forget(l)
			l.dropped = true
			continue
		}
		f := &smallFile{ino: n.Ino, size: uint32(n.Size), name: entries[i].Name, in: l}
		f.place[diskOrder] = len(list)
		l.files[diskOrder] = append(list, f)
		s.files[f.ino] = f
	}
	if !last || l.dropped || len(l.files[diskOrder]) == 0 {
		return
	}
	sorted := slices.Clone(l.files[diskOrder])
	slices.SortFunc(sorted, func(a, b *smallFile) int { return bytes.Compare(a.name, b.name) })
	for i, f := range sorted {
		f.place[nameOrder] = i
		f.name = nil // it would keep its page
	}
	l.files[nameOrder] = sorted
	s.listings = append(s.listings, l)
	for len(s.files) > maxListed && len(s.listings) > 1 {
		s.forget(s.listings[0])
		s.listings = s.listings[1:]
	}
}

func (s *smallReader) forget(l *listing) {
	for _, f := range l.files[diskOrder] {
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
	order := s.learn(f)
	if f.batch == nil {
		if err := s.fetch(f, order); err != nil {
			return nil, 0, err
		}
	}
	b, index := f.batch, f.index
	// In the second half of a batch the next one is asked for, if the caller
	// has been reading in order for long enough to expect that it goes on.
	if !b.ahead && s.score[order] >= missCost && index >= len(b.files)/2 {
		b.ahead = true
		if next := following(b.files[len(b.files)-1], order); next != nil {
			if err := s.fetch(next, order); err != nil {
				return nil, 0, err
			}
		}
	}
	return b, index, nil
}

// learn compares what is read with what was expected, and returns the order in
// which the caller seems to read.
func (s *smallReader) learn(f *smallFile) int {
	for order := range orders {
		switch {
		case f.in == nil, f.in.files[order] == nil:
			s.score[order] = 0
		case f.place[order] < nearby,
			s.last != nil && s.last.in == f.in && abs(f.place[order]-s.last.place[order]) <= nearby:
			s.score[order] = min(s.score[order]+1, maxScore)
		default:
			s.score[order] = max(s.score[order]-missCost, 0)
		}
	}
	s.last = f
	if s.score[nameOrder] > s.score[diskOrder] {
		return nameOrder
	}
	return diskOrder
}

func abs(n int) int { return max(n, -n) }

// following returns the first file after f that is in no batch yet, or nil.
func following(f *smallFile, order int) *smallFile {
	if f.in == nil || f.in.files[order] == nil {
		return nil
	}
	for _, next := range f.in.files[order][f.place[order]+1:] {
		if next.batch == nil {
			return next
		}
	}
	return nil
}

// fetch asks for f, and for as many of those that follow it as the score
// justifies.
func (s *smallReader) fetch(f *smallFile, order int) error {
	b := &batch{request: wire.ReadMany{Volume: s.volume}}
	total := 0
	for limit := 1 << s.score[order]; f != nil && len(b.files) < limit; f = following(f, order) {
		if total += int(f.size); total > wire.MaxData {
			break
		}
		f.batch, f.index = b, len(b.files)
		b.files = append(b.files, f)
		b.request.Files = append(b.request.Files, wire.SmallFile{Ino: f.ino, Size: f.size})
	}
	k, err := s.client.sendMany(&b.request)
	if err != nil {
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
