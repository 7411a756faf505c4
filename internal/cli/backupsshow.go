package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
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
	// Definition is what the VM was; nil where the backup does not tell.
	Definition *definition.Definition `json:"definition,omitempty"`
	unread     bool                   // it has a definition that cannot be read
}

func (a *app) backupsShow(ctx context.Context, text string) error {
	return a.withBackup(ctx, text, func(repo *repository.Repository, s *repository.Snapshot) error {
		d := backupDetails{backupLine: newBackupLine(s), Tree: s.Tree.String(), Program: s.ProgramVersion, Excludes: s.Excludes, Summary: s.Summary}
		if s.Parent != nil {
			d.Parent = s.Parent.String()
		}
		if s.Original != nil {
			d.Original = s.Original.String()
		}
		tree, err := restore.OpenTree(ctx, repo, s)
		if err != nil {
			return err
		}
		if d.Disks, err = measured(s, tree); err != nil {
			a.warn(err)
		}
		d.Definition, err = definition.Load(tree, s)
		if err != nil && !errors.Is(err, definition.ErrNone) {
			d.unread = true
			a.warn(err)
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
	rows := [][2]string{
		{"backup", d.ID},
		{"VM", d.VM},
		{"time", d.Time.Local().Format(time.DateTime)},
		{"note", d.remarks()},
	}
	for _, s := range d.Disks {
		rows = append(rows, [2]string{"disk", s.String()})
	}
	return append(rows, [][2]string{
		{"files", fmt.Sprintf("%d, %s", d.Files, round.Bytes(int64(d.Bytes)))},
		{"stored", round.Bytes(int64(d.Stored))},
		{"parent", d.Parent},
		{"original", d.Original},
		{"tags", strings.Join(d.Tags, ", ")},
		{"excludes", strings.Join(d.Excludes, ", ")},
		{"program", d.Program},
		{"definition", d.describe()},
	}...)
}

// describe says in a line what a definition has. The disks and files are in what
// drydock restore vm --dry-run prints.
func (d *backupDetails) describe() string {
	v := d.Definition
	switch {
	case d.unread:
		return "cannot be read"
	case v == nil:
		return "none: it was made before drydock kept them"
	}
	text := fmt.Sprintf("driver %s, %d disks, %d files", v.Driver, len(v.Disks), len(v.Files))
	for _, f := range v.Files {
		text += ", " + f.Path
	}
	for _, m := range v.Missing {
		text += "; missing: " + m
	}
	return text
}
