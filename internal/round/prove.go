package round

import (
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// prove looks at the backups of all VMs, those of this round among them. Whatever
// it finds, they are made and stay as they are.
func (x *run) prove(ctx context.Context) { x.report.Verify = x.proof(ctx, x.o.Proofs, "") }

// proof proves something, and returns nil if that was not due. Of is what its events
// begin with.
func (x *run) proof(ctx context.Context, p Proofs, of string) *ProofReport {
	start := time.Now()
	rep, err := p.Prove(ctx, func(s string) { x.event("", StepVerify, "", "%s%s", of, s) })
	if rep == nil && err == nil {
		return nil
	}
	if rep == nil {
		rep = &ProofReport{Duration: time.Since(start)}
	}
	if err != nil {
		rep.Error = err.Error()
	}
	phase := state.End
	if err != nil || rep.DamageTotal > 0 {
		phase = state.Failed
	}
	x.event("", StepVerify, phase, "%s%s", of, rep)
	return rep
}

// String is the one-line summary of a proof.
func (p *ProofReport) String() string {
	switch {
	case p.DamageTotal > 0:
		return fmt.Sprintf("%d of %d backups are damaged: %s", p.Damaged, p.Backups, p.Damage[0])
	case p.Error != "":
		return p.Error
	}
	return fmt.Sprintf("%s: all good (backups: %d, read: %s)", p.Mode, p.Backups, Bytes(p.BytesRead))
}

// problems returns what is damaged and what was not looked at, one line each, which
// begins with what was proven.
func (p *ProofReport) problems(what string) []string {
	var out []string
	for _, d := range p.Damage {
		out = append(out, fmt.Sprintf("%s: %s", what, d))
	}
	if more := p.DamageTotal - len(p.Damage); more > 0 {
		out = append(out, fmt.Sprintf("%s: %d more are damaged (drydock verify names them)", what, more))
	}
	if p.Mended > 0 {
		out = append(out, fmt.Sprintf("%s: %d files were damaged or gone, and are whole again (what stores them there may be about to fail)", what, p.Mended))
	}
	if p.Indexed > 0 {
		out = append(out, fmt.Sprintf("%s: %d packs were in no index file, and are in one again (whoever wrote them was cut off; if not, an index file was lost)", what, p.Indexed))
	}
	if p.Error != "" {
		out = append(out, fmt.Sprintf("%s: %s", what, p.Error))
	}
	return out
}
