package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) backupsPruneCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "Give back the space of removed backups, with restic prune, now",
		Long: `Run restic prune on the repository, now. Rounds do it by themselves, as often as
prune.every says.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.backupsPrune(c.Context()) },
	}
}

func (a *app) backupsPrune(ctx context.Context) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	lock, err := h.lock("prune")
	if err != nil {
		return err
	}
	defer lock.Release()
	p, err := h.runner.Prune(ctx, "asked for")
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(p)
	}
	a.printf("%s\n", p)
	return nil
}
