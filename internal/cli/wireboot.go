package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
)

// Boot implements [round.Boots]. A backup that did not boot is followed by a try in
// the next round.
func (b *boots) Boot(ctx context.Context, v round.VM, progress func(string)) (*round.BootReport, error) {
	if due, err := b.Due(ctx, v); err != nil || !due.Due {
		return nil, err
	}
	progress("starting it from its newest backup, apart from the world")
	r, err := b.prove(ctx, b.h.config.VMs[v.Name], "latest")
	if err != nil {
		return nil, err
	}
	return &round.BootReport{Backup: r.Backup, Healthy: r.Healthy, Read: r.Read, Error: r.Error, Notes: r.Notes}, nil
}

// Due says whether a start from the newest backup is due, and why.
func (b *boots) Due(ctx context.Context, v round.VM) (round.Due, error) {
	when := b.h.config.Verify.Boot
	if when == nil || !bootable(b.h.config.VMs[v.Name]) {
		return round.Due{}, nil
	}
	last, err := b.h.booted(ctx, v.Name)
	switch {
	case err != nil:
		return round.Due{}, err
	case last == nil:
		return round.DueAfter("start from a backup", b.h.app.now(), time.Time{}, 0), nil
	case !last.good():
		return round.Due{Due: true, Reason: "the last one did not boot", Last: last.At}, nil
	}
	return round.DueAfter("start from a backup", b.h.app.now(), last.At, time.Duration(when.Every)), nil
}

// booted is the newest start of a VM from a backup, or nil.
func (h *host) booted(ctx context.Context, vm string) (*booted, error) {
	last, err := h.db.LastProof(ctx, "", vm, modeBoot)
	if last == nil {
		return nil, err
	}
	out := &booted{}
	if err := json.Unmarshal(last.Report, out); err != nil {
		return nil, fmt.Errorf("how %s booted from its backup: %w", vm, err)
	}
	return out, nil
}

// cell is what status says of it.
func (b *booted) cell(now time.Time) string {
	if b.good() {
		return fmt.Sprintf("%s, booted in %s", ago(now, b.At), span(b.Healthy))
	}
	return fmt.Sprintf("%s, DID NOT BOOT", ago(now, b.At))
}

// provenCell is what status says of both kinds of proof.
func provenCell(now time.Time, p *proven, b *booted) string {
	switch {
	case b == nil:
		return p.cell(now)
	case p == nil:
		return b.cell(now)
	}
	return p.cell(now) + "; " + b.cell(now)
}

// bootCell is what the history says of it.
func bootCell(b *round.BootReport) string {
	switch {
	case b == nil:
		return "-"
	case b.Error != "":
		return "NO"
	}
	return "in " + span(b.Healthy)
}
