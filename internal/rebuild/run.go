package rebuild

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/internal/definition"
)

// maxWarnings is how many warnings a report keeps. All are counted.
const maxWarnings = 100

// Report is what a restore did.
type Report struct {
	*Plan
	// Warnings are about what is not as it is in the backup. They have no hostile
	// bytes.
	Warnings      []string `json:"warnings,omitempty"`
	WarningsTotal int64    `json:"warnings_total,omitempty"`
}

// ErrPlan is of a plan that has problems.
var ErrPlan = errors.New("it cannot be restored like this")

// run is one run of a plan.
type run struct {
	*Plan
	report *Report
}

// Run does what the plan says: the disks first, and the configuration last, so that
// nothing knows of a VM that is not whole. The caller holds a lock of the repository.
func (p *Plan) Run(ctx context.Context) (*Report, error) {
	x := &run{Plan: p, report: &Report{Plan: p}}
	if problems := p.Problems(); problems != nil {
		return nil, fmt.Errorf("restore %s: %w: %s", p.VM, ErrPlan, strings.Join(problems, "; "))
	}
	for _, it := range p.Items {
		if it.Action == There || it.Action == LeftOut {
			continue
		}
		if err := x.item(ctx, it); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return x.report, fmt.Errorf("restore %s: %s: %w", p.VM, it.What, err)
		}
	}
	if err := x.commit(); err != nil {
		return x.report, fmt.Errorf("restore %s: %w", p.VM, err)
	}
	return x.report, nil
}

func (x *run) item(ctx context.Context, it *Item) error {
	switch it.From {
	case FromFile:
		return x.hostFile(it)
	case FromConfig:
		return x.config(it)
	}
	return x.disk(ctx, it)
}

// commit records which versions the disks are made from, so that the next round knows.
// What is on record is of the disk that was there before: a disk that was backed up as
// it was is of the version that the backup tells, or of none that the store knows.
func (x *run) commit() error {
	for _, it := range x.Items {
		if it.disk == nil || it.Action == LeftOut || it.From != FromVersion && it.disk.Image == "" {
			continue
		}
		r := definition.Release{}
		if it.disk.Release != nil {
			r = *it.disk.Release
		}
		if err := x.opts.Store.Restored(x.VM, it.disk.Name, it.Path, r.Image, r.SHA256); err != nil {
			return err
		}
	}
	return nil
}

func (x *run) tell(what string, done, of int64) {
	if x.opts.Progress != nil {
		x.opts.Progress(what, done, of)
	}
}

func (x *run) warn(format string, args ...any) {
	if x.report.WarningsTotal++; len(x.report.Warnings) < maxWarnings {
		x.report.Warnings = append(x.report.Warnings, fmt.Sprintf(format, args...))
	}
}
