package repository

import (
	"context"
	"errors"
	"slices"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Reindex makes the index whole where files of it cannot be read: it takes in what the
// headers of packs say that no other index file names, and removes the files that
// cannot be read. It returns these. A pack whose header cannot be read is left out. The
// caller holds an exclusive lock, and has tried [Repository.LoadIndex] under it. It does
// nothing where that went well.
func (r *Repository) Reindex(ctx context.Context) (removed []ID, err error) {
	const op = "make index files again"
	if err := r.writable(); err != nil {
		return nil, err
	}
	bad, err := r.unreadableIndexes(ctx, op)
	if err != nil || len(bad) == 0 {
		return nil, err
	}
	named, err := r.namedPacks(ctx, op)
	if err != nil {
		return nil, err
	}
	if err := r.indexUnnamed(ctx, op, named); err != nil {
		return nil, err
	}
	if err := r.saveIndex(ctx); err != nil {
		return nil, err
	}
	for _, id := range bad {
		if err := r.removeIndexFile(ctx, op, id); err != nil {
			return removed, err
		}
		removed = append(removed, id)
	}
	return removed, nil
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

// indexUnnamed gives the index the stored packs that are not named. They are in an index
// file after the next saveIndex.
func (r *Repository) indexUnnamed(ctx context.Context, op string, named map[ID]bool) error {
	stored, err := r.StoredPacks(ctx)
	if err != nil {
		return err
	}
	for id, size := range stored {
		if named[id] {
			continue
		}
		h := backend.Handle{Type: backend.PackFile, Name: id.String()}
		blobs, err := readHeader(ctx, r.be, op, r.codec.key, h, size)
		if err != nil && !IsDamage(err) {
			return err
		}
		if err != nil {
			continue
		}
		if err := r.currentIndex().add(id, blobs); err != nil {
			return err
		}
		r.saver.mu.Lock()
		r.saver.unindexed = append(r.saver.unindexed, finishedPack{id, slices.Clip(blobs)})
		r.saver.mu.Unlock()
	}
	return nil
}
