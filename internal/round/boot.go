package round

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/internal/state"
)

// boot starts a VM from its newest backup, if that is due. The VM itself has long been
// as it was found.
func (x *run) boot(ctx context.Context, d *docked) {
	name := d.plan.VM
	if ctx.Err() != nil || !d.plan.vm.backsUp() {
		return
	}
	rep, err := x.o.Boots.Boot(ctx, d.plan.vm, func(s string) { x.event(name, StepBoot, "", "%s", s) })
	if err != nil {
		err = stepError(name, StepBoot, err, "")
		d.report.warn(err)
		x.event(name, StepBoot, state.Failed, "%v", err)
		return
	}
	if rep == nil {
		return
	}
	d.report.Boot = rep
	phase := state.End
	if rep.Error != "" {
		phase = state.Failed
		d.report.fail(stepError(name, StepBoot, errors.New(rep.String()), ""))
	}
	x.event(name, StepBoot, phase, "%s", rep)
}

// String is the one-line summary of a start from a backup.
func (b *BootReport) String() string {
	id := b.Backup[:min(8, len(b.Backup))]
	if b.Error != "" {
		return fmt.Sprintf("backup %s does not boot: %s", id, b.Error)
	}
	text := fmt.Sprintf("backup %s boots: healthy in %s, of which %s were read", id, seconds(b.Healthy), Bytes(b.Read))
	if len(b.Notes) > 0 {
		text += "; " + strings.Join(b.Notes, "; ")
	}
	return text
}
