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
			if rep.Error != "" {
				rep.Error += "; "
			}
			rep.Error += err.Error()
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

// problem is what is wrong at the place, or "".
func (c *CopyReport) problem() string {
	if c.Error == "" {
		return ""
	}
	return fmt.Sprintf("%s to %s: %s (the next round tries again)", StepCopy, c.Place, c.Error)
}

// CopyPlan is another place that a round brings the backups to.
type CopyPlan struct {
	Place string `json:"place"`
	Prune Due    `json:"prune"`
}

func (r *Runner) planCopies(ctx context.Context) ([]CopyPlan, error) {
	var out []CopyPlan
	for _, place := range r.o.Copies.Places() {
		p := CopyPlan{Place: place, Prune: Due{Reason: "nothing is removed there"}}
		if r.o.Copies.Prunes(place) {
			var err error
			if p.Prune, err = r.copyPruneDue(ctx, place); err != nil {
				return nil, err
			}
		}
		out = append(out, p)
	}
	return out, nil
}
