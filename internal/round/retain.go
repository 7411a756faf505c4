package round

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// Retention removes backups that no policy keeps, and has their space given back.
// What fails there is a warning: it never fails a backup.
type Retention interface {
	// Retain applies the policies of the VMs. There is a report for each, in
	// their order, also for one that keeps all; reports that come with an
	// error say what was done until then.
	Retain(ctx context.Context, vms []VM) ([]*RetainReport, error)
	// Prune gives back the space of what was removed.
	Prune(ctx context.Context) (*PruneReport, error)
}

// RetainReport is what became of the backups of one VM.
type RetainReport struct {
	Policy     string    `json:"policy,omitempty"` // empty keeps all
	Kept       int       `json:"kept"`
	Removed    []string  `json:"removed,omitempty"` // IDs, oldest first
	FromFuture []string  `json:"from_future,omitempty"`
	Newest     time.Time `json:"newest,omitzero"` // of the last good backup
}

// PruneReport is what a prune gave back.
type PruneReport struct {
	Reason   string        `json:"reason"` // why it was due
	Duration time.Duration `json:"duration"`
	Before   int64         `json:"before"` // bytes of all packs
	After    int64         `json:"after"`
	Output   []string      `json:"output,omitempty"` // of restic
}

// chorePrune is the name of the prune in the state.
const chorePrune = "prune"

// retain applies the policies, and looks for backups that are missing.
func (x *run) retain(ctx context.Context) {
	var vms []VM
	var backedUp []*docked
	for _, d := range x.docked {
		if d.plan.vm.backsUp() && d.plan.vm.Hold == "" { // it may hang on an old backup
			vms, backedUp = append(vms, d.plan.vm), append(backedUp, d)
		}
	}
	if ctx.Err() != nil || len(vms) == 0 {
		return
	}
	start := time.Now()
	reports, err := x.o.Retention.Retain(ctx, vms)
	took := time.Since(start)
	if err != nil {
		err = fmt.Errorf("%s: %w", StepRetain, err)
		x.report.Warnings = append(x.report.Warnings, err.Error())
		x.event("", StepRetain, state.Failed, "%v", err)
	}
	if len(reports) != len(backedUp) {
		return
	}
	for i, d := range backedUp {
		d.report.Retain = reports[i]
		x.retained(d, took)
	}
}

// retained reports on one VM. Took is the time that all VMs took together.
func (x *run) retained(d *docked, took time.Duration) {
	r, name := d.report.Retain, d.plan.VM
	if r.Policy != "" {
		text := r.String()
		d.report.Steps = append(d.report.Steps, StepReport{Step: StepRetain, Phase: state.End, Duration: took, Text: text})
		x.event(name, StepRetain, state.End, "%s", text)
	}
	if n := len(r.FromFuture); n > 0 {
		d.report.warn(stepError(name, StepRetain,
			fmt.Errorf("%d backups are from the future, the first is %.8s", n, r.FromFuture[0]),
			"the clock was set back; no policy removes them, drydock backups rm does"))
	}
	if late := Late(x.o.Now(), r.Newest, d.plan.vm.MaxAge); late != "" {
		d.report.warn(stepError(name, StepBackup, errors.New(late), ""))
	}
}

// String is the one-line summary.
func (r *RetainReport) String() string {
	return fmt.Sprintf("%d backups kept, %d removed (%s)", r.Kept, len(r.Removed), r.Policy)
}

// Late says what is wrong with a VM whose newest good backup is of the given time,
// which is zero where there is none; "" is nothing. A maxAge of 0 is no limit.
func Late(now, newest time.Time, maxAge time.Duration) string {
	switch age := now.Sub(newest); {
	case maxAge == 0:
		return ""
	case newest.IsZero():
		return "a backup is missing: there is none"
	case age > maxAge:
		return fmt.Sprintf("a backup is missing: the newest good one is %s old, and max_age is %s", roughly(age), roughly(maxAge))
	}
	return ""
}

// backsUp reports whether any disk of the VM is backed up.
func (v VM) backsUp() bool {
	for _, d := range v.Disks {
		if d.Backup {
			return true
		}
	}
	return false
}

// PruneDue says whether a prune is due. It decides from the state alone, as
// [Runner.Due] does.
func (r *Runner) PruneDue(ctx context.Context) (Due, error) { return r.pruneDue(ctx, chorePrune) }

func (r *Runner) pruneDue(ctx context.Context, chore string) (Due, error) {
	if r.o.PruneEvery == 0 {
		return Due{Reason: "no retention is configured, or prune.every is 0s"}, nil
	}
	last, err := r.o.State.LastChore(ctx, chore)
	if err != nil {
		return Due{}, err
	}
	return DueAfter("prune", r.o.Now(), last, r.o.PruneEvery), nil
}

// prune gives back space, if it is time to.
func (x *run) prune(ctx context.Context) {
	due, err := x.PruneDue(ctx)
	if err == nil && (!due.Due || ctx.Err() != nil) {
		return
	}
	if err == nil {
		x.event("", StepPrune, "", "%s", due.Reason)
		x.report.Prune, err = x.Prune(ctx, due.Reason)
	}
	if err != nil {
		x.report.Warnings = append(x.report.Warnings, err.Error())
		x.event("", StepPrune, state.Failed, "%v", err)
		return
	}
	x.event("", StepPrune, state.End, "%s", x.report.Prune)
}

// Prune gives back space now, whether or not it is due, and remembers that it did.
func (r *Runner) Prune(ctx context.Context, reason string) (*PruneReport, error) {
	p, err := r.o.Retention.Prune(ctx)
	if p != nil {
		p.Reason = reason
	}
	if err != nil {
		return p, err
	}
	return p, r.o.State.ChoreDone(context.WithoutCancel(ctx), chorePrune, r.o.Now())
}

// String is the one-line summary.
func (p *PruneReport) String() string {
	return fmt.Sprintf("%s given back, %s are left, after %s", Bytes(max(0, p.Before-p.After)), Bytes(p.After), seconds(p.Duration))
}
