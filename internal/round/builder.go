package round

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// dockedBuilder is the builder VM between its way down and its way up.
type dockedBuilder struct {
	*docked
	down bool // it is off, by this round or since before
	at   time.Time
}

// builderDown stops the builder before all other VMs, imports what it has
// built, and takes its snapshots.
func (x *run) builderDown(ctx context.Context, vp *VMPlan) *dockedBuilder {
	b := &dockedBuilder{docked: x.add(vp), at: time.Now()}
	if !x.mayDock(ctx, b.docked) || !x.stop(ctx, b.docked) {
		return b
	}
	b.down = true
	x.harvest(ctx, b)
	x.frozen(ctx, b.docked, nil)
	return b
}

// harvest imports what the builder finished. A failure costs the images of
// this build and nothing else.
func (x *run) harvest(ctx context.Context, b *dockedBuilder) {
	err := x.step(ctx, b.docked, StepHarvest, nil, func() (string, error) {
		h, err := x.o.Builds.Harvest(ctx, b.plan.vm)
		if err != nil || h == nil {
			return "nothing new", err
		}
		b.report.Harvest = h
		return h.String(), x.o.State.FinishBuild(ctx, h.BuildID, x.o.Now())
	})
	if err != nil {
		b.report.warn(err)
	}
}

func (h *Harvest) String() string {
	s := ""
	for _, i := range h.Images {
		what := "unchanged"
		if i.New {
			what = "new, " + Bytes(i.Size)
		}
		s += fmt.Sprintf(", %s (%s)", i.Version, what)
	}
	if s == "" {
		return "no images"
	}
	return s[2:]
}

// builderUp starts the builder, last of all, if a build is due.
func (x *run) builderUp(ctx context.Context, b *dockedBuilder) {
	up := context.WithoutCancel(ctx)
	defer x.leave(up, b.docked)
	if !b.down {
		return
	}
	v := b.plan.vm
	id, due, err := x.PrepareBuild(up, v)
	switch {
	case err != nil:
		b.report.fail(stepError(v.Name, StepStart, err, ""))
	case !due.Due:
		b.report.Build = "not due: " + due.Reason
		x.event(v.Name, StepStart, "", "%s", b.report.Build)
	default:
		b.report.Build = fmt.Sprintf("build %s: %s", id, due.Reason)
		x.event(v.Name, StepStart, "", "%s", b.report.Build)
		b.report.Dock = time.Since(b.at)
		err = x.startHealthy(up, b.docked)
		b.report.Downtime = time.Since(b.at)
		if errors.Is(err, vm.ErrSkipped) {
			b.report.warn(stepError(v.Name, StepStart,
				errors.New("a build is due, but the unit's own start condition declined"),
				"its ExecCondition= must be: drydock due "+v.Name))
		} else if err != nil {
			b.report.fail(err)
		}
	}
	x.markDocked(up, b.docked)
}

// PrepareBuild writes the builder's specification disk if a build is due. A
// build that was started and not yet harvested is taken up again under its
// name, as long as the specification is the same, so that the builder goes on
// with it, or finds that it has finished. The builder must be off.
func (r *Runner) PrepareBuild(ctx context.Context, v VM) (string, Due, error) {
	due, err := r.Due(ctx, v)
	if err != nil || !due.Due {
		return "", due, err
	}
	now := r.o.Now()
	b := state.Build{ID: newRoundID(now), VM: v.Name, SpecDigest: due.SpecDigest, Started: now}
	last, err := r.o.State.LastBuild(ctx, v.Name)
	if err != nil {
		return "", due, err
	}
	if last != nil && last.Harvested.IsZero() && last.SpecDigest == due.SpecDigest {
		b = *last
	}
	if err := r.o.Builds.Prepare(ctx, v, b.ID); err != nil {
		return "", due, fmt.Errorf("write the build specification: %w", err)
	}
	return b.ID, due, r.o.State.StartBuild(ctx, b)
}
