package round

import (
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// prove looks at the backups of all VMs, those of this round among them. Whatever
// it finds, they are made and stay as they are.
func (x *run) prove(ctx context.Context) {
	start := time.Now()
	rep, err := x.o.Proofs.Prove(ctx, func(s string) { x.event("", StepVerify, "", "%s", s) })
	if rep == nil && err == nil {
		return
	}
	if rep == nil {
		rep = &ProofReport{Duration: time.Since(start)}
	}
	if err != nil {
		rep.Error = err.Error()
	}
	x.report.Verify = rep
	phase := state.End
	if err != nil || rep.DamageTotal > 0 {
		phase = state.Failed
	}
	x.event("", StepVerify, phase, "%s", rep)
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

// problems returns what is damaged and what was not looked at, one line each.
func (p *ProofReport) problems() []string {
	var out []string
	for _, d := range p.Damage {
		out = append(out, fmt.Sprintf("%s: %s", StepVerify, d))
	}
	if more := p.DamageTotal - len(p.Damage); more > 0 {
		out = append(out, fmt.Sprintf("%s: %d more are damaged (drydock verify names them)", StepVerify, more))
	}
	if p.Error != "" {
		out = append(out, fmt.Sprintf("%s: %s", StepVerify, p.Error))
	}
	return out
}
