package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

// copies implements [round.Copies]. Places are called by their locations.
type copies struct {
	h *host
	b *backups
}

func (c copies) Places() []string {
	var out []string
	for _, p := range c.h.config.Copies {
		out = append(out, p.Path)
	}
	return out
}

func (c copies) place(name string) (config.Copy, error) {
	i := slices.IndexFunc(c.h.config.Copies, func(p config.Copy) bool { return p.Path == name })
	if i < 0 {
		return config.Copy{}, fmt.Errorf("there is no place %s to copy to", name)
	}
	return c.h.config.Copies[i], nil
}

func (c copies) Copy(ctx context.Context, name string) (*round.CopyReport, error) {
	p, err := c.place(name)
	if err != nil {
		return nil, err
	}
	from, err := retention(c).repository(ctx)
	if err != nil {
		return nil, err
	}
	to, done, err := c.h.copyTo(ctx, from, p, nil)
	if done == nil {
		return nil, err
	}
	rep := &round.CopyReport{Copied: done.Copied, Present: done.Present, Unwanted: done.unwanted, Blobs: done.Blobs, Stored: done.Stored}
	if err == nil {
		err = c.h.renew(ctx, to, p.Repository)
	}
	if !c.Prunes(name) {
		return rep, err
	}
	results, rerr := retain.Apply(ctx, to, c.h.copyPolicies(p), c.h.app.now(), lockPatience)
	for _, r := range results {
		for _, s := range r.Removed {
			rep.Removed = append(rep.Removed, s.ID.String())
		}
	}
	return rep, errors.Join(err, rerr)
}

func (c copies) Prunes(name string) bool {
	p, err := c.place(name)
	return err == nil && slices.ContainsFunc(c.h.copyPolicies(p), func(v retain.VM) bool { return !v.Policy.Empty() })
}

func (c copies) Prune(ctx context.Context, name string) (*round.PruneReport, error) {
	p, err := c.place(name)
	if err != nil {
		return nil, err
	}
	to, err := c.h.openOrCreate(ctx, p.Repository)
	if err != nil {
		return nil, err
	}
	return c.h.pruneAt(ctx, to, p.Repository)
}
