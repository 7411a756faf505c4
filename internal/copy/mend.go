package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Mended is what was wrong with a repository, and is not any more.
type Mended struct {
	Indexes []repository.ID // that could not be read, and were made again
	Packs   []repository.ID // that were gone or cut off, or of no use without these
	Blobs   int             // of these, which were brought there again
	// Unnamed are packs that no index named, and one does again: an index file was gone,
	// or a copy was cut off. Lost counts the backups whose top folder lies in them, which
	// a copy that was cut off has none of.
	Unnamed []repository.ID
	Lost    int
}

// Mend loads the index of to, and brings there again from from what it says is there
// and is not: a copy believes it. Index files that are gone or cannot be read are made again.
// What from does not have either stays lost. It takes an exclusive lock where something is
// wrong, and waits for it as long as patience says; from has its index loaded. Without a
// report the place could not be worked on.
func Mend(ctx context.Context, from, to *repository.Repository, patience time.Duration) (m *Mended, err error) {
	index := to.LoadIndex(ctx)
	if index != nil && !repository.IsDamage(index) {
		return nil, index
	}
	lost, unnamed, err := to.ComparePacks(ctx)
	whole := index == nil && len(lost) == 0
	if err != nil || whole && len(unnamed) == 0 {
		return &Mended{}, err
	}
	if whole {
		patience = 0 // somebody may be writing these packs, and their index
	}
	lock, err := to.LockPatiently(ctx, true, patience)
	if whole && errors.Is(err, repository.ErrLocked) {
		return &Mended{}, nil
	}
	if err != nil {
		return nil, errors.Join(index, fmt.Errorf("mend the copy: %w", err))
	}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	if m, err = mend(lock.Context(), from, to); err != nil {
		err = fmt.Errorf("mend the copy: %w", err)
	}
	return m, err
}

func mend(ctx context.Context, from, to *repository.Repository) (*Mended, error) {
	m := &Mended{}
	if err := to.LoadIndex(ctx); err != nil && !repository.IsDamage(err) {
		return m, err
	}
	lacking, err := withoutTree(ctx, to)
	if err != nil {
		return m, err
	}
	var refused error // by a storage that lets nobody remove what cannot be read
	if m.Indexes, m.Unnamed, refused = to.Reindex(ctx); refused != nil && !errors.Is(refused, backend.ErrRefused) {
		return m, refused
	}
	for _, tree := range lacking {
		if to.HasBlob(repository.TreeBlob, tree) {
			m.Lost++
		}
	}
	lost, _, err := to.ComparePacks(ctx)
	if err != nil || len(lost) == 0 {
		return m, errors.Join(refused, err)
	}
	did, err := to.Rescue(ctx, lost, nil, func(ctx context.Context, b repository.Blob) ([]byte, error) {
		return from.LoadBlob(ctx, b.Type, b.ID, nil)
	})
	if did != nil {
		m.Packs, m.Blobs = did.Gone, did.Blobs
	}
	lost = slices.DeleteFunc(lost, func(id repository.ID) bool { return slices.Contains(m.Packs, id) })
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%w: %d packs are gone or cut off, the first is %s, and not all that they held is in the repository", repository.ErrDamaged, len(lost), lost[0].Short())
	}
	return m, errors.Join(refused, err)
}

// withoutTree returns the top folders of backups that the index does not have.
func withoutTree(ctx context.Context, r *repository.Repository) ([]repository.ID, error) {
	all, err := r.Snapshots(ctx) // one that cannot be read is said elsewhere
	if all == nil {
		return nil, err
	}
	var out []repository.ID
	for _, s := range all {
		if !r.HasBlob(repository.TreeBlob, s.Tree) {
			out = append(out, s.Tree)
		}
	}
	return out, nil
}
