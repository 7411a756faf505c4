package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// mend repairs a damaged pack, where that is wanted and its parity allows it, and
// returns what is still wrong with it: nil, or the damage, and what the parity can
// do about it.
func (c *checker) mend(ctx context.Context, damage *repository.PackError) error {
	if errors.Is(damage, backend.ErrNotExist) {
		return damage
	}
	c.mendMu.Lock()
	defer c.mendMu.Unlock()
	able, err := c.repo.RepairPack(ctx, damage.Pack, c.opts.Repair)
	switch {
	case err != nil && repository.IsDamage(err):
		var e *repository.Error
		if errors.As(err, &e) {
			err = e.Err // the file and the way out are said already
		}
		return withWords(damage, "%w; it cannot be repaired: %w", damage.Err, err)
	case err != nil:
		return err
	case !able:
		return damage
	case !c.opts.Repair:
		return withWords(damage, "%w; it can be repaired: %s", damage.Err, cmp.Or(c.opts.Hint, "drydock verify --repair"))
	}
	c.report.Repaired = append(c.report.Repaired, damage.Pack)
	return c.repo.CheckPack(ctx, damage.Pack, true)
}

// withWords is the damage with another text.
func withWords(damage *repository.PackError, format string, args ...any) error {
	return &repository.PackError{Pack: damage.Pack, Bad: damage.Bad, Err: fmt.Errorf(format, args...)}
}

// mendTree loads a tree that could not be loaded, after the packs that hold it were
// repaired, or from the source. Then it is still lost here.
func (c *checker) mendTree(ctx context.Context, id repository.ID) (*repository.Tree, error) {
	b := repository.Blob{Type: repository.TreeBlob, ID: id}
	for _, pack := range c.repo.PackOf(b) {
		var damage *repository.PackError
		err := c.repo.CheckPack(ctx, pack, true)
		if errors.As(err, &damage) {
			err = c.mend(ctx, damage)
		}
		if errors.As(err, &damage) {
			c.broken.pack(damage)
		}
		if err != nil && !repository.IsDamage(err) {
			return nil, err
		}
	}
	tree, err := c.repo.LoadTree(ctx, id)
	if err == nil || !repository.IsDamage(err) {
		return tree, err
	}
	if len(c.repo.PackOf(b)) == 0 {
		c.broken.miss(b)
	}
	c.lost.add(b, err)
	if c.opts.Source == nil {
		return nil, err
	}
	if data, serr := c.opts.Source(ctx, b); serr == nil && repository.Hash(data) == id {
		return repository.NewTree(data), nil // what is below it is looked at too
	}
	return nil, err
}
