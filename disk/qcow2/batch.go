package qcow2

import (
	"runtime"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// batchBytes is how much of the disk one goroutine decompresses at a time:
	// enough for the cost of handing it over not to show, and little enough for
	// a read of 1 MiB to keep four processors busy.
	batchBytes = 256 << 10
	// maxFetch is the most that one read of the file takes for a batch, in
	// bytes. A cluster that is larger is read by itself.
	maxFetch = 1 << 20
)

// cluster is a compressed cluster that is to be decompressed.
type cluster struct {
	run run
	at  int64 // guest offset, of dst

	// dst is where the bytes from within on go; nil for a cluster that is read
	// ahead.
	dst    []byte
	within int64
	// whole is the cluster as the cache keeps it; nil where dst takes all of it.
	whole []byte
}

// batch is a few compressed clusters for one goroutine.
type batch struct {
	clusters []cluster
	bytes    int64 // guest bytes
	ahead    bool  // nobody waits for it yet

	// done is closed when the batch has been worked on. Until then the fields
	// below, and each cluster's dst and whole, are the worker's.
	done chan struct{}
	good int // the clusters before this one have been decompressed
	// failedAt is the guest offset of what could not be read, and err why.
	failedAt int64
	err      error
}

// work does a batch for those that wait for it.
func (im *Image) work(b *batch) {
	im.decompressBatch(b)
	if b.ahead {
		im.streams.kept(b)
	}
	close(b.done)
}

// newBatch returns a batch with room for length bytes of the disk, if that is
// not more than a batch takes.
func (im *Image) newBatch(length int64) *batch {
	return &batch{
		clusters: make([]cluster, 0, max(1, min(length, batchBytes)/im.mapping.clusterSize())),
		done:     make(chan struct{}),
	}
}

func (b *batch) add(c cluster) {
	b.clusters = append(b.clusters, c)
	b.bytes += c.run.length
}

func (b *batch) full(clusterSize int64) bool { return b.bytes > batchBytes-clusterSize }

// decompressBatch fetches and decompresses the clusters of b, up to the first
// that fails.
func (im *Image) decompressBatch(b *batch) {
	for b.good < len(b.clusters) && b.err == nil {
		n, end := b.adjacent()
		start := b.clusters[b.good].run.host
		in := im.codec.input(int(end - start))
		if err := ondisk.ReadFull(im.r, *in, start); err == nil {
			im.decompressFetched(b, n, *in, start)
		} else if n == 1 {
			b.fail(layer.Unreadable("compressed cluster", start, err))
		} else {
			im.decompressEach(b, n, *in)
		}
		im.codec.release(in)
	}
}

func (b *batch) fail(err error) { b.failedAt, b.err = b.clusters[b.good].at, err }

// adjacent returns how many of the next clusters lie one behind the other, and
// where in the file the last ends. A cluster's stored bytes are counted in
// sectors, so it mostly overlaps with the next.
func (b *batch) adjacent() (int, int64) {
	next := b.clusters[b.good:]
	start := next[0].run.host
	end := start + next[0].run.stored
	n := 1
	for ; n < len(next); n++ {
		r := next[n].run
		if r.host < start || r.host > end || r.host+r.stored-start > maxFetch {
			break
		}
		end = max(end, r.host+r.stored)
	}
	return n, end
}

// decompressFetched decompresses n clusters from in, the bytes of the file at
// offset start.
func (im *Image) decompressFetched(b *batch, n int, in []byte, start int64) {
	for range n {
		r := b.clusters[b.good].run
		from := r.host - start
		if err := im.decompress(&b.clusters[b.good], in[from:from+r.stored]); err != nil {
			b.fail(err)
			return
		}
		b.good++
	}
}

// decompressEach is for n clusters that could not be read together: those before
// the one that cannot be read at all are still good. in has room for each.
func (im *Image) decompressEach(b *batch, n int, in []byte) {
	for range n {
		r := b.clusters[b.good].run
		if err := ondisk.ReadFull(im.r, in[:r.stored], r.host); err != nil {
			b.fail(layer.Unreadable("compressed cluster", r.host, err))
			return
		}
		im.decompressFetched(b, 1, in[:r.stored], r.host)
		if b.err != nil {
			return
		}
	}
}

// decompress decompresses c from in, to where it is wanted.
func (im *Image) decompress(c *cluster, in []byte) error {
	size := im.mapping.clusterSize()
	out := c.dst
	if int64(len(out)) != size {
		c.whole = make([]byte, size)
		out = c.whole
	}
	if err := im.codec.decompress(out, in); err != nil {
		c.whole = nil
		return layer.Damaged("compressed cluster", c.run.host, "%v", err)
	}
	if c.whole != nil {
		im.clusters.Add(c.run.entry, c.whole)
		copy(c.dst, c.whole[c.within:])
	}
	return nil
}

// workers are the goroutines of an image, at most one for each processor. One
// ends when there is nothing left to do, so an image needs no closing.
type workers struct {
	work func(*batch)

	mu           sync.Mutex // guards everything below
	running      int
	first, later []*batch // wanted by a read that waits, and read ahead
}

// add has b worked on. What is read ahead waits until nothing else is to be done.
func (w *workers) add(b *batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.ahead {
		w.later = append(w.later, b)
	} else {
		w.first = append(w.first, b)
	}
	if w.running < runtime.GOMAXPROCS(0) {
		w.running++
		go w.run()
	}
}

func (w *workers) run() {
	for b := w.next(); b != nil; b = w.next() {
		w.work(b)
	}
}

// next returns the next batch; or nil, when the worker that asks is to end.
func (w *workers) next() *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range []*[]*batch{&w.first, &w.later} {
		if q := *queue; len(q) > 0 {
			b := q[0]
			q[0] = nil // its clusters are not to be kept alive
			*queue = q[1:]
			return b
		}
	}
	w.running--
	return nil
}

// take takes back a batch that was to be read ahead, if nobody has begun with it.
func (w *workers) take(b *batch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.later, b)
	if i < 0 {
		return false
	}
	w.later = slices.Delete(w.later, i, i+1)
	return true
}
