// Package retry makes a backend on the other side of a network endure: the number
// of operations at once is limited, each has a time, and what failed for a reason
// that may pass is tried again, after pauses that grow and that no two clients
// share.
//
// It is the only place where that is done: backends fail at once, and wrap in
// [backend.ErrRefused] what would fail again.
//
// An operation whose outcome nobody knows, because the connection broke before
// the answer came, is looked after: a Save whose file is there in its whole length
// has succeeded, a part of a file is removed, and a Remove whose file is gone has
// succeeded.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	defaultConnections = 5
	defaultTimeout     = 2 * time.Minute
	defaultPatience    = 15 * time.Minute
	// firstPatience is the patience with a place that has never answered: its
	// name is more likely wrong than its network down.
	firstPatience = 20 * time.Second
	// serverPatience is the patience with a server that answers, and says that it has
	// failed. Often its disk is full, and a VM may be waiting for its backup.
	serverPatience = 2 * time.Minute
	firstPause     = 500 * time.Millisecond
	longestPause   = time.Minute
	// slowest is what a connection carries at least, in bytes per second: what a
	// file takes longer at that rate is added to the time of an operation.
	slowest = 16 << 10
	// listTime is the time of a listing: a million packs are a thousand pages.
	listTime = 30 * time.Minute
	// settleTime bounds the look at what a failed Save has left.
	settleTime = 15 * time.Second
)

// Options are the choices. The zero value is good.
type Options struct {
	// Connections is how many operations run at once; 0 means 5, as in restic.
	Connections int
	// Timeout is the time of an operation without its data; 0 means two minutes.
	Timeout time.Duration
	// Patience is for how long an operation is tried again; 0 means 15 minutes.
	// Until the place has answered once it is 20 seconds at most, and while it
	// answers [backend.ErrServer] two minutes.
	Patience time.Duration
	// Report is told of each failure that is followed by another try, and may
	// be nil. It is called by several goroutines.
	Report func(op string, err error, pause time.Duration)
	// Sleep waits; nil means for real.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Backend is a backend that endures.
type Backend struct {
	be       backend.Backend
	opts     Options
	slots    chan struct{} // one is taken by each operation that runs
	answered atomic.Bool   // the place has answered once
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Replacer = (*Backend)(nil)
	_ backend.Sweeper  = (*Backend)(nil)
)

// New returns be, made to endure.
func New(be backend.Backend, opts Options) *Backend {
	if opts.Connections <= 0 {
		opts.Connections = defaultConnections
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Patience <= 0 {
		opts.Patience = defaultPatience
	}
	if opts.Report == nil {
		opts.Report = func(string, error, time.Duration) {}
	}
	if opts.Sleep == nil {
		opts.Sleep = backend.Sleep
	}
	return &Backend{be: be, opts: opts, slots: make(chan struct{}, opts.Connections)}
}

// ErrTimeout is of an operation that took longer than it may.
var ErrTimeout = errors.New("the server did not answer in time")

// final reports whether err would come again, or is an answer and no failure.
func final(err error) bool {
	for _, known := range []error{backend.ErrNotExist, backend.ErrExist, backend.ErrRefused, backend.ErrHostile} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// within bounds the time of an operation on size bytes.
func (b *Backend) within(size int) time.Duration {
	return b.opts.Timeout + time.Duration(size)*time.Second/slowest
}

// once runs one try in a slot, within a time.
func (b *Backend) once(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.slots }()
	timed, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	defer cancel()
	err := try(timed)
	if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(timed), ErrTimeout) {
		return err
	}
	late := fmt.Errorf("%w: it had %s", ErrTimeout, limit)
	var placed *backend.Error
	if errors.As(err, &placed) { // it says no more than that the time was over
		return &backend.Error{Place: placed.Place, Err: late, Hint: backend.HintLate}
	}
	return fmt.Errorf("%w: %w", late, err)
}

// do tries until it works, until the failure is final, or until the patience is
// at its end.
func (b *Backend) do(ctx context.Context, op string, limit time.Duration, try func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var waited, other time.Duration // other is when it last failed in another way than by saying so
	begin := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := b.once(ctx, limit, try)
		if err == nil || final(err) {
			// A refusal is an answer too, but not one that promises anything.
			if !errors.Is(err, backend.ErrRefused) {
				b.answered.Store(true)
			}
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		patience := b.opts.Patience
		if !b.answered.Load() {
			patience = min(patience, firstPatience)
		}
		jittered := pause/2 + rand.N(pause)
		// Injected sleeps pass no time of the clock.
		spent := max(waited, time.Since(begin))
		if errors.Is(err, backend.ErrServer) {
			patience = min(patience, other+serverPatience)
		} else {
			other = spent
		}
		if spent+jittered > patience {
			return fmt.Errorf("%w; given up after %s", err, spent.Round(time.Second))
		}
		b.opts.Report(op, err, jittered)
		if err := b.opts.Sleep(ctx, jittered); err != nil {
			return err
		}
		waited += jittered
	}
}

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if err := h.Validate(); err != nil {
		return err
	}
	tries, doubtful := 0, false // doubtful: what the last try left is not known
	return b.do(ctx, "save "+h.String(), b.within(len(data)), func(try context.Context) error {
		if doubtful {
			if done, err := b.settle(try, h, data); done || err != nil {
				return err
			}
		}
		tries++
		err := b.be.Save(try, h, data)
		if err == nil || errors.Is(err, backend.ErrExist) && tries == 1 {
			return err
		}
		// There may be no next try, and the time of this one may be over.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(settleTime, b.opts.Timeout))
		defer cancel()
		done, serr := b.settle(after, h, data)
		doubtful = serr != nil
		if done {
			return nil
		}
		return err
	})
}

// Replace implements [backend.Replacer], where the backend does. Done twice it does
// the same.
func (b *Backend) Replace(ctx context.Context, h backend.Handle, data []byte) error {
	r, ok := b.be.(backend.Replacer)
	if !ok {
		return fmt.Errorf("replace %s: %w: this kind of storage replaces no file", h, backend.ErrRefused)
	}
	if err := h.Validate(); err != nil {
		return err
	}
	return b.do(ctx, "replace "+h.String(), b.within(len(data)), func(try context.Context) error {
		return r.Replace(try, h, data)
	})
}

// settle looks what a Save has left whose outcome is not known. It reports whether
// the whole file is there, and removes a part of one. Nobody else writes a file of
// that name, the hash of a content with a random number in it, so a length is
// enough. The config file has no such name: it is compared, and never removed.
func (b *Backend) settle(ctx context.Context, h backend.Handle, data []byte) (done bool, err error) {
	info, err := b.be.Stat(ctx, h)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case h.Type == backend.ConfigFile:
		return b.settleConfig(ctx, h, info.Size, data)
	case info.Size == int64(len(data)):
		return true, nil
	}
	if err := b.be.Remove(ctx, h); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return false, fmt.Errorf("remove %s, of which only %d of %d bytes arrived: %w", h, info.Size, len(data), err)
	}
	return false, nil
}

func (b *Backend) settleConfig(ctx context.Context, h backend.Handle, size int64, data []byte) (bool, error) {
	there := make([]byte, len(data))
	if size == int64(len(data)) {
		if n, err := b.be.ReadAt(ctx, h, there, 0); n < len(there) {
			return false, fmt.Errorf("read %s, which may be there already: %w", h, err)
		}
		if bytes.Equal(there, data) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w: %s", backend.ErrExist, h)
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (n int, err error) {
	if err := h.Validate(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", h, off)
	}
	end := false
	err = b.do(ctx, "read "+h.String(), b.within(len(p)), func(try context.Context) error {
		n, err = b.be.ReadAt(try, h, p, off)
		end = errors.Is(err, io.EOF)
		if end || n == len(p) {
			return nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF // a backend that does not say why
		}
		return err
	})
	if err == nil && end {
		err = io.EOF
	}
	return n, err
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (info backend.FileInfo, err error) {
	if err := h.Validate(); err != nil {
		return backend.FileInfo{}, err
	}
	err = b.do(ctx, "look at "+h.String(), b.opts.Timeout, func(try context.Context) error {
		info, err = b.be.Stat(try, h)
		return err
	})
	return info, err
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	if err := h.Validate(); err != nil {
		return err
	}
	doubtful := false
	return b.do(ctx, "remove "+h.String(), b.opts.Timeout, func(try context.Context) error {
		err := b.be.Remove(try, h)
		if doubtful && errors.Is(err, backend.ErrNotExist) {
			return nil // the try before had removed it
		}
		doubtful = true
		return err
	})
}

// Sweep implements [backend.Sweeper], where the backend does.
func (b *Backend) Sweep(ctx context.Context, before time.Time) error {
	s, ok := b.be.(backend.Sweeper)
	if !ok {
		return ctx.Err()
	}
	return b.do(ctx, "sweep", listTime, func(try context.Context) error { return s.Sweep(try, before) })
}

// Renew implements [backend.Renewer], where the backend does.
func (b *Backend) Renew(ctx context.Context, h backend.Handle) error {
	r, ok := b.be.(backend.Renewer)
	if !ok {
		return ctx.Err()
	}
	return b.do(ctx, "renew "+h.String(), b.opts.Timeout, func(try context.Context) error { return r.Renew(try, h) })
}
