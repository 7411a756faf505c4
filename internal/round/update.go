package round

import (
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/state"
)

// updateData is journalled around everything that is done to a root disk.
type updateData struct {
	Disk    Disk    `json:"disk"`
	Version Version `json:"version"`
}

// prepare decides once more which version the VM's root disk gets, since the
// harvest may have brought one and an earlier VM may have shown one to be bad,
// and lays it down beside the disk while the VM still runs. Without it the VM
// goes through the dock all the same.
func (x *run) prepare(ctx context.Context, d *docked) *update {
	v := d.plan.vm
	for _, disk := range v.Disks {
		if disk.Image == "" {
			continue
		}
		u, why := x.planUpdate(ctx, v, disk, d.plan.Found)
		if u == nil {
			x.event(v.Name, StepUpdate, "", "%s", why)
			continue
		}
		x.event(v.Name, StepUpdate, "", "preparing %s", u.version)
		err := x.record(ctx, x.id, v.Name, stepPrepare, state.Begin, nil)
		if err == nil {
			err = x.o.Images.Prepare(ctx, disk, u.version)
		}
		if err != nil {
			d.report.warn(stepError(v.Name, StepUpdate, fmt.Errorf("%s was not installed: %w", u.version, err), ""))
			return nil
		}
		return u
	}
	return nil
}

// discard removes a disk that was prepared and will not be used.
func (x *run) discard(d *docked, u *update) {
	if u == nil {
		return
	}
	if err := x.o.Images.Discard(u.disk); err != nil {
		d.report.warn(stepError(d.plan.VM, StepUpdate, err, ""))
	}
}

// update switches the root disk. If that fails the old one is in place, and
// the VM starts from it.
func (x *run) update(ctx context.Context, d *docked, u *update) {
	err := x.step(ctx, d, StepUpdate, updateData{u.disk, u.version}, func() (string, error) {
		if err := x.o.Images.Switch(u.disk); err != nil {
			return "", errors.Join(err, x.o.Images.Undo(u.disk))
		}
		return u.String(), nil
	})
	if err != nil {
		d.report.warn(err)
		x.discard(d, u)
		return
	}
	d.report.Image = &ImageReport{Disk: u.disk.Name, Before: u.installed, After: u.version.ID}
}

// bringUp starts the VM and waits until it is healthy. If it is not, and has a
// new root disk, the old one is put back and the version is marked bad.
func (x *run) bringUp(ctx context.Context, d *docked, u *update) {
	err := x.startHealthy(ctx, d)
	switched := u != nil && d.report.Image != nil
	switch {
	case err == nil && switched:
		if err := x.o.Images.Commit(ctx, d.plan.vm, u.disk, u.version); err != nil {
			d.report.fail(stepError(d.plan.VM, StepUpdate, err, ""))
		}
	case err != nil && switched:
		x.rollBack(ctx, d, u, err)
	case err != nil:
		d.report.fail(err)
	}
}

// rollBack puts the old root disk back under a VM that the new one did not
// bring up.
func (x *run) rollBack(ctx context.Context, d *docked, u *update, cause error) {
	v := d.plan.vm
	x.event(v.Name, StepUpdate, "", "rolling back from %s: %v", u.version, cause)
	if err := x.o.Images.MarkBad(ctx, u.version, cause.Error()); err != nil {
		d.report.fail(stepError(v.Name, StepUpdate, err, ""))
	}
	if err := x.undo(ctx, v, u.disk); err != nil {
		d.report.fail(stepError(v.Name, StepUpdate, fmt.Errorf("roll back from %s: %w", u.version, err),
			"drydock recover tries again"))
		x.ensureUp(ctx, d) // even on a root that is not healthy it is better up
		return
	}
	img := d.report.Image
	img.RolledBack, img.Reason, img.After = u.version.ID, cause.Error(), img.Before
	d.report.warn(stepError(v.Name, StepUpdate,
		fmt.Errorf("%s was rolled back and marked bad: %w", u.version, cause), ""))
	if err := x.startHealthy(ctx, d); err != nil {
		d.report.fail(err)
	}
}

// undo stops the VM, whatever it takes, and puts the old root disk back.
func (r *Runner) undo(ctx context.Context, v VM, disk Disk) error {
	return r.retry(v.Name, StepUpdate, func() error {
		now, err := v.Machine.State(ctx)
		if err != nil {
			return err
		}
		if now.UsesDisks() {
			// Its data disks deserve an orderly shutdown even now.
			if err := v.Machine.Shutdown(ctx, v.ShutdownTimeout); err != nil {
				r.event(v.Name, StepStop, "", "%v; taking the power away to roll back", err)
				if err := v.Machine.Kill(ctx); err != nil {
					return err
				}
			}
		}
		return r.o.Images.Undo(disk)
	})
}

func (u *update) String() string {
	if u.installed == "" {
		return "to " + u.version.String()
	}
	return fmt.Sprintf("from %s to %s", u.installed, u.version.ID)
}
