package round

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// tries is how often a start is tried before the root disk is suspected, and
// how often it is tried to put an old root disk back.
const tries = 3

// stopData is journalled before a VM is stopped: what it has to be again.
type stopData struct {
	Found   vm.State `json:"found"`
	Builder bool     `json:"builder,omitempty"`
}

// dockVM takes a VM through the dock: down, its snapshots and its update, and
// up again. Whatever fails after the stop, the VM is started.
func (x *run) dockVM(ctx context.Context, vp *VMPlan) {
	d := x.add(vp)
	defer x.leave(ctx, d)
	if !x.mayDock(ctx, d) {
		return
	}
	u := x.prepare(ctx, d)
	down := time.Now()
	if !x.stop(ctx, d) {
		x.discard(d, u)
		return
	}
	off := time.Now()
	// From here on a cancelled round must still bring the VM up.
	up := context.WithoutCancel(ctx)
	x.frozen(ctx, d, u)
	if vp.Found.UsesDisks() {
		d.report.Dock = time.Since(off)
		x.bringUp(up, d, u)
		d.report.Downtime = time.Since(down)
	}
	x.markDocked(up, d)
}

// mayDock looks once more at what may have changed since the plan was made.
func (x *run) mayDock(ctx context.Context, d *docked) bool {
	name := d.plan.VM
	if err := ctx.Err(); err != nil {
		d.report.fail(stepError(name, StepStop, fmt.Errorf("the round was interrupted before this VM: %w", err), ""))
		return false
	}
	found, err := d.plan.vm.Machine.State(ctx)
	if err != nil {
		d.report.fail(stepError(name, StepStop, err, ""))
		return false
	}
	d.plan.Found, d.report.Found = found, found
	if why := x.skipReason(ctx, d.plan.vm, found); why != "" {
		d.report.warn(stepError(name, StepStop, errors.New("skipped: "+why), ""))
		return false
	}
	return true
}

// stop shuts the VM down, and reports whether it is off.
func (x *run) stop(ctx context.Context, d *docked) bool {
	v := d.plan.vm
	data := stopData{Found: d.plan.Found, Builder: d.plan.Builder}
	err := x.step(ctx, d, StepStop, data, func() (string, error) {
		if !d.plan.Found.UsesDisks() {
			return "it is off", nil
		}
		start := time.Now()
		// Not to be cancelled: a guest that has been asked goes down, and
		// must be seen to, so that it is started again.
		err := v.Machine.Shutdown(context.WithoutCancel(ctx), v.ShutdownTimeout)
		if errors.Is(err, vm.ErrShutdownTimeout) && v.ForceShutdown {
			x.event(v.Name, StepStop, "", "%v; taking the power away, as on_shutdown_timeout says", err)
			err = v.Machine.Kill(context.WithoutCancel(ctx))
			return fmt.Sprintf("power taken away after %s", seconds(time.Since(start))), err
		}
		return fmt.Sprintf("off after %s", seconds(time.Since(start))), err
	})
	switch {
	case err == nil:
		return true
	case errors.Is(err, vm.ErrShutdownTimeout):
		d.report.warn(stepError(v.Name, StepStop, fmt.Errorf("skipped, it still runs: %w", vm.ErrShutdownTimeout),
			"raise shutdown_timeout, or set on_shutdown_timeout: force"))
	default:
		d.report.fail(err)
	}
	// Shutdown may have failed half way: what was running must be running.
	x.ensureUp(context.WithoutCancel(ctx), d)
	return false
}

// stragglers starts the VMs that were skipped since they did not power off in
// time, and then did so after all.
func (x *run) stragglers(ctx context.Context) {
	for _, d := range x.docked {
		if !d.plan.Builder && !d.isDocked {
			x.ensureUp(ctx, d)
			x.leave(ctx, d)
		}
	}
}

// ensureUp starts a VM that was running and is not.
func (x *run) ensureUp(ctx context.Context, d *docked) {
	now, err := d.plan.vm.Machine.State(ctx)
	if err == nil && now.UsesDisks() || !d.plan.Found.UsesDisks() {
		return
	}
	if err := x.start(ctx, d); err != nil {
		d.report.fail(err)
	}
}

// frozen does what has to be done while the VM is off: drop old snapshots,
// take new ones, read what cannot be snapshotted, switch the root disk.
func (x *run) frozen(ctx context.Context, d *docked, u *update) {
	if err := x.snapshot(ctx, d); err != nil {
		d.report.fail(err)
		x.discard(d, u)
		return
	}
	if d.plan.BackupBeforeStart || !d.plan.Found.UsesDisks() && x.unfrozen(d) {
		x.backup(ctx, d)
	}
	// A source that is the disk itself holds QEMU's lock: the VM could not
	// start.
	x.closeUnfrozen(d)
	if u != nil {
		x.update(ctx, d, u)
	}
}

// unfrozen reports whether any source is a disk itself and not a snapshot.
func (x *run) unfrozen(d *docked) bool {
	for _, s := range d.sources {
		if s.Unfrozen {
			return true
		}
	}
	return false
}

func (x *run) closeUnfrozen(d *docked) {
	kept := d.sources[:0]
	for _, s := range d.sources {
		if s.Unfrozen {
			s.File.Close()
			continue
		}
		kept = append(kept, s)
	}
	d.sources = kept
}

// snapshot takes a snapshot of each disk that is backed up, all while the VM
// is off, so that they belong together.
func (x *run) snapshot(ctx context.Context, d *docked) error {
	if !d.plan.vm.backsUp() {
		return nil
	}
	v := d.plan.vm
	return x.step(ctx, d, StepSnapshot, nil, func() (string, error) {
		if err := x.sweep(ctx, v); err != nil {
			return "", err
		}
		text := ""
		for _, disk := range v.Disks {
			if !disk.Backup {
				continue
			}
			s, err := x.snapshotDisk(ctx, v, disk)
			if err != nil {
				return "", fmt.Errorf("disk %s: %w", disk.Name, err)
			}
			src, err := x.o.Sources.Open(v, disk, s)
			if err != nil {
				return "", fmt.Errorf("disk %s: %w", disk.Name, err)
			}
			d.sources = append(d.sources, src)
			text += fmt.Sprintf(", %s: %s", disk.Name, s.Kind)
		}
		return text[2:], nil
	})
}

// sweep drops what earlier rounds could not drop while the VM was running.
func (x *run) sweep(ctx context.Context, v VM) error {
	for _, disk := range v.Disks {
		if err := x.o.Snapshots.Sweep(ctx, v, disk); err != nil {
			return fmt.Errorf("drop the old snapshots of disk %s: %w", disk.Name, err)
		}
	}
	_, err := x.releaseAll(ctx, v)
	return err
}

func (x *run) snapshotDisk(ctx context.Context, v VM, disk Disk) (Snapshot, error) {
	kind, _ := x.o.Snapshots.Plan(ctx, v, disk)
	want := Snapshot{Kind: kind, Name: x.id, Path: disk.Path, Format: disk.Format}
	if kind == KindNone {
		return want, nil
	}
	if err := x.remember(ctx, v, disk, want); err != nil {
		return Snapshot{}, err
	}
	got, err := x.o.Snapshots.Take(ctx, v, disk, x.id)
	if err != nil {
		return Snapshot{}, err
	}
	return got, x.remember(ctx, v, disk, got)
}

func (x *run) remember(ctx context.Context, v VM, disk Disk, s Snapshot) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("remember snapshot: %w", err)
	}
	return x.o.State.AddSnapshot(ctx, state.Snapshot{Round: x.id, VM: v.Name, Disk: disk.Name, Data: raw})
}

// start starts the VM, and tries again when that fails.
func (x *run) start(ctx context.Context, d *docked) error {
	return x.step(ctx, d, StepStart, nil, func() (string, error) {
		start := time.Now()
		if err := x.retry(d.plan.VM, StepStart, func() error { return d.plan.vm.Machine.Start(ctx) }); err != nil {
			return "", err
		}
		return fmt.Sprintf("running after %s", seconds(time.Since(start))), nil
	})
}

// retry tries what must not fail a few times.
func (r *Runner) retry(name string, s Step, act func() error) error {
	for try := 1; ; try++ {
		err := act()
		if err == nil || try == tries || errors.Is(err, vm.ErrSkipped) {
			return err
		}
		r.event(name, s, "", "try %d of %d: %v", try, tries, err)
		time.Sleep(time.Duration(try) * r.o.RetryPause)
	}
}

// health waits until the VM's probes pass.
func (x *run) health(ctx context.Context, d *docked, mark int64) error {
	return x.step(ctx, d, StepHealth, nil, func() (string, error) {
		x.event(d.plan.VM, StepHealth, "", "waiting until it is healthy")
		start := time.Now()
		if err := x.o.Machines.Healthy(ctx, d.plan.vm, mark); err != nil {
			return "", err
		}
		return fmt.Sprintf("healthy after %s", seconds(time.Since(start))), nil
	})
}

// startHealthy is start and health as one.
func (x *run) startHealthy(ctx context.Context, d *docked) error {
	mark := x.o.Machines.ConsoleMark(d.plan.vm)
	if err := x.start(ctx, d); err != nil {
		return err
	}
	return x.health(ctx, d, mark)
}

// markDocked journals that nothing is left to do for the VM but its backup.
func (x *run) markDocked(ctx context.Context, d *docked) {
	d.isDocked = true
	if err := x.record(ctx, x.id, d.plan.VM, stepDocked, state.End, nil); err != nil {
		d.report.fail(stepError(d.plan.VM, StepStart, err, ""))
	}
}

// leave records the state in which the VM is left.
func (x *run) leave(ctx context.Context, d *docked) {
	left, err := d.plan.vm.Machine.State(context.WithoutCancel(ctx))
	if err != nil {
		d.report.fail(stepError(d.plan.VM, StepStart, err, ""))
		return
	}
	d.report.Left = left
	if d.report.Found.UsesDisks() && !left.UsesDisks() && !d.plan.Builder {
		d.report.fail(stepError(d.plan.VM, StepStart, errors.New("it was running and is down now"),
			"see its console and the errors above, then start it"))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
