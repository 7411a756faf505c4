package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
)

func (a *app) backupsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "backups",
		Short: "List, compare, keep, copy and remove backups",
		Long: `List, compare, keep, copy and remove backups.

BACKUP is latest, an ID or the beginning of one, a date, or a time. What a removed
backup alone held takes space until restic prune runs, by itself or with drydock
backups prune: reclaiming space, the one operation that can destroy data, is left
to the real restic.`,
		RunE: group,
	}
	c.AddCommand(
		a.backupsListCmd(), a.backupsShowCmd(), a.diffCmd(),
		a.backupsPlanCmd(), a.backupsRetainCmd(), a.backupsRmCmd(), a.backupsPruneCmd(),
		a.backupsPinCmd(), a.backupsUnpinCmd(), a.backupsNoteCmd(),
		a.backupsCopyCmd(),
	)
	return c
}

// backupName is a parsed VM@BACKUP.
type backupName struct{ vm, spec string }

func parseBackup(text string) (backupName, error) {
	t, err := parseTarget(text)
	if err != nil {
		return backupName{}, err
	}
	if t.backup == "" || t.disk != "" || string(t.path) != "/" {
		return backupName{}, usageError("%q is not VM@BACKUP", text)
	}
	return backupName{t.vm, t.backup}, nil
}

// withRepository opens the host and its repository for an act.
func (a *app) withRepository(ctx context.Context, act func(*host, *repository.Repository) error) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	return act(h, repo)
}

// withBackup finds a backup for an act that only looks.
func (a *app) withBackup(ctx context.Context, text string, act func(*repository.Repository, *repository.Snapshot) error) error {
	name, err := parseBackup(text)
	if err != nil {
		return err
	}
	return a.withRepository(ctx, func(_ *host, repo *repository.Repository) error {
		s, err := restore.Find(ctx, repo, name.vm, name.spec)
		if err != nil {
			return err
		}
		return act(repo, s)
	})
}

// someUnreadable turns an error about backups that could not be read, beside
// others that could, into an exit code.
func someUnreadable(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitWarnings, fmt.Errorf("not all backups could be read: %w", err)}
}
