package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/verify"
)

// proofs implements [round.Proofs], for the repository or for a copy of it.
type proofs struct {
	h       *host
	at      config.Repository
	copy    string // what the command line calls the copy; "" is the repository
	mode    verify.Mode
	every   time.Duration
	percent int
	vms     []string // none: all
	repair  bool

	replaced []repository.ID // backups that could not be read, and are there again
}

// proofs are those of the repository, as the configuration wants them.
func (h *host) proofs() *proofs {
	v := h.config.Verify
	return &proofs{h: h, at: h.config.Repository, mode: verify.Mode(v.Mode), every: time.Duration(v.Every), percent: v.Percent}
}

// copyProofs are those of a copy.
func (h *host) copyProofs(c config.Copy) *proofs {
	v := c.Verify
	return &proofs{
		h: h, at: c.Repository, copy: copyName(c), mode: verify.Mode(v.Mode), every: time.Duration(v.Every), percent: v.Percent,
		repair: true, // nothing but the repository says what a copy should be
	}
}

// place is what the state calls what is looked at.
func (p *proofs) place() string {
	if p.copy == "" {
		return ""
	}
	return p.at.Path
}

// maxRoundDamage is how many damaged things the report of a round names.
const maxRoundDamage = 20

func (p *proofs) Prove(ctx context.Context, progress func(string)) (*round.ProofReport, error) {
	if due, err := p.Due(ctx); err != nil || !due.Due {
		return nil, err
	}
	r, err := p.run(ctx, progress)
	if r == nil {
		return nil, err
	}
	return p.report(r), err
}

// report is what a round says of a proof.
func (p *proofs) report(r *verify.Report) *round.ProofReport {
	lines := damageLines(r)
	out := &round.ProofReport{
		Mode: string(r.Mode), Duration: r.Duration, Backups: len(r.Backups), BytesRead: r.BytesRead,
		Damage: lines[:min(len(lines), maxRoundDamage)], DamageTotal: len(lines),
		Mended:  len(r.Repaired) + len(r.Replaced) + len(r.Reindexed) + len(p.replaced),
		Indexed: len(r.Indexed),
	}
	for _, b := range r.Backups {
		if !b.Good() {
			out.Damaged++
		}
	}
	return out
}

// Due says whether a proof is due, of which mode, and why.
func (p *proofs) Due(ctx context.Context) (round.Due, error) {
	if p.mode == config.VerifyOff {
		return round.Due{Reason: "verify.mode is off"}, nil
	}
	last, err := p.last(ctx)
	if err != nil {
		return round.Due{}, err
	}
	d := round.DueAfter("proof", p.h.app.now(), last, p.every)
	d.Reason = fmt.Sprintf("%s: %s", p.mode, d.Reason)
	return d, nil
}

// last is when all backups were last looked at, in one of these modes, or in any.
func (p *proofs) last(ctx context.Context, modes ...string) (time.Time, error) {
	last, err := p.h.db.LastProof(ctx, p.place(), "", modes...)
	if last == nil {
		return time.Time{}, err
	}
	return last.At, err
}

// run verifies, and remembers what it found.
func (p *proofs) run(ctx context.Context, progress func(string)) (*verify.Report, error) {
	if err := p.h.backups.rest(); err != nil {
		return nil, err
	}
	// Opened anew, and without its index: what damages that is to be named.
	be, err := p.h.backend(p.at)
	if err != nil {
		return nil, err
	}
	repo, err := p.h.openUnindexed(ctx, p.at, be)
	if err != nil {
		return nil, err
	}
	if p.repair {
		if p.replaced, err = p.rescueBackups(ctx, repo); err != nil {
			return nil, err
		}
	}
	since, err := p.last(ctx, config.VerifySample, config.VerifyFull)
	if err != nil {
		return nil, err
	}
	now := p.h.app.now()
	tell := paced(func(v verify.Progress) {
		progress(fmt.Sprintf("%d folders, %d of %d packs, %s read", v.Folders, v.Packs, v.All, round.Bytes(v.Bytes)))
	})
	r, err := verify.Run(ctx, repo, verify.Options{
		Mode: p.mode, Percent: p.percent, Now: now, Since: since,
		Wanted: wanted(p.vms), Repair: p.repair, Source: p.sources().load, Patience: lockPatience, Hint: p.repairCommand(), Progress: tell,
	})
	if err != nil {
		return r, err
	}
	return r, p.remember(ctx, r, now)
}

// sources are the other places, which may have what this one has lost.
func (p *proofs) sources() *sourcesOfBlobs {
	places := []config.Repository{}
	if p.copy != "" {
		places = append(places, p.h.config.Repository)
	}
	for _, c := range p.h.config.Copies {
		if c.Path != p.at.Path {
			places = append(places, c.Repository)
		}
	}
	return &sourcesOfBlobs{h: p.h, places: places}
}

// repairCommand is what repairs damage that can be repaired.
func (p *proofs) repairCommand() string {
	if p.copy == "" {
		return "drydock verify --repair"
	}
	return "drydock verify --copy " + p.copy + " --repair"
}

// proof is what the state keeps of a verification, of one VM or of all.
type proof struct {
	Backups int `json:"backups"`
	Damaged int `json:"damaged"` // backups of which something is lost
	// Repository counts the repository's own files that are damaged, whosever
	// they are.
	Repository int   `json:"repository"`
	Packs      int   `json:"packs"`
	PacksRead  int   `json:"packs_read"`
	BytesRead  int64 `json:"bytes_read"`
}

func (p *proofs) remember(ctx context.Context, r *verify.Report, at time.Time) error {
	all := map[string]*proof{}
	whole := &proof{Repository: r.DamageTotal, Packs: r.Packs, PacksRead: r.PacksRead, BytesRead: r.BytesRead}
	if len(p.vms) == 0 {
		all[""] = whole
	}
	for _, b := range r.Backups {
		if all[b.VM] == nil {
			one := *whole
			one.Backups, one.Damaged = 0, 0
			all[b.VM] = &one
		}
		for _, sum := range []*proof{whole, all[b.VM]} {
			sum.Backups++
			if !b.Good() {
				sum.Damaged++
			}
		}
	}
	var rows []state.Proof
	for vm, sum := range all {
		raw, err := json.Marshal(sum)
		if err != nil {
			return err
		}
		rows = append(rows, state.Proof{Place: p.place(), VM: vm, Mode: string(r.Mode), At: at, Report: raw})
	}
	return p.h.db.AddProofs(ctx, rows)
}

// proven is what status says of the newest verification of a VM's backups.
type proven struct {
	Mode string    `json:"mode"`
	At   time.Time `json:"at"`
	proof
}

// proven is of a place as the state calls it.
func (h *host) proven(ctx context.Context, place, vm string) (*proven, error) {
	last, err := h.db.LastProof(ctx, place, vm, config.VerifyQuick, config.VerifySample, config.VerifyFull)
	if last == nil {
		return nil, err
	}
	out := &proven{Mode: last.Mode, At: last.At}
	if err := json.Unmarshal(last.Report, &out.proof); err != nil {
		return nil, fmt.Errorf("what was verified of %s: %w", vm, err)
	}
	return out, nil
}

func (p *proven) cell(now time.Time) string {
	switch {
	case p == nil:
		return "never"
	case p.Damaged > 0:
		return fmt.Sprintf("%d of %d DAMAGED, %s", p.Damaged, p.Backups, ago(now, p.At))
	case p.Repository > 0:
		return fmt.Sprintf("%s, but the repository is DAMAGED", ago(now, p.At))
	}
	return fmt.Sprintf("%s (%s)", ago(now, p.At), p.Mode)
}
