package round

import (
	"context"
	"fmt"

	"github.com/drydock-vm/drydock/internal/vm"
)

// Plan is what a round would do, and why.
type Plan struct {
	VMs   []*VMPlan `json:"vms"` // in the order in which they go down
	Prune Due       `json:"prune"`
	// Verify is the look at the backups.
	Verify Due `json:"verify"`
	// Copies are the other places that the backups are brought to.
	Copies []CopyPlan `json:"copies,omitempty"`
}

// VMPlan is the plan for one VM.
type VMPlan struct {
	VM      string     `json:"vm"`
	Found   vm.State   `json:"found"`
	Builder bool       `json:"builder,omitempty"`
	Due     *Due       `json:"due,omitempty"`
	Boot    Due        `json:"boot"`           // the start from the newest backup
	Skip    string     `json:"skip,omitempty"` // why the VM is left alone
	Disks   []DiskPlan `json:"disks"`
	// BackupBeforeStart means that a disk cannot be snapshotted, so that the
	// VM stays down while its data is read.
	BackupBeforeStart bool     `json:"backup_before_start,omitempty"`
	Steps             []string `json:"steps"` // for people

	vm VM
}

// DiskPlan is the plan for one disk.
type DiskPlan struct {
	Disk     string `json:"disk"`
	Backup   bool   `json:"backup"`
	Snapshot string `json:"snapshot,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Update   string `json:"update,omitempty"`
}

// update is a root disk and the version that it shall get.
type update struct {
	disk      Disk
	version   Version
	installed string
}

// Plan looks at the VMs and changes nothing. Builder VMs come first, the
// others keep the order in which they are given.
func (r *Runner) Plan(ctx context.Context, vms []VM) (*Plan, error) {
	if len(vms) == 0 {
		return nil, ErrNothingToDo
	}
	p := &Plan{}
	for _, v := range vms {
		vp, err := r.planVM(ctx, v)
		if err != nil {
			return nil, err
		}
		if vp.Builder {
			p.VMs = append([]*VMPlan{vp}, p.VMs...)
		} else {
			p.VMs = append(p.VMs, vp)
		}
	}
	var err error
	if p.Prune, err = r.PruneDue(ctx); err != nil {
		return nil, fmt.Errorf("is a prune due: %w", err)
	}
	if p.Copies, err = r.planCopies(ctx); err != nil {
		return nil, err
	}
	if p.Verify, err = r.o.Proofs.Due(ctx); err != nil {
		return nil, fmt.Errorf("is a proof due: %w", err)
	}
	return p, nil
}

func (r *Runner) planVM(ctx context.Context, v VM) (*VMPlan, error) {
	p := &VMPlan{VM: v.Name, Builder: v.Builder != nil, vm: v}
	found, err := v.Machine.State(ctx)
	if err != nil {
		p.Skip = fmt.Sprintf("its state cannot be told: %v", err)
		p.Steps = []string{"skip: " + p.Skip}
		return p, nil
	}
	p.Found = found
	if p.Skip = r.skipReason(ctx, v, found); p.Skip != "" {
		p.Steps = []string{"skip: " + p.Skip}
		return p, nil
	}
	for _, d := range v.Disks {
		p.Disks = append(p.Disks, r.planDisk(ctx, p, d))
	}
	if p.Builder {
		due, err := r.Due(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("%s: is a build due: %w", v.Name, err)
		}
		p.Due = &due
	}
	if v.backsUp() {
		if p.Boot, err = r.o.Boots.Due(ctx, v); err != nil {
			return nil, fmt.Errorf("%s: is a start from the backup due: %w", v.Name, err)
		}
	}
	p.Steps = p.steps()
	return p, nil
}

// skipReason says why a VM is left alone before anything has been done to it.
func (r *Runner) skipReason(ctx context.Context, v VM, found vm.State) string {
	if v.Hold != "" {
		return v.Hold
	}
	switch found {
	case vm.Paused:
		return "it is paused, so it cannot shut down: resume it, or power it off"
	case vm.Starting, vm.Stopping:
		return fmt.Sprintf("it is %s, so somebody else is at it: run the round again later", found)
	}
	for _, d := range v.Disks {
		err := checkDisk(d)
		if m, ok := v.Machine.(vm.Attacher); ok && err == nil && (d.Backup || d.Image != "") {
			err = m.Attached(ctx, d.Path)
		}
		if err != nil {
			return err.Error()
		}
	}
	return ""
}

func (r *Runner) planDisk(ctx context.Context, p *VMPlan, d Disk) DiskPlan {
	dp := DiskPlan{Disk: d.Name, Backup: d.Backup}
	if d.Backup {
		dp.Snapshot, dp.Reason = r.o.Snapshots.Plan(ctx, p.vm, d)
		if dp.Snapshot == KindNone {
			p.BackupBeforeStart = p.Found.UsesDisks()
		}
	}
	if d.Image == "" {
		return dp
	}
	_, dp.Update = r.planUpdate(ctx, p.vm, d, p.Found)
	return dp
}

// planUpdate decides whether a disk gets another version, and says why.
func (r *Runner) planUpdate(ctx context.Context, v VM, d Disk, found vm.State) (*update, string) {
	target, installed, ok, err := r.o.Images.Target(ctx, v, d)
	switch {
	case err != nil:
		return nil, fmt.Sprintf("no: %v", err)
	case !ok:
		return nil, fmt.Sprintf("no: the image store has no good version of %s", d.Image)
	case target.ID == installed:
		return nil, fmt.Sprintf("no: %s is the newest", target)
	case !found.UsesDisks():
		return nil, fmt.Sprintf("no: the VM is off, so nothing would prove that %s works", target)
	}
	from := installed
	if from == "" {
		from = "a disk that drydock did not install"
	}
	return &update{disk: d, version: target, installed: installed}, fmt.Sprintf("from %s to %s", from, target.ID)
}

// steps describes the plan for people.
func (p *VMPlan) steps() []string {
	var s []string
	running := p.Found.UsesDisks()
	if running {
		how := fmt.Sprintf("shut down, at most %s, then skip", p.vm.ShutdownTimeout)
		if p.vm.ForceShutdown {
			how = fmt.Sprintf("shut down, at most %s, then take the power away", p.vm.ShutdownTimeout)
		}
		s = append(s, "stop: "+how)
	} else {
		s = append(s, "stop: nothing, it is off and stays off")
	}
	if p.Builder {
		s = append(s, "harvest: import what the builder has finished")
	}
	for _, d := range p.Disks {
		if d.Backup {
			s = append(s, fmt.Sprintf("snapshot: %s: %s (%s)", d.Disk, d.Snapshot, d.Reason))
		}
	}
	for _, d := range p.Disks {
		if d.Update != "" {
			s = append(s, fmt.Sprintf("update: %s: %s", d.Disk, d.Update))
		}
	}
	if p.BackupBeforeStart {
		s = append(s, "backup: before the start, since a disk cannot be snapshotted; the VM is down meanwhile")
	}
	switch {
	case p.Builder && p.Due.Due:
		s = append(s, "start: last of all, to build: "+p.Due.Reason)
	case p.Builder:
		s = append(s, "start: no: "+p.Due.Reason)
	case running:
		s = append(s, "start: at once, then its health probes")
	}
	if !p.BackupBeforeStart && p.vm.backsUp() {
		s = append(s, "backup: from the snapshots, when all VMs run again")
	}
	if p.vm.backsUp() {
		for _, name := range p.vm.Sinks {
			s = append(s, "sink: "+name+" gets the disks after the backup")
		}
	}
	if p.Boot.Due {
		s = append(s, "boot: from its newest backup, apart from the world: "+p.Boot.Reason)
	}
	if p.vm.backsUp() && p.vm.Retain != "" {
		s = append(s, "retain: "+p.vm.Retain+" (drydock backups plan says what goes)")
	}
	return s
}
