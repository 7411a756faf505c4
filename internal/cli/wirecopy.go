package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

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

// copyName is what the command line calls a copy.
func copyName(c config.Copy) string { return cmp.Or(c.Name, c.Path) }

// copyNamed returns the copy of that name, or at that location.
func (h *host) copyNamed(name string) (config.Copy, error) {
	var known []string
	for _, c := range h.config.Copies {
		if name == c.Name || name == c.Path {
			return c, nil
		}
		known = append(known, copyName(c))
	}
	if known == nil {
		return config.Copy{}, usageError("there is no copy in %s (name a place below copies:)", h.app.configPath)
	}
	return config.Copy{}, usageError("there is no copy %q in %s (there are: %s)", name, h.app.configPath, strings.Join(known, ", "))
}

func (c copies) Copy(ctx context.Context, name string) (*round.CopyReport, error) {
	p, err := c.h.copyNamed(name)
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
	rep := done.report()
	if err == nil {
		err = c.h.renew(ctx, to, p.Repository)
	}
	if !c.Prunes(name) {
		return rep, errors.Join(err, done.unreadThere)
	}
	// What cannot be read there, this says; of the repository, the round's own retention.
	results, rerr := retain.Apply(ctx, to, c.h.copyPolicies(p), c.h.app.now(), lockPatience)
	for _, r := range results {
		for _, s := range r.Removed {
			rep.Removed = append(rep.Removed, s.ID.String())
		}
	}
	return rep, errors.Join(err, rerr)
}

func (c copies) Prunes(name string) bool {
	p, err := c.h.copyNamed(name)
	return err == nil && slices.ContainsFunc(c.h.copyPolicies(p), func(v retain.VM) bool { return !v.Policy.Empty() })
}

// Proofs are those of a place that [copies.Places] names.
func (c copies) Proofs(name string) (round.Proofs, error) {
	p, err := c.h.copyNamed(name)
	if err != nil {
		return nil, err
	}
	return c.h.copyProofs(p), nil
}

func (c copies) Prune(ctx context.Context, name string) (*round.PruneReport, error) {
	p, err := c.h.copyNamed(name)
	if err != nil {
		return nil, err
	}
	to, err := c.h.openOrCreate(ctx, p.Repository)
	if err != nil {
		return nil, err
	}
	return c.h.pruneAt(ctx, to, p.Repository)
}
