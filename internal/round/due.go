package round

import (
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

// Due is whether something is to be done now: a build, a prune, a proof.
type Due struct {
	Due        bool      `json:"due"`
	Reason     string    `json:"reason"`
	SpecDigest string    `json:"spec_digest,omitempty"` // of the builder
	Last       time.Time `json:"last,omitzero"`         // when the newest finished build was started
}

// slack is the part of the interval by which a build may be early: a weekly
// build that was started at 2:40 last week is due at 2:30, and the nightly
// timer's random delay never makes a week eight days.
const slack = 14

// Due decides from the state alone: a build is due when none was ever
// finished, when the specification is another one than that of the last
// finished build, or when that one is as old as the builder's interval. Which
// day of the week it is does not matter, so a missed night is caught up.
func (r *Runner) Due(ctx context.Context, v VM) (Due, error) {
	if v.Builder == nil {
		return Due{}, fmt.Errorf("%s is not a builder (give it a builder: section in the configuration)", v.Name)
	}
	digest, err := r.o.Builds.SpecDigest(ctx, v)
	if err != nil {
		return Due{}, err
	}
	last, err := r.o.State.LastHarvest(ctx, v.Name)
	if err != nil {
		return Due{}, err
	}
	return due(r.o.Now(), v.Builder.Every, digest, last), nil
}

func due(now time.Time, every time.Duration, digest string, last *state.Build) Due {
	d := Due{SpecDigest: digest}
	if last == nil {
		d.Due, d.Reason = true, "nothing has been built yet"
		return d
	}
	d.Last = last.Started
	age := now.Sub(last.Started)
	switch {
	case last.SpecDigest != digest:
		d.Due, d.Reason = true, "the build specification has changed"
	default:
		d.Due, d.Reason = lapsed("build", age, every)
	}
	return d
}

// DueAfter decides for what is done at intervals and was done last at a time that is
// zero where it never was.
func DueAfter(what string, now, last time.Time, every time.Duration) Due {
	if last.IsZero() {
		return Due{Due: true, Reason: fmt.Sprintf("there was no %s yet", what)}
	}
	d := Due{Last: last}
	d.Due, d.Reason = lapsed(what, now.Sub(last), every)
	return d
}

// lapsed decides whether what was done last is so old that it is due again.
func lapsed(what string, age, every time.Duration) (due bool, reason string) {
	switch {
	case age < 0:
		return true, fmt.Sprintf("the last %s is from the future, so the clock was set back", what)
	case age >= every-every/slack:
		return true, fmt.Sprintf("the last %s is %s old", what, roughly(age))
	}
	return false, fmt.Sprintf("the last %s is %s old, the next is due in %s", what, roughly(age), roughly(every-every/slack-age))
}

// roughly prints a duration as people say it.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}
