package repository

import (
	"context"
	"time"
)

// LockInfo is the content of a lock file.
type LockInfo struct {
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	PID       int       `json:"pid"`
	UID       uint32    `json:"uid,omitempty"`
	GID       uint32    `json:"gid,omitempty"`
}

// Lock is a lock that this process holds on a repository. It is refreshed in the
// background until Unlock.
type Lock struct{}

// Lock takes a lock that restic honours, and that honours restic's: any number
// of shared ones, or one exclusive one. Writing and reading want a shared lock,
// removing an exclusive one. A lock that is in the way is a [*LockedError].
//
// A lock file is stale, and removed, when its process on this host is dead, or
// when it was not refreshed for 30 minutes and no living process on this host
// can be the one that took it.
func (r *Repository) Lock(ctx context.Context, exclusive bool) (*Lock, error) {
	return nil, errSkeleton
}

// Context is done, with [ErrLockLost] as its cause, when the lock is lost. Work
// under the lock uses it.
func (l *Lock) Context() context.Context { return nil }

// Unlock gives the lock back. Only the first call does something.
func (l *Lock) Unlock(ctx context.Context) error { return errSkeleton }
