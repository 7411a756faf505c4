package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
)

func (a *app) backupsRetainCmd() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "retain [VM…]",
		Short: "Remove what the policies do not keep, now",
		Long: `Carry out what drydock backups plan shows, as each round does after its backups.
A VM without a policy keeps all, and so does one that is being filled in from a
backup (drydock start-from-backup): that is exit code 3.`,
		RunE: func(c *cobra.Command, names []string) error {
			if dryRun {
				return a.backupsPlan(c.Context(), names)
			}
			return a.backupsRetain(c.Context(), names)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and do nothing, as drydock backups plan does")
	return c
}

func (a *app) backupsRetain(ctx context.Context, names []string) error {
	return a.withRepository(ctx, func(h *host, repo *repository.Repository) error {
		vms, err := h.pick(names)
		if err != nil {
			return err
		}
		results, err := retain.Apply(ctx, repo, h.policies(vms), a.now(), 0)
		var gone []*repository.Snapshot
		for _, r := range results {
			gone = append(gone, r.Removed...)
		}
		if err == nil {
			err = heldBackups(vms)
		}
		return errors.Join(a.printRefs("removed", gone), err)
	})
}
