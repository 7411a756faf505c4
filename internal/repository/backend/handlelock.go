package backend

import (
	"context"
	"sync"
)

// HandleLocks keep two writers of one process from one file, for places that
// cannot refuse the second by themselves. The zero value is ready.
type HandleLocks struct {
	mu   sync.Mutex // guards held
	held map[Handle]chan struct{}
}

// Lock waits until nobody has h, or until ctx is done, and returns what gives it back.
func (l *HandleLocks) Lock(ctx context.Context, h Handle) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other, ok := l.held[h]
		if !ok {
			break
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[Handle]chan struct{})
	}
	mine := make(chan struct{})
	l.held[h] = mine
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, h)
		close(mine)
	}, nil
}
