package round

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// run is one round under way.
type run struct {
	*Runner
	id     string
	report *Report
	docked []*docked
}

// docked is a VM that has been through the dock, with what its backup needs.
type docked struct {
	plan    *VMPlan
	report  *VMReport
	sources []Source
	backed  bool // the backup was made, or tried, while the VM was down
	// isDocked means that it went all the way; otherwise it was skipped.
	isDocked bool
}

// Run carries the plan out. The report is complete in every case; the error is
// for what kept the round from beginning at all, or its end from being
// recorded.
func (r *Runner) Run(ctx context.Context, p *Plan, recovery *Recovery) (*Report, error) {
	if err := r.o.Backups.Check(ctx); err != nil {
		return nil, fmt.Errorf("the round did not begin and no VM was touched: %w", err)
	}
	x := &run{Runner: r, id: newRoundID(r.o.Now()), report: &Report{Started: r.o.Now(), Recovery: recovery}}
	x.report.Round = x.id
	if err := r.o.State.BeginRound(ctx, x.id, x.report.Started); err != nil {
		return nil, err
	}
	defer x.closeSources()
	x.all(ctx, p)
	return x.report, x.end(context.WithoutCancel(ctx))
}

// all takes every VM through the dock, then backs all of them up. The builder
// goes down first and comes up last.
func (x *run) all(ctx context.Context, p *Plan) {
	var builders []*dockedBuilder
	for _, vp := range p.VMs {
		if vp.Builder {
			builders = append(builders, x.builderDown(ctx, vp))
		}
	}
	for _, vp := range p.VMs {
		if !vp.Builder {
			x.dockVM(ctx, vp)
		}
	}
	for _, b := range builders {
		x.builderUp(ctx, b)
	}
	for _, d := range x.docked {
		x.backup(ctx, d)
	}
	for _, d := range x.docked {
		x.release(context.WithoutCancel(ctx), d)
	}
	x.stragglers(context.WithoutCancel(ctx))
	x.copies(ctx)
	x.prove(ctx)
	x.proveCopies(ctx)
	for _, d := range x.docked {
		x.boot(ctx, d)
	}
	x.retain(ctx)
	x.prune(ctx)
	x.pruneCopies(ctx)
}

// add opens the report of one VM.
func (x *run) add(vp *VMPlan) *docked {
	d := &docked{plan: vp, report: &VMReport{VM: vp.VM, Round: x.id, Started: x.o.Now(), Found: vp.Found}}
	x.docked = append(x.docked, d)
	x.report.VMs = append(x.report.VMs, d.report)
	return d
}

// backup stores what the snapshots of one VM hold.
func (x *run) backup(ctx context.Context, d *docked) {
	if d.backed || len(d.sources) == 0 {
		return
	}
	d.backed = true
	x.store(ctx, d)
	for _, name := range d.plan.vm.Sinks {
		x.sink(ctx, d, name)
	}
}

// store makes drydock's own backup.
func (x *run) store(ctx context.Context, d *docked) {
	err := x.step(ctx, d, StepBackup, nil, func() (string, error) {
		rep, err := x.o.Backups.Backup(ctx, d.plan.vm, x.id, d.sources, func(s string) {
			x.event(d.plan.VM, StepBackup, "", "%s", s)
		})
		d.report.Backup = rep
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	})
	if err != nil {
		d.report.fail(err)
		return
	}
	for _, w := range d.report.Backup.Warnings {
		d.report.warn(stepError(d.plan.VM, StepBackup, errors.New(w), ""))
	}
	if n := d.report.Backup.DamagedTotal; n > 0 {
		d.report.warn(stepError(d.plan.VM, StepBackup,
			fmt.Errorf("%d files could not be read and are not in the backup, the first: %s", n, d.report.Backup.Damaged[0]), ""))
	}
}

// sink has another program take the disks. One that fails costs its own backup, and
// no other.
func (x *run) sink(ctx context.Context, d *docked, name string) {
	var rep *SinkReport
	err := x.step(ctx, d, StepSink, nil, func() (string, error) {
		x.event(d.plan.VM, StepSink, "", "%s has begun", name)
		var err error
		if rep, err = x.o.Sinks.Sink(ctx, d.plan.vm, name, d.sources); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s took the disks in %s", name, seconds(rep.Duration)), nil
	})
	if err != nil {
		d.report.fail(err)
		d.report.Sinks = append(d.report.Sinks, SinkReport{Sink: name, Error: err.Error()})
		return
	}
	d.report.Sinks = append(d.report.Sinks, *rep)
	for _, w := range rep.Warnings {
		d.report.warn(stepError(d.plan.VM, StepSink, errors.New(w), ""))
	}
}

// String is the one-line summary of a backup.
func (b *BackupReport) String() string {
	text := fmt.Sprintf("%s: %d new, %d changed, %d unchanged files; read %s, stored %s", b.ID[:min(8, len(b.ID))],
		b.FilesNew, b.FilesChanged, b.FilesUnchanged, Bytes(b.BytesRead), Bytes(b.BytesStored))
	for _, i := range b.Images {
		text += "; " + i.String()
	}
	return text
}

// release drops the snapshots of this round where that is possible while the
// VM runs; the others are dropped when it is next off.
func (x *run) release(ctx context.Context, d *docked) {
	if len(d.sources) == 0 {
		return
	}
	err := x.step(ctx, d, StepRelease, nil, func() (string, error) {
		later, err := x.releaseAll(ctx, d.plan.vm)
		if later > 0 {
			return "later: possible when the VM is next off", err
		}
		return "snapshots dropped", err
	})
	if err != nil {
		d.report.warn(err)
	}
}

// releaseAll drops every snapshot that the VM still has, of this round and of
// earlier ones, and returns how many have to wait.
func (r *Runner) releaseAll(ctx context.Context, v VM) (later int, err error) {
	pending, err := r.o.State.Snapshots(ctx, v.Name)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range pending {
		var s Snapshot
		if err := json.Unmarshal(p.Data, &s); err != nil {
			errs = append(errs, fmt.Errorf("snapshot of %s in round %s: %w", p.Disk, p.Round, err))
			continue
		}
		err := r.o.Snapshots.Release(ctx, v, s)
		if errors.Is(err, ErrNotNow) {
			later++
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("drop snapshot %s of %s: %w", s.Name, p.Disk, err))
			continue
		}
		if err := r.o.State.DropSnapshot(ctx, p); err != nil {
			errs = append(errs, err)
		}
	}
	return later, errors.Join(errs...)
}

func (x *run) closeSources() {
	for _, d := range x.docked {
		for _, s := range d.sources {
			s.File.Close()
		}
	}
}

// end writes the reports into the history.
func (x *run) end(ctx context.Context) error {
	x.report.Ended = x.o.Now()
	x.report.settle()
	vms := map[string]json.RawMessage{}
	for _, v := range x.report.VMs {
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		vms[v.VM] = raw
	}
	raw, err := json.Marshal(x.report)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return x.o.State.EndRound(ctx, state.Round{ID: x.id, Ended: x.report.Ended, Outcome: x.report.Outcome, Report: raw}, vms)
}

// step journals, times and reports one step. The act's text is what the user
// reads about it. The act is not begun when the journal cannot be written.
func (x *run) step(ctx context.Context, d *docked, s Step, data any, act func() (string, error)) error {
	name := d.plan.VM
	jctx := context.WithoutCancel(ctx)
	if err := x.record(jctx, x.id, name, s, state.Begin, data); err != nil {
		return stepError(name, s, err, "")
	}
	x.event(name, s, state.Begin, "")
	start := time.Now()
	text, err := act()
	rep := StepReport{Step: s, Phase: state.End, Duration: time.Since(start), Text: text}
	if err != nil {
		rep.Phase, rep.Text = state.Failed, err.Error()
	}
	d.report.Steps = append(d.report.Steps, rep)
	x.event(name, s, rep.Phase, "%s", rep.Text)
	if err != nil {
		err = stepError(name, s, err, "")
	}
	if jerr := x.record(jctx, x.id, name, s, rep.Phase, data); jerr != nil && err == nil {
		err = stepError(name, s, jerr, "")
	}
	return err
}

// checkDisk says what is wrong with a disk before its VM is stopped.
func checkDisk(d Disk) error {
	info, err := os.Stat(d.Path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("its disk %s does not exist at %s: correct the path in the configuration", d.Name, d.Path)
	}
	if err != nil {
		return fmt.Errorf("its disk %s: %w", d.Name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("its disk %s at %s is not a regular file; other disks are not supported yet", d.Name, d.Path)
	}
	return nil
}
