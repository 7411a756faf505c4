package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// vmStatus is one line of drydock status.
type vmStatus struct {
	VM      string            `json:"vm"`
	State   vm.State          `json:"state"`
	Error   string            `json:"error,omitempty"`       // why the state cannot be told
	From    *fromBackup       `json:"from_backup,omitempty"` // what its disks are being filled in from
	Last    *round.VMReport   `json:"last,omitempty"`        // the newest round of this VM
	Images  map[string]string `json:"images,omitempty"`
	Backup  *time.Time        `json:"backup,omitempty"` // time of the newest good backup in the repository
	Alarm   string            `json:"alarm,omitempty"`  // a backup is missing
	Proven  *proven           `json:"proven,omitempty"` // the newest look at its backups
	Booted  *booted           `json:"booted,omitempty"` // the newest start from a backup
	Pending int               `json:"pending_snapshots"`
	Due     *round.Due        `json:"due,omitempty"`
}

// hostStatus is drydock status.
type hostStatus struct {
	VMs        []vmStatus        `json:"vms"`
	Repository *repositoryStatus `json:"repository"`
	Copies     []copyStatus      `json:"copies,omitempty"`
}

// alarms are what makes the exit code that of warnings.
func (s *hostStatus) alarms() []string {
	var out []string
	if s.Repository.Error != "" {
		out = append(out, "the backups cannot all be looked at: "+s.Repository.Error)
	}
	for _, v := range s.VMs {
		if v.Alarm != "" {
			out = append(out, v.VM+": "+v.Alarm)
		}
	}
	for _, c := range s.Copies {
		out = append(out, c.alarms()...)
	}
	return out
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status [VM…]",
		Short: "One line per VM",
		Long: `Print one line per VM, how long the repository's space lasts, and how old the
newest backups at the copies are.

A VM whose newest good backup is older than its max_age is an alarm, whether or
not drydock ran meanwhile: the repository is asked, and so is each copy. Exit codes:
0 all is well, 1 failed, 3 a backup is missing, or the repository or a copy cannot
be read.`,
		RunE: func(c *cobra.Command, names []string) error { return a.status(c.Context(), names) },
	}
}

func (a *app) status(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick(names)
	if err != nil {
		return err
	}
	out := hostStatus{VMs: []vmStatus{}}
	if out.Repository, err = h.repositoryStatus(ctx); err != nil {
		return err
	}
	for _, v := range vms {
		s, err := h.vmStatus(ctx, v, out.Repository)
		if err != nil {
			return err
		}
		out.VMs = append(out.VMs, s)
	}
	if out.Copies, err = h.copyStatuses(ctx, vms); err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(out)
	} else {
		err = a.printStatus(&out)
	}
	if alarms := out.alarms(); err == nil && len(alarms) > 0 {
		return &exitError{exitWarnings, errors.New(oneLine(alarms))}
	}
	return err
}

func (a *app) printStatus(s *hostStatus) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VM\tSTATE\tLAST ROUND\tOUTCOME\tDOWNTIME\tBACKUP\tSIZE\tPROVEN\tIMAGE")
	for _, v := range s.VMs {
		fmt.Fprintln(w, v.line(a.now()))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	a.printf("%s\n", s.Repository.line())
	if err := a.printCopies(s.Copies); err != nil {
		return err
	}
	for _, text := range s.alarms() {
		a.printf("! %s\n", escape.Line(text))
	}
	return nil
}

func (h *host) vmStatus(ctx context.Context, v round.VM, repo *repositoryStatus) (vmStatus, error) {
	s := vmStatus{VM: v.Name, Images: map[string]string{}}
	var err error
	if s.State, err = v.Machine.State(ctx); err != nil {
		s.Error = err.Error()
	}
	if s.From, err = h.fromBackup(v.Name); err != nil {
		return s, err
	}
	reports, err := h.reports(ctx, v.Name, 1)
	if err != nil {
		return s, err
	}
	if len(reports) > 0 {
		s.Last = reports[0]
	}
	newest, ok := repo.held.newest[v.Name]
	if ok {
		s.Backup = &newest
	}
	if ok || repo.Error == "" { // what cannot be looked at is not said to be missing
		s.Alarm = round.Late(h.app.now(), newest, v.MaxAge)
	}
	for _, d := range v.Disks {
		if d.Image == "" {
			continue
		}
		in, ok, err := h.images.Installed(v.Name, d.Name)
		if err != nil {
			return s, err
		}
		if ok {
			s.Images[d.Name] = in.Image + " " + in.Version
		}
	}
	if s.Proven, err = h.proven(ctx, "", v.Name); err != nil {
		return s, err
	}
	if s.Booted, err = h.booted(ctx, v.Name); err != nil {
		return s, err
	}
	pending, err := h.db.Snapshots(ctx, v.Name)
	s.Pending = len(pending)
	if err == nil && v.Builder != nil {
		var d round.Due
		d, err = h.runner.Due(ctx, v)
		s.Due = &d
	}
	return s, err
}

func (h *host) reports(ctx context.Context, name string, limit int) ([]*round.VMReport, error) {
	raws, err := h.db.VMReports(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	var out []*round.VMReport
	for _, raw := range raws {
		r := &round.VMReport{}
		if err := json.Unmarshal(raw, r); err != nil {
			return nil, fmt.Errorf("history of %s: %w", name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (s vmStatus) line(now time.Time) string {
	last, outcome, downtime, backup, size, img := "never", "-", "-", "never", "-", "-"
	if s.Last != nil {
		last, outcome, downtime = ago(now, s.Last.Started), string(s.Last.Outcome), span(s.Last.Downtime)
		size = sizeCell(s.Last.Backup)
	}
	if s.Backup != nil {
		backup = ago(now, *s.Backup)
	}
	if s.Alarm != "" {
		backup += " (!)"
	}
	for _, i := range s.Images {
		img = i
	}
	if s.Due != nil {
		img = "builder: " + s.Due.Reason
	}
	st := string(s.State)
	if s.Error != "" {
		st = "unknown: " + escape.Line(s.Error)
	}
	if s.From != nil {
		st += ", being filled in from " + shortID(s.From.Backup)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", s.VM, st, last, outcome, downtime, backup, size, provenCell(now, s.Proven, s.Booted), img)
}

func ago(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func (a *app) historyCmd() *cobra.Command {
	limit := 20
	c := &cobra.Command{
		Use:   "history [VM]",
		Short: "Past rounds: downtime, sizes, what went wrong",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE:  func(c *cobra.Command, names []string) error { return a.history(c.Context(), names, limit) },
	}
	c.Flags().IntVarP(&limit, "number", "n", limit, "at most this many rounds")
	return c
}

func (a *app) history(ctx context.Context, names []string, limit int) error {
	if limit < 1 {
		return usageError("--number is %d, but must be 1 or more", limit)
	}
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	if _, err := h.pick(names); err != nil {
		return err
	}
	if len(names) == 1 {
		return h.vmHistory(ctx, names[0], limit)
	}
	rounds, err := h.db.Rounds(ctx, limit)
	if err != nil {
		return err
	}
	if a.json {
		if rounds == nil {
			rounds = []state.Round{}
		}
		return a.printJSON(rounds)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROUND\tSTARTED\tTOOK\tOUTCOME\tVMS\tREAD\tSTORED")
	for _, r := range rounds {
		fmt.Fprintln(w, roundLine(r))
	}
	return w.Flush()
}

func roundLine(r state.Round) string {
	took := "-"
	outcome := string(r.Outcome)
	if r.Ended.IsZero() {
		outcome = "under way, or cut off"
	} else {
		took = span(r.Ended.Sub(r.Started))
	}
	var rep round.Report
	var read, stored int64
	// A round that was cut off has no report; its sums are zero.
	_ = json.Unmarshal(r.Report, &rep)
	for _, v := range rep.VMs {
		if v.Backup != nil {
			read += v.Backup.BytesRead
			stored += v.Backup.BytesStored
		}
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%s", r.ID, r.Started.Local().Format(time.DateTime), took, outcome,
		len(rep.VMs), round.Bytes(read), round.Bytes(stored))
}

func (h *host) vmHistory(ctx context.Context, name string, limit int) error {
	reports, err := h.reports(ctx, name, limit)
	if err != nil {
		return err
	}
	if h.app.json {
		if reports == nil {
			reports = []*round.VMReport{}
		}
		return h.app.printJSON(reports)
	}
	w := tabwriter.NewWriter(h.app.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROUND\tSTARTED\tOUTCOME\tDOWNTIME\tOF IT OFF\tBACKUP TOOK\tFILES NEW/CHANGED/SAME\tREAD\tSTORED\tIMAGE\tBOOTED")
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Round, r.Started.Local().Format(time.DateTime), r.Outcome,
			span(r.Downtime), span(r.Dock), backupCells(r.Backup), imageCell(r), bootCell(r.Boot))
	}
	return w.Flush()
}
