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
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list [VM]",
		Short: "The backups, newest first",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE:  func(c *cobra.Command, names []string) error { return a.backupsList(c.Context(), names) },
	}
}

// backupLine is one backup in drydock backups list.
type backupLine struct {
	ID     string    `json:"id"`
	VM     string    `json:"vm"`
	Time   time.Time `json:"time"`
	Tags   []string  `json:"tags"`
	Pinned bool      `json:"pinned"` // no policy removes it
	Note   string    `json:"note,omitempty"`
	Files  uint64    `json:"files"`
	Bytes  uint64    `json:"bytes"`  // the sizes of all files and images
	Stored uint64    `json:"stored"` // what this backup added to the repository

	Disks []storedDisk `json:"disks"`
}

func newBackupLine(s *repository.Snapshot) backupLine {
	l := backupLine{ID: s.ID.String(), VM: s.Hostname, Time: s.Time, Tags: s.Tags, Pinned: backup.IsPinned(s), Note: backup.Note(s), Disks: storedDisks(s)}
	if s.Summary != nil {
		l.Files, l.Bytes, l.Stored = s.Summary.TotalFilesProcessed, s.Summary.TotalBytesProcessed, s.Summary.DataAddedPacked
	}
	return l
}

// remarks is the pin and the note, for people.
func (l *backupLine) remarks() string {
	switch {
	case l.Pinned && l.Note != "":
		return "pinned: " + escape.Line(l.Note)
	case l.Pinned:
		return "pinned"
	}
	return escape.Line(l.Note)
}

func (a *app) backupsList(ctx context.Context, names []string) error {
	return a.withRepository(ctx, func(_ *host, repo *repository.Repository) error {
		all, unread := repo.Snapshots(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lines := []backupLine{}
		for _, s := range slices.Backward(all) {
			if backup.IsOurs(s) && (len(names) == 0 || s.Hostname == names[0]) {
				lines = append(lines, newBackupLine(s))
			}
		}
		if err := a.printBackups(lines); err != nil {
			return err
		}
		return someUnreadable(unread)
	})
}

func (a *app) printBackups(lines []backupLine) error {
	if a.json {
		return a.printJSON(lines)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tVM\tTIME\tDISKS\tFILES\tSIZE\tSTORED\tNOTE")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID[:8], escape.Line(l.VM), l.Time.Local().Format(time.DateTime),
			diskCell(l.Disks), l.Files, round.Bytes(int64(l.Bytes)), round.Bytes(int64(l.Stored)), l.remarks())
	}
	return w.Flush()
}
