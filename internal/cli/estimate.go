package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
)

// estimate tells on standard error how far long work is, and, where the whole is
// known, how long the rest takes at the pace so far.
type estimate struct {
	app *app

	mu            sync.Mutex // guards what follows
	step          string
	started, last time.Time
}

func newEstimate(a *app) *estimate { return &estimate{app: a} }

// minEstimate is how much must have been done before the rest is estimated: the
// first few files say little about the others.
const minEstimate = 0.02

// tell says how far a step is, now and then. Of is 0 where the whole is not known.
func (e *estimate) tell(step string, done, of int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if step != e.step {
		e.step, e.started, e.last = step, now, now
		return
	}
	if now.Sub(e.last) < progressPause {
		return
	}
	e.last = now
	fmt.Fprintf(e.app.stderr, "drydock: %s\n", progressText(step, done, of, now.Sub(e.started)))
}

func progressText(step string, done, of int64, took time.Duration) string {
	text := fmt.Sprintf("%s: %s", step, round.Bytes(done))
	if of <= 0 {
		return text
	}
	part := float64(min(done, of)) / float64(of)
	text = fmt.Sprintf("%s of %s, %.0f %%", text, round.Bytes(of), 100*part)
	if part < minEstimate || done >= of {
		return text
	}
	left := time.Duration(float64(took) * (1 - part) / part)
	return fmt.Sprintf("%s, about %s left", text, left.Round(time.Second))
}
