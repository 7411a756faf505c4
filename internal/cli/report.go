package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
)

// observer prints a round's events as plain lines, to stderr when stdout
// carries JSON.
func (a *app) observer() func(round.Event) {
	w := a.stdout
	if a.json {
		w = a.stderr
	}
	return func(e round.Event) {
		text := escape.Line(e.Text)
		switch e.Phase {
		case state.Begin:
			return // the end of the step says more
		case state.Failed:
			text = "FAILED: " + text
		}
		fmt.Fprintf(w, "%s  %-10s %-9s %s\n", e.Time.Local().Format(time.TimeOnly), e.VM, e.Step, text)
	}
}

// printReport prints a round for people.
func (a *app) printReport(r *round.Report) {
	a.printf("\nRound %s, %s, %s\n\n", r.Round, r.Ended.Sub(r.Started).Round(100*time.Millisecond), r.Outcome)
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VM\tSTATE\tDOWNTIME\tOF IT OFF\tBACKUP TOOK\tFILES NEW/CHANGED/SAME\tREAD\tSTORED\tIMAGE")
	for _, v := range r.VMs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.VM, v.Left, span(v.Downtime), span(v.Dock), backupCells(v.Backup), imageCell(v))
	}
	w.Flush()
	for _, v := range r.VMs {
		if v.Backup != nil {
			a.printLeftOut(v.VM, v.Backup.LeftOut)
		}
	}
	for _, c := range r.Copies {
		if c.Error == "" {
			a.printf("\ncopy: %s\n", escape.Line(c.String()))
		}
		if c.Verify != nil {
			a.printf("\nverify of %s: %s\n", c.Place, escape.Line(c.Verify.String()))
		}
	}
	if r.Verify != nil {
		a.printf("\nverify: %s\n", escape.Line(r.Verify.String()))
	}
	for _, p := range r.Problems() {
		a.printf("\n! %s\n", escape.Line(p))
	}
	a.printf("\n")
}

// printLeftOut says what is in no backup, and why.
func (a *app) printLeftOut(vm string, list []round.LeftOut) {
	for _, l := range list {
		what := fmt.Sprintf("%d files, %s, and %d folders", l.Files, round.Bytes(l.Bytes), l.Dirs)
		if l.Files == 0 {
			what = fmt.Sprintf("%d folders", l.Dirs)
		}
		a.printf("\n%s/%s: %s leaves out %s", vm, l.Disk, escape.Line(l.Rule), what)
	}
	if len(list) > 0 {
		a.printf("\n")
	}
}

// span prints a duration, and "-" for none.
func span(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func backupCells(b *round.BackupReport) string {
	if b == nil {
		return "-\t-\t-\t-"
	}
	return fmt.Sprintf("%s\t%d/%d/%d\t%s\t%s", span(b.Duration), b.FilesNew, b.FilesChanged, b.FilesUnchanged,
		round.Bytes(b.BytesRead), round.Bytes(b.BytesStored))
}

func imageCell(v *round.VMReport) string {
	var parts []string
	if i := v.Image; i != nil {
		switch {
		case i.RolledBack != "":
			parts = append(parts, fmt.Sprintf("%s, rolled back from %s", orNone(i.Before), i.RolledBack))
		default:
			parts = append(parts, fmt.Sprintf("%s → %s", orNone(i.Before), i.After))
		}
	}
	if v.Harvest != nil {
		parts = append(parts, "harvested "+v.Harvest.String())
	}
	if v.Build != "" {
		parts = append(parts, v.Build)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, "; ")
}

func orNone(version string) string {
	if version == "" {
		return "(unknown)"
	}
	return version
}
