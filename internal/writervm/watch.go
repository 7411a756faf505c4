package writervm

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	silence = 5 * time.Minute
	// patience is how much longer than it should the machine may take: 768 MiB wait in its
	// memory for a disk, when all was told.
	patience = 30 * time.Minute
	// A machine that does what it can, on a host that is busy, takes a message in
	// slowMessage, and its bytes at slowRate, in bytes a second. Measured on two busy cores
	// without KVM were a hundredth of that, and sixteen times as much.
	slowMessage = 100 * time.Millisecond
	slowRate    = 256 << 10
)

// wait is how long the machine was waited for, and how long that may have been.
type wait struct {
	mu      sync.Mutex // guards what follows
	since   time.Time  // when the wait began; zero if it is not waited for
	spent   time.Duration
	allowed time.Duration
}

func (w *wait) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
}

func (w *wait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spent += time.Since(w.since)
	w.since = time.Time{}
}

// allow gives the machine the time for a message that has it write some bytes.
func (w *wait) allow(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed += slowMessage + time.Duration(bytes/slowRate)*time.Second
}

// state says whether it is waited for now, and how much longer than allowed that was.
func (w *wait) state() (waiting bool, over time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	spent := w.spent
	if waiting = !w.since.IsZero(); waiting {
		spent += time.Since(w.since)
	}
	return waiting, spent - w.allowed
}

// watch ends a machine in which nothing happens, or which only says so, until done is
// closed.
func (r *run) watch(ctx context.Context, done <-chan struct{}) error {
	limit, most := r.opts.Silence, r.opts.Patience
	if limit == 0 {
		limit = silence
	}
	if most == 0 {
		most = patience
	}
	const looks = 10
	ticker := time.NewTicker(min(limit, most) / looks)
	defer ticker.Stop()
	seen, since := uint64(0), time.Now()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		waiting, over := r.wait.state()
		if now := r.alive.Load(); now != seen || !waiting {
			seen, since = now, time.Now()
		} else if time.Since(since) > limit {
			return fmt.Errorf("%w: nothing was written for %v", ErrSilent, limit)
		}
		if over > most {
			return fmt.Errorf("%w: it took %v longer than a slow one", ErrSlow, over.Round(time.Second))
		}
	}
}
