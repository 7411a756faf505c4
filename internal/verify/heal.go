package verify

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// broken is what is damaged and may be stored anew.
type broken struct {
	mu      *sync.Mutex // guards what follows
	packs   map[repository.ID]*repository.PackError
	missing map[repository.Blob]bool // blobs that backups need, and that no index names
}

func newBroken() broken {
	return broken{mu: new(sync.Mutex), packs: map[repository.ID]*repository.PackError{}, missing: map[repository.Blob]bool{}}
}

func (b *broken) pack(damage *repository.PackError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.packs[damage.Pack] = damage
}

// miss notes a blob that no index names. More than maxLost are for the next run.
func (b *broken) miss(blob repository.Blob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.missing) < maxLost {
		b.missing[blob] = true
	}
}

// ids returns the damaged packs.
func (b *broken) ids() []repository.ID {
	return slices.SortedFunc(maps.Keys(b.packs), func(x, y repository.ID) int { return slices.Compare(x[:], y[:]) })
}

// sorted returns what is wrong with packs, in their order.
func (b *broken) sorted() []error {
	var out []error
	for _, id := range b.ids() {
		out = append(out, b.packs[id])
	}
	return out
}

// repairs reports whether there is something that a repair may bring back beyond what
// parity could.
func (c *checker) repairs() bool {
	b := &c.broken
	return c.opts.Repair && (len(b.packs) > 0 || len(b.missing) > 0)
}

// reindex makes files of the index again, if it is to repair and some are gone or cannot
// be read.
func (c *checker) reindex(ctx context.Context) error {
	if !c.opts.Repair {
		return nil
	}
	err, patience := c.repo.LoadIndex(ctx), c.opts.Patience
	readable := err == nil
	if readable {
		var unnamed []repository.ID
		if _, unnamed, err = c.repo.ComparePacks(ctx); len(unnamed) == 0 {
			return err
		}
		patience = 0 // somebody may be writing these packs, and their index
	}
	if err != nil && !repository.IsDamage(err) {
		return err
	}
	err = c.locked(ctx, true, patience, func(ctx context.Context) error {
		err := c.repo.LoadIndex(ctx) // others may have written it meanwhile
		if err == nil || repository.IsDamage(err) {
			c.report.Reindexed, c.report.Indexed, err = c.repo.Reindex(ctx)
		}
		return c.refused(err)
	})
	if readable && errors.Is(err, repository.ErrLocked) {
		return nil
	}
	return err
}

// refused takes the error of a storage that lets nobody remove files into the report, and
// returns any other: what replaces them is stored by then.
func (c *checker) refused(err error) error {
	if !errors.Is(err, backend.ErrRefused) {
		return err
	}
	c.report.damage(err)
	return nil
}

// heal stores anew what can be had of what is damaged, and names the rest. The lock is
// exclusive.
func (c *checker) heal(ctx context.Context) error {
	if err := c.repo.LoadIndex(ctx); err != nil && !repository.IsDamage(err) {
		return err
	}
	did, err := c.repo.Rescue(ctx, c.broken.ids(), slices.Collect(maps.Keys(c.broken.missing)), c.opts.Source)
	if did != nil {
		c.report.Rescued, c.report.Replaced = did.Blobs, did.Gone
	}
	if err := c.refused(err); err != nil {
		return err
	}
	if err := c.damage(c.repo.LoadIndex(ctx)); err != nil {
		return err
	}
	named := map[repository.ID]bool{}
	for _, id := range c.repo.Packs() {
		named[id] = true
	}
	for _, id := range c.broken.ids() {
		if !named[id] { // nobody needs it any more
			delete(c.broken.packs, id)
		}
	}
	if err := c.find(ctx); err != nil {
		return err
	}
	return c.end(ctx)
}

// find looks again for the blobs that were lost, but where nothing has changed. Of more
// than are known one by one, some may be in packs that are damaged still: then all stay
// lost.
func (c *checker) find(ctx context.Context) error {
	if len(c.lost.cause) > maxLost && len(c.broken.packs) > 0 {
		return nil
	}
	for b := range c.lost.cause {
		if !slices.ContainsFunc(c.repo.PackOf(b), func(pack repository.ID) bool { return c.broken.packs[pack] == nil }) {
			continue
		}
		_, err := c.repo.LoadBlob(ctx, b.Type, b.ID, nil)
		if err != nil && !repository.IsDamage(err) {
			return err
		}
		if err == nil {
			delete(c.lost.cause, b)
		}
	}
	return nil
}
