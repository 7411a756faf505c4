package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/internal/flock"
)

// ErrLocked says that another run of drydock is at work on this host.
var ErrLocked = errors.New("another drydock is at work")

// AcquireLock takes the one lock of a host, in dir, without waiting: held, it keeps other
// rounds, recoveries and image changes out. The error wraps [ErrLocked] and says who holds
// it.
func AcquireLock(dir, purpose string) (*flock.Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	l, err := flock.Take(filepath.Join(dir, "lock"), purpose)
	if held, ok := errors.AsType[*flock.HeldError](err); ok {
		return nil, fmt.Errorf("%w: %s", ErrLocked, held.Holder)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return l, nil
}
