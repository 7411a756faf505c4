package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "backups",
		Short: "List, compare and remove backups",
		RunE:  group,
	}
	c.AddCommand(
		a.diffCmd(),
		&cobra.Command{
			Use:   "list [VM]",
			Short: "The backups, newest first",
			Args:  args(cobra.MaximumNArgs(1)),
			RunE:  func(c *cobra.Command, names []string) error { return a.backupsList(c.Context(), names) },
		},
		&cobra.Command{
			Use:   "rm VM@BACKUP",
			Short: "Remove a backup",
			Long: `Remove one backup. What only it holds still takes space until restic prune runs:
reclaiming space, the one operation that can destroy data, is left to the real
restic.`,
			Args: args(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, names []string) error { return a.backupsRm(c.Context(), names[0]) },
		},
	)
	return c
}

// backupLine is one backup in drydock backups list.
type backupLine struct {
	ID     string    `json:"id"`
	VM     string    `json:"vm"`
	Time   time.Time `json:"time"`
	Tags   []string  `json:"tags"`
	Files  uint64    `json:"files"`
	Bytes  uint64    `json:"bytes"`  // the sizes of all files
	Stored uint64    `json:"stored"` // what this backup added to the repository
}

func (a *app) backupsList(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	all, err := repo.Snapshots(ctx)
	if err != nil {
		return err
	}
	lines := []backupLine{}
	for _, s := range slices.Backward(all) {
		if !slices.Contains(s.Tags, backup.TagProgram) || len(names) == 1 && s.Hostname != names[0] {
			continue
		}
		l := backupLine{ID: s.ID.String(), VM: s.Hostname, Time: s.Time, Tags: s.Tags}
		if s.Summary != nil {
			l.Files, l.Bytes, l.Stored = s.Summary.TotalFilesProcessed, s.Summary.TotalBytesProcessed, s.Summary.DataAddedPacked
		}
		lines = append(lines, l)
	}
	if a.json {
		return a.printJSON(lines)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tVM\tTIME\tFILES\tSIZE\tSTORED")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", l.ID[:8], escape.Line(l.VM), l.Time.Local().Format(time.DateTime),
			l.Files, round.Bytes(int64(l.Bytes)), round.Bytes(int64(l.Stored)))
	}
	return w.Flush()
}

func (a *app) backupsRm(ctx context.Context, text string) error {
	t, err := parseTarget(text)
	if err != nil {
		return err
	}
	if t.backup == "" || t.disk != "" || string(t.path) != "/" {
		return usageError("%q is not VM@BACKUP", text)
	}
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	s, err := restore.Find(ctx, repo, t.vm, t.backup)
	if err != nil {
		return err
	}
	return removeBackup(ctx, repo, s.ID)
}

func removeBackup(ctx context.Context, repo *repository.Repository, id repository.ID) (err error) {
	lock, err := repo.Lock(ctx, true)
	if err != nil {
		return err
	}
	defer func() {
		if uerr := lock.Unlock(context.WithoutCancel(ctx)); err == nil {
			err = uerr
		}
	}()
	return repo.RemoveSnapshot(lock.Context(), id)
}
