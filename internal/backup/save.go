package backup

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxQueued bounds the bytes that were read and are not saved yet. It is what
	// keeps all cores busy while the walk waits for the disk, and the disk while all
	// cores compress.
	maxQueued = 32 << 20
	// maxJobs bounds the same for small files.
	maxJobs = 256
)

// promise is blobs that are being saved.
type promise struct {
	done  chan struct{}   // closed when ids is complete
	holes json.RawMessage // the record of a file's holes, there at once; may be nil

	mu   sync.Mutex      // guards what follows until done is closed
	ids  []repository.ID // in order; those that are not saved yet are zero
	left int             // how many are not, and one more until complete is called
}

func newPromise() *promise { return &promise{done: make(chan struct{}), left: 1} }

// kept returns a promise that is kept already.
func kept(ids []repository.ID) *promise {
	p := newPromise()
	p.ids = ids
	p.complete()
	return p
}

// expect adds a blob that is to be saved, and returns which one it is.
func (p *promise) expect() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left++
	p.ids = append(p.ids, repository.ID{})
	return len(p.ids) - 1
}

// repeat adds one that is saved, n times.
func (p *promise) repeat(id repository.ID, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids = slices.Grow(p.ids, n)
	for range n {
		p.ids = append(p.ids, id)
	}
}

// set says that an expected blob is saved.
func (p *promise) set(which int, id repository.ID) {
	p.mu.Lock()
	p.ids[which] = id
	p.mu.Unlock()
	p.complete()
}

// complete says that one thing less is waited for; of who expects blobs, that there
// are no more.
func (p *promise) complete() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left--; p.left == 0 {
		close(p.done)
	}
}

// job is a blob to be saved: one of those that were promised.
type job struct {
	data  *[]byte
	of    *promise
	which int
}

// chunkBuffers holds *[]byte with room for MinChunk bytes or more.
var chunkBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, repository.MinChunk)
	return &b
}}

// chunks cuts what r has into blobs, and leaves saving them to others.
func (w *walker) chunks(p *promise, r io.Reader) error {
	w.cutter.Reset(r)
	for {
		buf := chunkBuffers.Get().(*[]byte)
		chunk, err := w.cutter.Next(*buf)
		if err != nil {
			chunkBuffers.Put(buf)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		*buf = chunk // it may have grown
		if err := w.put(p, buf); err != nil {
			return err
		}
	}
}

// put has a blob saved, which p is to have. It waits while there are many.
func (w *walker) put(p *promise, data *[]byte) error {
	if w.queued.Acquire(w.ctx, int64(len(*data))) != nil {
		return context.Cause(w.ctx)
	}
	select {
	case w.jobs <- job{data, p, p.expect()}:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// save saves blobs until there are no more.
func (w *walker) save() {
	for j := range w.jobs {
		size := int64(len(*j.data))
		if w.ctx.Err() == nil {
			id, stored, err := w.repo.SaveBlob(w.ctx, repository.DataBlob, *j.data)
			if err != nil {
				w.cancel(err)
			} else {
				w.report.stored(stored)
				j.of.set(j.which, id)
			}
		}
		if cap(*j.data) >= repository.MinChunk {
			chunkBuffers.Put(j.data)
		}
		w.queued.Release(size)
	}
}
