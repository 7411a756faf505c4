package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show VM@BACKUP",
		Short: "What is known of one backup",
		Args:  args(cobra.ExactArgs(1)),
		RunE:  func(c *cobra.Command, names []string) error { return a.backupsShow(c.Context(), names[0]) },
	}
}

// backupDetails is drydock backups show.
type backupDetails struct {
	backupLine
	Parent   string                      `json:"parent,omitempty"`
	Original string                      `json:"original,omitempty"` // its ID before its tags were changed
	Tree     string                      `json:"tree"`
	Program  string                      `json:"program,omitempty"`
	Excludes []string                    `json:"excludes,omitempty"`
	Summary  *repository.SnapshotSummary `json:"summary,omitempty"`
}

func (a *app) backupsShow(ctx context.Context, text string) error {
	return a.withBackup(ctx, text, func(s *repository.Snapshot) error {
		d := backupDetails{backupLine: newBackupLine(s), Tree: s.Tree.String(), Program: s.ProgramVersion, Excludes: s.Excludes, Summary: s.Summary}
		if s.Parent != nil {
			d.Parent = s.Parent.String()
		}
		if s.Original != nil {
			d.Original = s.Original.String()
		}
		if a.json {
			return a.printJSON(d)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for _, row := range d.rows() {
			if row[1] != "" {
				fmt.Fprintf(w, "%s\t%s\n", row[0], escape.Line(row[1]))
			}
		}
		return w.Flush()
	})
}

// rows are the details for people. What the repository says of them is hostile.
func (d *backupDetails) rows() [][2]string {
	return [][2]string{
		{"backup", d.ID},
		{"VM", d.VM},
		{"time", d.Time.Local().Format(time.DateTime)},
		{"note", d.remarks()},
		{"files", fmt.Sprintf("%d, %s", d.Files, round.Bytes(int64(d.Bytes)))},
		{"stored", round.Bytes(int64(d.Stored))},
		{"parent", d.Parent},
		{"original", d.Original},
		{"tags", strings.Join(d.Tags, ", ")},
		{"excludes", strings.Join(d.Excludes, ", ")},
		{"program", d.Program},
	}
}
