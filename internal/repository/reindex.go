package repository

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Reindex makes the index whole where files of it are gone or cannot be read: it takes in
// what the headers of packs say that no other index file names, and removes the files that
// cannot be read. It returns these, and the packs that were in none. A pack whose header
// cannot be read is left out, and so, where all files can be read, is one of which the
// index has everything elsewhere. The caller holds an exclusive lock, and has tried
// [Repository.LoadIndex] under it.
func (r *Repository) Reindex(ctx context.Context) (removed, indexed []ID, err error) {
	const op = "make index files again"
	if err := r.writable(); err != nil {
		return nil, nil, err
	}
	bad, err := r.unreadableIndexes(ctx, op)
	if err != nil {
		return nil, nil, err
	}
	if indexed, err = r.indexUnnamed(ctx, op, len(bad) > 0); err != nil {
		return nil, nil, err
	}
	if err := r.saveIndex(ctx); err != nil {
		return nil, nil, err
	}
	for _, id := range bad {
		if err := r.removeIndexFile(ctx, op, id); err != nil {
			return removed, indexed, err
		}
		removed = append(removed, id)
	}
	return removed, indexed, nil
}

// unreadableIndexes returns the index files that cannot be read.
func (r *Repository) unreadableIndexes(ctx context.Context, op string) (bad []ID, err error) {
	ids, err := r.listFiles(ctx, op, backend.IndexFile)
	if err != nil {
		return nil, err
	}
	return damagedFiles(ids, func(id ID) error {
		if r.isLoaded(id) {
			return nil
		}
		return r.loadIndexFile(ctx, op, r.currentIndex(), id)
	})
}

// damagedFiles returns those of the files that load finds damaged. One that is gone
// meanwhile is not.
func damagedFiles(ids []ID, load func(ID) error) (bad []ID, err error) {
	for _, id := range ids {
		err := load(id)
		switch {
		case errors.Is(err, ErrDamaged) || errors.Is(err, ErrLimit):
			bad = append(bad, id)
		case err != nil && !errors.Is(err, backend.ErrNotExist):
			return nil, err
		}
	}
	return bad, nil
}

// namedPacks returns the packs of the index files that can be read. The index in memory
// has more: what a file says up to where it cannot be read any more.
func (r *Repository) namedPacks(ctx context.Context, op string) (map[ID]bool, error) {
	ids, err := r.listFiles(ctx, op, backend.IndexFile)
	if err != nil {
		return nil, err
	}
	named := make(map[ID]bool)
	for _, id := range ids {
		packs, err := r.readIndexFile(ctx, op, id)
		if err != nil && !IsDamage(err) {
			return nil, err
		}
		for _, p := range packs {
			named[p.id] = true
		}
	}
	return named, nil
}

// indexUnnamed gives the index the stored packs that are not named, and returns them. They
// are in an index file after the next saveIndex. If some files cannot be read the index in
// memory may have more than the others say, and all packs count that these do not name.
func (r *Repository) indexUnnamed(ctx context.Context, op string, someBad bool) (indexed []ID, err error) {
	stored, err := r.StoredPacks(ctx)
	if err != nil {
		return nil, err
	}
	named := make(map[ID]bool)
	if someBad {
		if named, err = r.namedPacks(ctx, op); err != nil {
			return nil, err
		}
	} else {
		for _, id := range r.Packs() {
			named[id] = true
		}
	}
	maps.DeleteFunc(stored, func(id ID, _ int64) bool { return named[id] })
	packs, err := r.readHeaders(ctx, op, stored)
	if err != nil {
		return nil, err
	}
	for _, p := range packs {
		if !someBad && !r.hasNews(&p) {
			continue
		}
		if err := r.currentIndex().add(p.id, p.blobs); err != nil {
			return nil, err
		}
		indexed = append(indexed, p.id)
		r.saver.mu.Lock()
		r.saver.unindexed = append(r.saver.unindexed, p)
		r.saver.mu.Unlock()
	}
	return indexed, nil
}

// readHeaders returns what the headers of packs, of these sizes, say. One that cannot be
// read, or is gone, is left out.
func (r *Repository) readHeaders(ctx context.Context, op string, sizes map[ID]int64) (packs []finishedPack, err error) {
	var mu sync.Mutex // guards packs
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for id, size := range sizes {
		g.Go(func() error {
			blobs, err := readHeader(gctx, r.be, op, r.codec.key, backend.Handle{Type: backend.PackFile, Name: id.String()}, size)
			if err != nil {
				if IsDamage(err) {
					err = nil
				}
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			packs = append(packs, finishedPack{id, slices.Clip(blobs)})
			return nil
		})
	}
	return packs, g.Wait()
}

// hasNews reports whether a pack holds a blob that the index has nowhere.
func (r *Repository) hasNews(p *finishedPack) bool {
	return slices.ContainsFunc(p.blobs, func(e blobEntry) bool { return !r.HasBlob(e.blobType(), e.id) })
}
