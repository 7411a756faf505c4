package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/repository"
)

// rescueBackups brings back backups whose own file cannot be read: those of a copy from
// the repository, by copying what is missing, and those of the repository from the
// copies. It returns the files that others have replaced. What stays unreadable, the
// verification that follows says.
func (p *proofs) rescueBackups(ctx context.Context, repo *repository.Repository) ([]repository.ID, error) {
	all, err := repo.Snapshots(ctx)
	if all == nil {
		return nil, err
	}
	if err == nil {
		return nil, nil
	}
	if p.copy != "" {
		return p.copyAgain(ctx)
	}
	known, wanted, err := p.h.lostBackups(ctx, repo, all)
	if err != nil {
		return nil, err
	}
	for _, c := range p.h.config.Copies {
		if err := p.h.takeBack(ctx, c.Repository, repo, wanted); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			p.h.app.warn(fmt.Errorf("%s cannot give back all backups: %w", c.Path, err))
		}
	}
	removed, _, err := copy.RemoveUnreadable(ctx, repo, known, nil, lockPatience)
	return removed, err
}

// lostBackups returns the first IDs of the backups of the repository, also of those that
// cannot be read, and which the latter are.
func (h *host) lostBackups(ctx context.Context, repo *repository.Repository, read []*repository.Snapshot) (known map[repository.ID]repository.ID, lost map[repository.ID]bool, err error) {
	bad, err := repo.DamagedSnapshots(ctx, read)
	if err != nil {
		return nil, nil, err
	}
	if known, err = h.knownBackups(ctx, ""); err != nil {
		return nil, nil, err
	}
	lost = make(map[repository.ID]bool)
	for _, id := range bad {
		if _, ok := known[id]; !ok {
			known[id] = id // it was never given other tags
		}
		lost[known[id]] = true
	}
	return known, lost, nil
}

// copyAgain brings to a copy what it lacks.
func (p *proofs) copyAgain(ctx context.Context) ([]repository.ID, error) {
	c, err := p.h.copyNamed(p.copy)
	if err != nil {
		return nil, err
	}
	from, err := p.h.openRepository(ctx)
	if err != nil {
		return nil, err
	}
	_, rep, err := p.h.copyTo(ctx, from, c, nil)
	if rep == nil {
		return nil, err
	}
	if err != nil && !repository.IsDamage(err) {
		return rep.replaced, err
	}
	return rep.replaced, nil
}

// takeBack copies backups that are wanted from a place to the repository, under locks at
// both, and strikes them out.
func (h *host) takeBack(ctx context.Context, place config.Repository, to *repository.Repository, wanted map[repository.ID]bool) (err error) {
	if len(wanted) == 0 {
		return nil
	}
	be, err := h.backend(place)
	if err != nil {
		return err
	}
	from, err := h.openAt(ctx, place, be)
	if err != nil {
		return err
	}
	ctx, unlock, err := lockBoth(ctx, from, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all, unread := from.Snapshots(ctx)
	for _, r := range []*repository.Repository{from, to} { // what was there before the lock may be pruned
		if err := r.LoadIndex(ctx); err != nil && !repository.IsDamage(err) {
			return err
		}
	}
	originals := copy.Originals(all)
	var list []*repository.Snapshot
	for _, s := range all {
		if wanted[originals[s.ID]] {
			list = append(list, s)
		}
	}
	done, err := copy.Run(ctx, from, to, list)
	if done != nil {
		for _, first := range done.Originals {
			delete(wanted, first)
		}
	}
	return errors.Join(unread, err)
}
