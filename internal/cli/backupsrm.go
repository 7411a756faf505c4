package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/retain"
)

func (a *app) backupsRmCmd() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm VM@BACKUP…",
		Short: "Remove backups",
		Long: `Remove backups. Nothing is removed unless all that are named are found. One that
is pinned, and the last good one of a VM, want --force. One that a VM is being
filled in from (drydock start-from-backup) is never removed.`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.backupsRm(c.Context(), names, force) },
	}
	c.Flags().BoolVar(&force, "force", false, "also what is pinned, and the last good backup of a VM")
	return c
}

// backupRef names a backup in what is printed.
type backupRef struct {
	ID   string    `json:"id"`
	VM   string    `json:"vm"`
	Time time.Time `json:"time"`
}

func newBackupRef(s *repository.Snapshot) backupRef {
	return backupRef{s.ID.String(), s.Hostname, s.Time}
}

func (r backupRef) String() string {
	return fmt.Sprintf("%s@%.8s of %s", escape.Line(r.VM), r.ID, r.Time.Local().Format(time.DateTime))
}

func (a *app) backupsRm(ctx context.Context, texts []string, force bool) error {
	var names []backupName
	for _, text := range texts {
		n, err := parseBackup(text)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	return a.withRepository(ctx, func(h *host, repo *repository.Repository) error {
		var gone []*repository.Snapshot
		err := retain.Exclusively(ctx, repo, 0, func(ctx context.Context) error {
			found, err := findAll(ctx, repo, names)
			if err == nil {
				err = h.refuseHeld(found)
			}
			if err == nil && !force {
				err = a.refuseProtected(ctx, repo, found)
			}
			if err != nil {
				return err
			}
			gone, err = retain.Remove(ctx, repo, found)
			return err
		})
		return errors.Join(a.printRefs("removed", gone), err)
	})
}

// findAll returns each backup that is named, once.
func findAll(ctx context.Context, repo *repository.Repository, names []backupName) ([]*repository.Snapshot, error) {
	var found []*repository.Snapshot
	seen := make(map[repository.ID]bool)
	for _, n := range names {
		s, err := restore.Find(ctx, repo, n.vm, n.spec)
		if err != nil {
			return nil, err
		}
		if !seen[s.ID] {
			seen[s.ID] = true
			found = append(found, s)
		}
	}
	return found, nil
}

// refuseProtected returns an error if one of the backups should not be removed
// lightly.
func (a *app) refuseProtected(ctx context.Context, repo *repository.Repository, found []*repository.Snapshot) error {
	var vms []retain.VM
	ids := make(map[repository.ID]bool)
	for _, s := range found {
		vms = append(vms, retain.VM{Name: s.Hostname})
		ids[s.ID] = true
	}
	plans, err := retain.Make(ctx, repo, vms, a.now())
	if plans == nil {
		return err
	}
	for _, p := range plans {
		for _, d := range p.Backups {
			if why := d.Protected(); why != "" && ids[d.Snapshot.ID] {
				return fmt.Errorf("%s is kept: %s (--force removes it); nothing was removed", newBackupRef(d.Snapshot), why)
			}
		}
	}
	return nil
}

// printRefs prints what was done to backups.
func (a *app) printRefs(what string, list []*repository.Snapshot) error {
	refs := []backupRef{}
	for _, s := range list {
		refs = append(refs, newBackupRef(s))
		if !a.json {
			a.printf("%s %s\n", what, newBackupRef(s))
		}
	}
	if a.json {
		return a.printJSON(refs)
	}
	if len(list) == 0 {
		a.printf("nothing %s\n", what)
	}
	return nil
}
