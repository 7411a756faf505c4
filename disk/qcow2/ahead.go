package qcow2

import "sync"

// Reading ahead: a read that goes on where another ended, or a little behind, is
// taken for a stream, and the compressed clusters that come next are decompressed
// while the caller is busy with what it has.
const (
	// maxStreams is how many streams are followed at a time: enough for a copy
	// of several files, or of a disk in a few parts.
	maxStreams = 4
	// maxGap is what a stream may leave out, in bytes: the ends of the blocks of
	// files that are read one after the other, and what lies between them.
	maxGap = 64 << 10
	// minAhead is how far the first reading ahead goes, in bytes of the disk.
	// Each one goes twice as far, so that two small reads cost little.
	minAhead = 128 << 10
	// aheadShare is the part of the cluster cache's budget that one stream may
	// fill in advance: all of them together cannot drive out what they wait for.
	aheadShare = maxStreams
)

// streams are the sequential reads of an image.
type streams struct {
	limit int64 // bytes of the disk that a stream may be ahead

	mu    sync.Mutex // guards everything below
	clock uint64
	list  [maxStreams]stream
	// pending are the clusters that are being read ahead, by their L2 entry.
	pending map[uint64]promise
}

// stream is a reader that went on where it had ended before.
type stream struct {
	next   int64  // where it will go on
	ahead  int64  // up to where clusters have been read ahead
	window int64  // how far it may be ahead
	used   uint64 // the clock when it was last seen
}

// promise is a cluster that a worker will have decompressed when its batch is
// done.
type promise struct {
	batch *batch
	index int
}

// newStreams returns nil where a cache of budget bytes has no room for clusters
// to be read ahead.
func newStreams(budget, clusterSize int64) *streams {
	if budget/aheadShare < clusterSize {
		return nil
	}
	return &streams{limit: budget / aheadShare, pending: make(map[uint64]promise)}
}

// advance takes note of a read of [off, end), and returns the range to read ahead
// now, which is mostly empty.
func (s *streams) advance(off, end, size int64) (int64, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	oldest := &s.list[0]
	for i := range s.list {
		st := &s.list[i]
		if off >= st.next && off-st.next <= maxGap && st.used != 0 {
			st.next, st.used = end, s.clock
			return st.advance(s.limit, size)
		}
		if st.used < oldest.used {
			oldest = st
		}
	}
	*oldest = stream{next: end, ahead: end, used: s.clock}
	return 0, 0
}

func (st *stream) advance(limit, size int64) (int64, int64) {
	if st.ahead-st.next > st.window/2 {
		return 0, 0
	}
	st.window = min(max(2*st.window, minAhead), limit)
	from := max(st.ahead, st.next)
	st.ahead = max(from, min(st.next+st.window, size))
	return from, st.ahead
}

// readAhead has the clusters decompressed that a reader of [off, end) is likely
// to want next.
func (im *Image) readAhead(off, end int64) {
	from, to := im.streams.advance(off, end, im.size)
	size := im.mapping.clusterSize()
	var b *batch
	for from = (from + size - 1) &^ (size - 1); from < to; {
		r, err := im.mapping.at(from, min(max(to-from, size), im.size-from))
		if err != nil {
			break // who reads there meets it again
		}
		if r.kind == runCompressed && im.clusters.Get(r.entry) == nil {
			if b == nil {
				b = im.newBatch(batchBytes)
				b.ahead = true
			}
			im.streams.promise(b, cluster{run: r, at: from})
		}
		if from += r.length; b != nil && b.full(size) {
			im.workers.add(b)
			b = nil
		}
	}
	if b != nil && len(b.clusters) > 0 {
		im.workers.add(b)
	}
}

// promise adds c to b, unless another batch has it.
func (s *streams) promise(b *batch, c cluster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[c.run.entry]; ok {
		return
	}
	s.pending[c.run.entry] = promise{b, len(b.clusters)}
	b.add(c)
}

// promised returns the promise of the cluster with this L2 entry.
func (im *Image) promised(entry uint64) (promise, bool) {
	if im.streams == nil {
		return promise{}, false
	}
	im.streams.mu.Lock()
	defer im.streams.mu.Unlock()
	p, ok := im.streams.pending[entry]
	return p, ok
}

// kept forgets the promises of b, which has been worked on.
func (s *streams) kept(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range b.clusters {
		delete(s.pending, c.run.entry)
	}
}

// takeAhead waits for a cluster that is being read ahead; what nobody has begun
// with it does itself, since other reads may keep all workers busy. A cluster that
// failed is tried again, for the error to be that of this read.
func (im *Image) takeAhead(w wait) error {
	if im.workers.take(w.ahead.batch) {
		im.work(w.ahead.batch)
	}
	<-w.ahead.batch.done
	if whole := w.ahead.batch.clusters[w.ahead.index].whole; whole != nil {
		copy(w.part.dst, whole[w.part.within:])
		return nil
	}
	b := &batch{clusters: []cluster{w.part}}
	im.decompressBatch(b)
	return b.err
}
