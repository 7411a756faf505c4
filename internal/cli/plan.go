package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) planCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [VM…]",
		Short: "Show what a round would do, and why",
		Long: `Show what a round would do now, and why, and change nothing. It is the very plan
that drydock run carries out, but for images that the round itself harvests. What is
due of proofs and prunes stands at its end. A repository that cannot be opened, for
which a round does not begin, is an error behind the plan.`,
		RunE: func(c *cobra.Command, names []string) error { return a.plan(c.Context(), names) },
	}
}

func (a *app) plan(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick(names)
	if err != nil {
		return err
	}
	p, err := h.runner.Plan(ctx, vms)
	if err != nil {
		return err
	}
	_, broken := h.repositoryOpens(ctx, h.config.Repository)
	if broken != nil {
		broken = fmt.Errorf("a round would not begin, and touch no VM: %w", broken)
	}
	if a.json {
		return errors.Join(a.printJSON(p), broken)
	}
	for _, v := range p.VMs {
		a.printf("%s (%s)\n", v.VM, v.Found)
		for _, s := range v.Steps {
			what, rest, _ := strings.Cut(s, ": ")
			a.printf("  %-9s %s\n", what, rest)
		}
	}
	for _, c := range p.Copies {
		a.printf("then to %s: what is missing there\n", c.Place)
	}
	if p.Verify.Due {
		a.printf("then verify: %s\n", p.Verify.Reason)
	}
	for _, c := range p.Copies {
		if c.Verify.Due {
			a.printf("then verify of %s: %s\n", c.Place, c.Verify.Reason)
		}
	}
	if p.Prune.Due {
		a.printf("then restic prune: %s\n", p.Prune.Reason)
	}
	for _, c := range p.Copies {
		if c.Prune.Due {
			a.printf("then restic prune of %s: %s\n", c.Place, c.Prune.Reason)
		}
	}
	return broken
}
