package round

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// Recovery is what [Runner.Recover] did.
type Recovery struct {
	Rounds   []string `json:"rounds"` // the rounds that were cut off
	Actions  []string `json:"actions,omitempty"`
	Warnings []string `json:"warnings,omitempty"` // what could not be put right
}

// Recover finishes or undoes what rounds that were cut off left in the air: it
// puts back a root disk that was not proven, starts what was running, and drops
// snapshots. The caller holds the lock, so no round is under way. It returns
// nil when there was nothing to do. VMs that the configuration no longer has
// are named in a warning and left alone.
func (r *Runner) Recover(ctx context.Context, vms []VM) (*Recovery, error) {
	rounds, err := r.o.State.OpenRounds(ctx)
	if err != nil {
		return nil, err
	}
	rec := &Recovery{}
	for _, round := range rounds {
		rec.Rounds = append(rec.Rounds, round.ID)
		if err := r.recoverRound(ctx, round, vms, rec); err != nil {
			return rec, err
		}
	}
	for _, v := range vms {
		if err := r.recoverSwitched(ctx, v, rec); err != nil {
			rec.Warnings = append(rec.Warnings, err.Error())
		}
	}
	if len(rec.Rounds)+len(rec.Actions)+len(rec.Warnings) == 0 {
		return nil, nil
	}
	return rec, nil
}

// recoverSwitched takes up a root disk that a round could not put back and
// said so: its journal is closed, but the switch is neither committed nor
// undone.
func (r *Runner) recoverSwitched(ctx context.Context, v VM, rec *Recovery) error {
	for _, disk := range v.Disks {
		if disk.Image == "" || checkDisk(disk) != nil {
			continue
		}
		switched, err := r.o.Images.Switched(disk)
		if err != nil {
			return stepError(v.Name, StepUpdate, fmt.Errorf("recover: %w", err), "")
		}
		if !switched {
			continue
		}
		found, err := v.Machine.State(ctx)
		if err != nil {
			return stepError(v.Name, StepUpdate, fmt.Errorf("recover: %w", err), "")
		}
		return r.recoverVM(ctx, v, cut{stop: &stopData{Found: found}}, rec)
	}
	return nil
}

// cut is what the journal says about one VM of a round that was cut off.
type cut struct {
	stop     *stopData
	stopping bool // the shutdown was begun and its end was not seen
	update   *updateData
	docked   bool
}

func (r *Runner) recoverRound(ctx context.Context, round state.Round, vms []VM, rec *Recovery) error {
	entries, err := r.o.State.Journal(ctx, round.ID)
	if err != nil {
		return err
	}
	cuts, order, err := readJournal(entries)
	if err != nil {
		return err
	}
	clean := true
	for _, name := range order {
		v, ok := find(vms, name)
		if !ok {
			rec.Warnings = append(rec.Warnings, fmt.Sprintf(
				"%s: round %s was cut off in the middle of this VM, but the configuration no longer has it", name, round.ID))
			continue
		}
		if err := r.recoverVM(ctx, v, *cuts[name], rec); err != nil {
			clean = false
			rec.Warnings = append(rec.Warnings, err.Error())
		}
	}
	if !clean {
		return nil // the round stays open, and the next recovery tries again
	}
	return r.o.State.EndRound(ctx, state.Round{ID: round.ID, Ended: r.o.Now(), Outcome: state.Interrupted}, nil)
}

func readJournal(entries []state.Entry) (map[string]*cut, []string, error) {
	cuts := map[string]*cut{}
	var order []string
	for _, e := range entries {
		c := cuts[e.VM]
		if c == nil {
			c = &cut{}
			cuts[e.VM] = c
			order = append(order, e.VM)
		}
		var err error
		switch {
		case e.Step == string(StepStop) && e.Phase == state.Begin:
			c.stop, c.stopping = &stopData{}, true
			err = json.Unmarshal(e.Data, c.stop)
		case e.Step == string(StepStop):
			c.stopping = false
		case e.Step == string(StepUpdate) && e.Phase == state.Begin:
			c.update = &updateData{}
			err = json.Unmarshal(e.Data, c.update)
		case e.Step == string(stepDocked):
			c.docked = true
		}
		if err != nil {
			return nil, nil, fmt.Errorf("journal of round %s, %s of %s: %w", e.Round, e.Step, e.VM, err)
		}
	}
	return cuts, order, nil
}

func find(vms []VM, name string) (VM, bool) {
	for _, v := range vms {
		if v.Name == name {
			return v, true
		}
	}
	return VM{}, false
}

// recoverVM brings one VM back to what it was before the round.
func (r *Runner) recoverVM(ctx context.Context, v VM, c cut, rec *Recovery) error {
	act := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		rec.Actions = append(rec.Actions, v.Name+": "+text)
		r.event(v.Name, "", "", "recover: %s", text)
	}
	if !c.docked {
		if err := r.recoverRoot(ctx, v, c, act); err != nil {
			return stepError(v.Name, StepUpdate, fmt.Errorf("recover: %w", err), "")
		}
		if err := r.recoverState(ctx, v, c, act); err != nil {
			return stepError(v.Name, StepStart, fmt.Errorf("recover: %w", err), "")
		}
	}
	now, err := v.Machine.State(ctx)
	if err != nil {
		return stepError(v.Name, StepRelease, err, "")
	}
	if _, err := r.releaseAll(ctx, v); err != nil {
		// Snapshots cost space and no data; the next round drops them.
		r.event(v.Name, StepRelease, "", "recover: the VM is %s: %v", now, err)
	}
	return nil
}

// recoverRoot decides what becomes of a root disk that was being replaced: a
// VM that runs on the new one gets its chance to prove it; otherwise the old
// one is put back, which is known to boot, and a later round tries again.
func (r *Runner) recoverRoot(ctx context.Context, v VM, c cut, act func(string, ...any)) error {
	for _, disk := range v.Disks {
		if disk.Image == "" {
			continue
		}
		switched, err := r.o.Images.Switched(disk)
		if err != nil {
			return err
		}
		now, err := v.Machine.State(ctx)
		if err != nil {
			return err
		}
		switch {
		case !switched && now.UsesDisks():
			return r.o.Images.Discard(disk)
		case !switched:
			if err := r.o.Images.Undo(disk); err != nil { // a switch that stopped half way
				return err
			}
			return r.o.Images.Discard(disk)
		case now.UsesDisks() && c.update != nil && c.update.Disk.Name == disk.Name && r.proven(ctx, v):
			act("it is healthy on %s, which was being installed", c.update.Version)
			return r.o.Images.Commit(ctx, v, disk, c.update.Version)
		}
		act("putting the old root disk back")
		if err := r.undo(ctx, v, disk); err != nil {
			return err
		}
	}
	return nil
}

// proven asks the probes of a VM that runs. What its console printed before is
// taken into account, since nobody knows any more where this start began.
func (r *Runner) proven(ctx context.Context, v VM) bool {
	return r.o.Machines.Healthy(ctx, v, 0) == nil
}

// recoverState starts a VM that was running. The builder is started only if a
// build is due, as ever.
func (r *Runner) recoverState(ctx context.Context, v VM, c cut, act func(string, ...any)) error {
	now, err := v.Machine.State(ctx)
	if err != nil {
		return err
	}
	if c.stop == nil || !c.stop.Found.UsesDisks() {
		return nil
	}
	if now.UsesDisks() {
		if !c.stopping {
			return nil
		}
		// It was asked to power off, and may do so at any moment from now.
		act("seeing its shutdown through")
		if err := v.Machine.Shutdown(ctx, v.ShutdownTimeout); err != nil {
			if errors.Is(err, vm.ErrShutdownTimeout) {
				return nil
			}
			return err
		}
	}
	if v.Builder != nil {
		_, due, err := r.PrepareBuild(ctx, v)
		if err != nil || !due.Due {
			return err
		}
	}
	act("starting it, it was running before the round")
	return r.retry(v.Name, StepStart, func() error { return v.Machine.Start(ctx) })
}
