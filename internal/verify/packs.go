package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	// maxHeld is how many bytes of packs are held at once: several of the usual ones, or
	// one of any size.
	maxHeld = 64 << 20
	// maxPackWorkers is how many packs are looked at at once. Waiting for the
	// storage is most of it where that is far away.
	maxPackWorkers = 8
)

// packs looks at the packs: at the headers of all that are needed, and at the
// content of those whose turn it is.
func (c *checker) packs(ctx context.Context) error {
	stored, err := c.repo.StoredPacks(ctx)
	if err != nil {
		return err
	}
	packs := c.repo.Packs()
	c.report.Spare += len(stored)
	for _, id := range packs {
		if _, there := stored[id]; there {
			c.report.Spare--
		}
	}
	packs = slices.DeleteFunc(packs, func(id repository.ID) bool { return c.needed != nil && !c.needed[id] })
	slices.SortFunc(packs, func(a, b repository.ID) int { return slices.Compare(a[:], b[:]) })
	c.done.All = len(packs)
	turn := newTurn(c.opts)
	held := semaphore.NewWeighted(maxHeld)
	var mu sync.Mutex // guards c.report and c.done
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxPackWorkers)
	for _, id := range packs {
		content, size := turn.has(id), stored[id]
		if !content {
			g.Go(func() error { return c.pack(gctx, &mu, id, size, false) })
			continue
		}
		weight := min(max(size, 1), maxHeld)
		if held.Acquire(gctx, weight) != nil {
			break // g.Wait says why
		}
		g.Go(func() error {
			defer held.Release(weight)
			return c.pack(gctx, &mu, id, size, true)
		})
	}
	return cmp.Or(g.Wait(), context.Cause(ctx))
}

// pack looks at one pack, and notes what is lost with it.
func (c *checker) pack(ctx context.Context, mu *sync.Mutex, id repository.ID, size int64, content bool) error {
	err := c.repo.CheckPack(ctx, id, content)
	var damage *repository.PackError
	if errors.As(err, &damage) {
		err = c.mend(ctx, damage)
	}
	if errors.As(err, &damage) {
		for _, b := range damage.Bad {
			if err := c.lose(ctx, b, damage); err != nil {
				return err
			}
		}
		c.broken.pack(damage)
		err = nil
	}
	mu.Lock()
	defer mu.Unlock()
	c.report.Packs++
	c.report.Bytes += size
	if content {
		c.report.PacksRead++
		c.report.BytesRead += size
		c.done.Bytes += size
	}
	c.done.Packs++
	c.opts.Progress(c.done)
	return c.damage(err)
}

// lose notes that a blob is lost, unless another pack has a copy that can be read.
func (c *checker) lose(ctx context.Context, b repository.Blob, damage *repository.PackError) error {
	if len(c.repo.PackOf(b)) > 1 {
		_, err := c.repo.LoadBlob(ctx, b.Type, b.ID, nil)
		if err == nil || !repository.IsDamage(err) {
			return err
		}
	}
	// Shorter than damage: it is said of each file, and what is wrong with the pack
	// once.
	cause := repository.ErrDamaged
	if errors.Is(damage, backend.ErrNotExist) {
		cause = backend.ErrNotExist
	}
	c.lost.add(b, fmt.Errorf("pack %s: %w", damage.Pack.Short(), cause))
	return nil
}
