// Package health judges a virtual machine from outside: it asks probes again and
// again until all of them pass at once, or the time is up.
//
// What a guest answers is hostile. Probes read a bounded part of it, follow it
// nowhere else, and show it escaped.
package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/internal/escape"
)

// attemptLimit bounds one try of one probe, so that a service that accepts
// connections and says nothing is asked again.
const attemptLimit = 10 * time.Second

// Probe is one question. Check returns nil when the answer is the right one. It
// must return soon after ctx is done.
type Probe struct {
	Name  string // "tcp 127.0.0.1:8080"
	Check func(ctx context.Context) error
}

// Options are the settings of [Check].
type Options struct {
	// Timeout is how long the probes may take to pass, counted from the call
	// of Check.
	Timeout time.Duration
	// Interval is the pause between two tries; by default one second.
	Interval time.Duration

	// Now and Sleep are the clock; by default the real one. Sleep returns
	// early with the context's error.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
}

// Result is how the probes went.
type Result struct {
	Duration time.Duration // until all passed, or until giving up
	Tries    int
	Probes   []ProbeResult // in the order of the probes
}

// ProbeResult is how one probe went at its last try.
type ProbeResult struct {
	Name string
	// Err is nil when the probe passed. Its text is safe to print.
	Err error
}

// ErrUnhealthy is in the chain of an [UnhealthyError].
var ErrUnhealthy = errors.New("not healthy")

// UnhealthyError says that the probes did not pass in time.
type UnhealthyError struct {
	Timeout time.Duration
	Failed  []ProbeResult // those that did not pass at the last try
}

func (e *UnhealthyError) Error() string {
	var parts []string
	for _, p := range e.Failed {
		parts = append(parts, fmt.Sprintf("%s: %v", p.Name, p.Err))
	}
	return fmt.Sprintf("%v after %s: %s", ErrUnhealthy, e.Timeout, strings.Join(parts, "; "))
}

func (e *UnhealthyError) Unwrap() error { return ErrUnhealthy }

// Check asks all probes until all pass in one try, and returns nil then. After
// o.Timeout the error is an [UnhealthyError]; when ctx is done it is its error.
// There is at least one try, and without probes Check returns at once.
func Check(ctx context.Context, probes []Probe, o Options) (Result, error) {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	start := o.Now()
	result := Result{}
	for {
		left := o.Timeout - o.Now().Sub(start)
		result.Tries++
		result.Probes = try(ctx, probes, min(max(left, o.Interval), attemptLimit))
		result.Duration = o.Now().Sub(start)
		failed := failures(result.Probes)
		if len(failed) == 0 {
			return result, nil
		}
		if err := ctx.Err(); err != nil {
			return result, fmt.Errorf("ask whether the VM is healthy: %w", context.Cause(ctx))
		}
		if result.Duration+o.Interval > o.Timeout {
			return result, &UnhealthyError{Timeout: o.Timeout, Failed: failed}
		}
		if err := o.Sleep(ctx, o.Interval); err != nil {
			return result, fmt.Errorf("ask whether the VM is healthy: %w", err)
		}
	}
}

// try asks all probes at the same time, each for at most limit.
func try(ctx context.Context, probes []Probe, limit time.Duration) []ProbeResult {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	results := make([]ProbeResult, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			results[i] = ProbeResult{Name: p.Name}
			if err := p.Check(ctx); err != nil {
				results[i].Err = &answerError{err}
			}
		})
	}
	wg.Wait()
	return results
}

// answerError is an error of a probe: guests have a say in its text.
type answerError struct{ err error }

func (e *answerError) Error() string { return escape.Line(e.err.Error()) }
func (e *answerError) Unwrap() error { return e.err }

func failures(results []ProbeResult) []ProbeResult {
	var failed []ProbeResult
	for _, r := range results {
		if r.Err != nil {
			failed = append(failed, r)
		}
	}
	return failed
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
