package round

import (
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// Copies brings the backups to other places. What fails there is a warning: it never
// fails a backup, and the next round catches up.
type Copies interface {
	// Places are what the other places are called.
	Places() []string
	// Copy brings to a place what it lacks, of all VMs, and applies the policies of
	// that place. A report that comes with an error says what was done until then; there
	// is none of a place that cannot be worked on.
	Copy(ctx context.Context, place string) (*CopyReport, error)
	// Prunes reports whether the policies of a place remove anything.
	Prunes(place string) bool
	// Prune gives back the space of what was removed there.
	Prune(ctx context.Context, place string) (*PruneReport, error)
	// Proofs proves that the backups at a place can be read back.
	Proofs(place string) (Proofs, error)
}

// CopyReport is what was brought to another place.
type CopyReport struct {
	Place    string        `json:"place"`
	Duration time.Duration `json:"duration"`
	Copied   int           `json:"copied"`             // backups
	Present  int           `json:"present"`            // that were there already
	Unwanted int           `json:"unwanted,omitempty"` // that the policies of the place do not keep
	Blobs    int64         `json:"blobs"`              // that were missing
	Stored   int64         `json:"stored"`             // bytes that they take there
	Removed  []string      `json:"removed,omitempty"`  // IDs that they have there
	Prune    *PruneReport  `json:"prune,omitempty"`
	Verify   *ProofReport  `json:"verify,omitempty"` // nil: it was not due
	Mended   string        `json:"mended,omitempty"` // what the place had lost, and has again
	Error    string        `json:"error,omitempty"`
	gone     bool          // nobody could work on the place
}

// String is the one-line summary.
func (c *CopyReport) String() string {
	text := fmt.Sprintf("%s: %d backups copied, %d there already, stored %s in %s", c.Place, c.Copied, c.Present, Bytes(c.Stored), seconds(c.Duration))
	if c.Unwanted > 0 {
		text += fmt.Sprintf(", %d not wanted there", c.Unwanted)
	}
	if n := len(c.Removed); n > 0 {
		text += fmt.Sprintf(", %d removed", n)
	}
	return text
}

// copies brings the backups to all other places.
func (x *run) copies(ctx context.Context) {
	for _, place := range x.o.Copies.Places() {
		if ctx.Err() != nil {
			return
		}
		start := time.Now()
		rep, err := x.o.Copies.Copy(ctx, place)
		if rep == nil {
			rep = &CopyReport{gone: true}
		}
		rep.Place, rep.Duration = place, time.Since(start)
		x.report.Copies = append(x.report.Copies, rep)
		if err != nil {
			rep.Error = err.Error()
			x.event("", StepCopy, state.Failed, "to %s: %v", place, err)
			continue
		}
		x.event("", StepCopy, state.End, "%s", rep)
	}
}

// proveCopies looks at the backups at all other places. Damage there is a warning: the
// backups themselves are as good as they were.
func (x *run) proveCopies(ctx context.Context) {
	for _, rep := range x.report.Copies {
		if rep.gone || ctx.Err() != nil {
			continue
		}
		p, err := x.o.Copies.Proofs(rep.Place)
		if err != nil {
			rep.fail(err)
			continue
		}
		rep.Verify = x.proof(ctx, p, "of "+rep.Place+": ")
	}
}

// pruneCopies gives back space at the other places, where it is time to: also where not
// all could be copied, since one that is full would stay so.
func (x *run) pruneCopies(ctx context.Context) {
	for _, rep := range x.report.Copies {
		if rep.gone || !x.o.Copies.Prunes(rep.Place) {
			continue
		}
		due, err := x.copyPruneDue(ctx, rep.Place)
		if err == nil && (!due.Due || ctx.Err() != nil) {
			continue
		}
		if err == nil {
			x.event("", StepPrune, "", "of %s: %s", rep.Place, due.Reason)
			if rep.Prune, err = x.o.Copies.Prune(ctx, rep.Place); rep.Prune != nil {
				rep.Prune.Reason = due.Reason
			}
		}
		if err == nil {
			err = x.o.State.ChoreDone(context.WithoutCancel(ctx), copyChore(rep.Place), x.o.Now())
		}
		if err != nil {
			rep.fail(err)
			x.event("", StepPrune, state.Failed, "of %s: %v", rep.Place, err)
			continue
		}
		x.event("", StepPrune, state.End, "of %s: %s", rep.Place, rep.Prune)
	}
}

// copyChore is the name of a place's prune in the state.
func copyChore(place string) string { return chorePrune + " of " + place }

func (r *Runner) copyPruneDue(ctx context.Context, place string) (Due, error) {
	return r.pruneDue(ctx, copyChore(place))
}

// fail adds what went wrong.
func (c *CopyReport) fail(err error) {
	if c.Error != "" {
		c.Error += "; "
	}
	c.Error += err.Error()
}

// problems are what is wrong at the place, one line each.
func (c *CopyReport) problems() []string {
	var out []string
	if c.Error != "" {
		out = append(out, fmt.Sprintf("%s to %s: %s (the next round tries again)", StepCopy, c.Place, c.Error))
	}
	if c.Mended != "" {
		out = append(out, fmt.Sprintf("%s to %s: %s", StepCopy, c.Place, c.Mended))
	}
	if c.Verify != nil {
		out = append(out, c.Verify.problems(fmt.Sprintf("%s of %s", StepVerify, c.Place))...)
	}
	return out
}

// CopyPlan is another place that a round brings the backups to.
type CopyPlan struct {
	Place  string `json:"place"`
	Prune  Due    `json:"prune"`
	Verify Due    `json:"verify"`
}

func (r *Runner) planCopies(ctx context.Context) ([]CopyPlan, error) {
	var out []CopyPlan
	for _, place := range r.o.Copies.Places() {
		p := CopyPlan{Place: place, Prune: Due{Reason: "nothing is removed there"}}
		var err error
		if r.o.Copies.Prunes(place) {
			if p.Prune, err = r.copyPruneDue(ctx, place); err != nil {
				return nil, fmt.Errorf("is a prune of %s due: %w", place, err)
			}
		}
		proofs, err := r.o.Copies.Proofs(place)
		if err == nil {
			p.Verify, err = proofs.Due(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("is a proof of %s due: %w", place, err)
		}
		out = append(out, p)
	}
	return out, nil
}
