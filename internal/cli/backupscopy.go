package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsCopyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "copy [VM…]",
		Short: "Bring the backups to the other repositories",
		Long: `Bring all backups, or those of the VMs that are named, to each repository below
copies: in the configuration, as each round does. What is there already is passed
over, also if restic copy brought it, and so is what the policies of the place would
remove again. Every blob is verified on the way; a damaged backup is an error and not
copied, and does not keep the others. A place that cannot be reached does not keep the other
places.`,
		RunE: func(c *cobra.Command, names []string) error { return a.backupsCopy(c.Context(), names) },
	}
}

func (a *app) backupsCopy(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	if len(h.config.Copies) == 0 {
		return usageError("there is no place to copy to in %s (name one below copies:)", a.configPath)
	}
	from, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	if err := h.known(ctx, from, names); err != nil {
		return err
	}
	reports := []*round.CopyReport{}
	var failed []error
	for _, c := range h.config.Copies {
		start := time.Now()
		_, done, err := h.copyTo(ctx, from, c, names)
		rep := &round.CopyReport{}
		if done != nil {
			rep = done.report()
			err = errors.Join(err, done.unreadHere, done.unreadThere)
		}
		rep.Place, rep.Duration = c.Path, time.Since(start)
		if err != nil {
			rep.Error = err.Error()
			failed = append(failed, fmt.Errorf("copy to %s: %w", c.Path, err))
		}
		reports = append(reports, rep)
	}
	if a.json {
		err = a.printJSON(reports)
	} else {
		for _, rep := range reports {
			a.printf("%s\n", rep)
			if rep.Mended != "" {
				a.printf("! %s: %s\n", rep.Place, rep.Mended)
			}
		}
	}
	return errors.Join(append(failed, err)...)
}

// known refuses names of VMs that are neither configured nor in a repository.
func (h *host) known(ctx context.Context, repo *repository.Repository, names []string) error {
	for _, name := range names {
		if _, ok := h.config.VMs[name]; ok {
			continue
		}
		switch list, err := backup.Find(ctx, repo, name); {
		case len(list) > 0:
		case err != nil:
			return err
		default:
			return usageError("there is no VM %q in %s, and no backup of one", name, h.app.configPath)
		}
	}
	return nil
}

// copyPolicies returns what is kept of the VMs' backups at a place.
func (h *host) copyPolicies(c config.Copy) []retain.VM {
	vms := h.policies(h.vms)
	for i := range vms {
		vms[i].Held = false // no VM hangs on a copy
		if c.Retain != nil {
			vms[i].Policy = policy(c.Retain)
		}
	}
	return vms
}
