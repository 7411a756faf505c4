package repository

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// currentIndex returns the index, which is empty before LoadIndex.
func (r *Repository) currentIndex() *index {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idx == nil {
		r.idx, r.loaded = newIndex(), make(map[ID]bool)
	}
	return r.idx
}

// LoadIndex reads the index files that were not read before. It comes after
// [Repository.Lock] and before any use of blobs; who reads a snapshot that
// somebody else made lists the snapshots first, since an index is older than
// what needs it.
//
// An index file that cannot be read does not hide the others: the error names
// it, and everything else can be used. Blobs that only it names are then unknown:
// a backup would store them again.
func (r *Repository) LoadIndex(ctx context.Context) error {
	const op = "load index"
	r.loadMu.Lock()
	defer r.loadMu.Unlock()
	ids, err := r.listFiles(ctx, op, backend.IndexFile)
	if err != nil {
		return err
	}
	idx := r.currentIndex()
	if r.anyGone(ids) {
		// A prune rewrote the index. What the old files said may be wrong now.
		if idx, err = r.renewIndex(); err != nil {
			return &Error{Op: op, Err: err}
		}
	}
	var mu sync.Mutex // guards errs
	var errs []error
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, id := range ids {
		if r.isLoaded(id) {
			continue
		}
		g.Go(func() error {
			if err := r.loadIndexFile(ctx, op, idx, id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return errors.Join(errs...)
}

// loadIndexFile adds what one index file says.
func (r *Repository) loadIndexFile(ctx context.Context, op string, idx *index, id ID) error {
	h := backend.Handle{Type: backend.IndexFile, Name: id.String()}
	sealed, err := r.loadSealedFile(ctx, op, h, id)
	if err != nil {
		return err
	}
	rd, err := r.codec.openStream(sealed)
	if err == nil {
		err = decodeIndex(rd, idx.add)
	}
	if err != nil {
		return damaged(op, h, "%w", err)
	}
	r.setLoaded(id)
	return nil
}

func (r *Repository) isLoaded(id ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loaded[id]
}

// setLoaded remembers that the index knows what index file id says.
func (r *Repository) setLoaded(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded[id] = true
}

// anyGone reports whether an index file that was loaded is not among ids.
func (r *Repository) anyGone(ids []ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, id := range ids {
		if r.loaded[id] {
			n++
		}
	}
	return n < len(r.loaded)
}

// ForgetIndex gives back the memory of the index, but for what was saved since the last
// Flush. LoadIndex reads it again.
func (r *Repository) ForgetIndex() error {
	r.loadMu.Lock()
	defer r.loadMu.Unlock()
	_, err := r.renewIndex()
	return err
}

// renewIndex starts the index anew with what this process stored and no index
// file has yet.
func (r *Repository) renewIndex() (*index, error) {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	idx := newIndex()
	var err error
	for _, p := range s.unindexed {
		err = errors.Join(err, idx.add(p.id, p.blobs))
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idx, r.loaded = idx, make(map[ID]bool)
	return idx, nil
}
