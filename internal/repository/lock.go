package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/repository/backend"
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

	// Process tells the process from a later one of the same number. Locks of
	// restic do not have it, and restic passes over it.
	Process *processIdentity `json:"drydock_process,omitempty"`
}

// lockTimes are the times of locks. Tests have shorter ones.
type lockTimes struct {
	refresh time.Duration // between refreshes
	settle  time.Duration // from making a lock to looking for others
	lost    time.Duration // after the last refresh a lock counts as lost
}

// staleAge is when a lock that was not refreshed is stale, for restic and us.
const staleAge = 30 * time.Minute

// defaultLockTimes are restic's. A lock is given up for lost before anybody may
// take it for stale, so that work under it has stopped by then.
var defaultLockTimes = lockTimes{refresh: 5 * time.Minute, settle: 200 * time.Millisecond, lost: 25 * time.Minute}

const (
	// leftoverAge is when an unfinished file can be nobody's any more.
	leftoverAge = 24 * time.Hour
	// unlockTime bounds the removal of a lock whose owner was cancelled.
	unlockTime = time.Minute
)

// Lock is a lock that this process holds on a repository. It is refreshed in the
// background until Unlock.
type Lock struct {
	r    *Repository
	info LockInfo

	work   context.Context // done when the lock is lost or given back
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the background work has ended
	hangup chan os.Signal

	once  sync.Once  // of Unlock
	mu    sync.Mutex // guards what follows
	last  time.Time  // of the last refresh
	files []ID       // the lock file, and behind it old ones that could not be removed yet
}

// heldLocks are the lock files of this process, whatever Repository they were
// made through. One that names this process, and that is not among them, was left
// by an Unlock that failed, or by a dead process that had the same number.
var heldLocks sync.Map // of ID

// Lock takes a lock that restic honours, and that honours restic's: any number
// of shared ones, or one exclusive one. Writing and reading want a shared lock,
// removing an exclusive one. A lock that is in the way is a [*LockedError]. Values
// of ctx are those of [Lock.Context].
//
// A lock file is stale, and is removed, when it was made on this host and its
// process is dead, or when it was not refreshed for 30 minutes. The lock of a
// process of this host that is alive is never stale, however old it is. A lock
// file that cannot be read, and that is older than 30 minutes, is removed too, and
// [Options.Warn] is told; on a backend that keeps no times it is an error.
//
// SIGHUP does not end this process while it holds a lock: restic sends it to
// whoever holds one.
func (r *Repository) Lock(ctx context.Context, exclusive bool) (*Lock, error) {
	info := whoAmI()
	info.Exclusive = exclusive
	if err := r.checkLocks(ctx, info, ID{}); err != nil {
		return nil, err
	}
	l := &Lock{r: r, info: info, done: make(chan struct{}), hangup: make(chan os.Signal, 1)}
	// Restic unlock sends SIGHUP to the process that a lock names, to see
	// whether it lives, and we would not any more. Nobody reads the channel:
	// what does not fit into it is dropped.
	signal.Notify(l.hangup, unix.SIGHUP)
	if err := l.take(ctx); err != nil {
		signal.Stop(l.hangup)
		return nil, err
	}
	l.work, l.cancel = context.WithCancelCause(ctx)
	go l.keep()
	if exclusive {
		r.sweep(ctx)
	}
	return l, nil
}

// lockPause is the pause between two tries of a lock.
const lockPause = 5 * time.Second

// LockPatiently is Lock, and waits for whoever holds a lock that is in the way for as
// long as patience says.
func (r *Repository) LockPatiently(ctx context.Context, exclusive bool, patience time.Duration) (*Lock, error) {
	for start := time.Now(); ; {
		lock, err := r.Lock(ctx, exclusive)
		if !errors.Is(err, ErrLocked) || time.Since(start)+lockPause > patience {
			return lock, err
		}
		if backend.Sleep(ctx, lockPause) != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// take makes the lock file, and makes sure that it is in nobody's way.
func (l *Lock) take(ctx context.Context) error {
	if err := l.save(ctx); err != nil {
		return err
	}
	// Two that made their locks at the same moment both see the other's now.
	err := backend.Sleep(ctx, l.r.times.settle)
	if err == nil {
		err = l.r.checkLocks(ctx, l.info, l.files[0])
	}
	if err != nil {
		return errors.Join(err, l.remove(ctx, 0))
	}
	return nil
}

// sweep removes what writers that died left behind. That it fails harms nothing,
// and the next exclusive lock tries again.
func (r *Repository) sweep(ctx context.Context) {
	if s, ok := r.be.(backend.Sweeper); ok {
		_ = s.Sweep(ctx, r.opts.Now().Add(-leftoverAge))
	}
}

// Context is done when the lock is given back, when it is lost, or when the
// context that Lock got is done. Work under the lock uses it: when the lock is
// lost [context.Cause] is [ErrLockLost].
func (l *Lock) Context() context.Context { return l.work }

// Unlock gives the lock back, also when ctx is done already. Only the first call
// does something. It returns [ErrLockLost] if the lock was lost before, so that
// what was done under it can be doubted.
func (l *Lock) Unlock(ctx context.Context) (err error) {
	l.once.Do(func() {
		lost := context.Cause(l.work)
		l.cancel(nil)
		<-l.done
		l.mu.Lock()
		defer l.mu.Unlock()
		err = l.remove(ctx, 0)
		signal.Stop(l.hangup)
		if errors.Is(lost, ErrLockLost) {
			err = lost
		}
	})
	return err
}

// keep refreshes the lock until it is given back or lost.
func (l *Lock) keep() {
	defer close(l.done)
	ticker := time.NewTicker(l.r.times.refresh)
	defer ticker.Stop()
	for {
		select {
		case <-l.work.Done():
			return
		case <-ticker.C:
		}
		err := l.refresh(l.work)
		if errors.Is(err, ErrLockLost) || err != nil && l.age() > l.r.times.lost {
			l.cancel(fmt.Errorf("%w: %w", ErrLockLost, err))
			return
		}
		// Any other failure may be over at the next tick.
	}
}

// age returns the time since the last refresh, by the clock that lock files are
// written with: it goes on while the host sleeps.
func (l *Lock) age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.opts.Now().Round(0).Sub(l.last.Round(0))
}

// refresh replaces the lock file by one with the present time.
func (l *Lock) refresh(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, last := l.files[0], l.last
	if err := l.exists(ctx, old); err != nil {
		return err
	}
	if err := l.save(ctx); err != nil {
		return err
	}
	if l.last.Round(0).Sub(last.Round(0)) > l.r.times.lost {
		// The host slept, and others may have taken the lock for stale just
		// now. It is still ours if nobody did.
		err := backend.Sleep(ctx, l.r.times.settle)
		if err == nil {
			err = l.exists(ctx, old)
		}
		if err != nil {
			return err
		}
	}
	return l.remove(ctx, 1)
}

// exists makes sure that nobody has removed the lock file.
func (l *Lock) exists(ctx context.Context, id ID) error {
	_, err := l.r.be.Stat(ctx, backend.Handle{Type: backend.LockFile, Name: id.String()})
	if errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("%w: somebody removed lock %s", ErrLockLost, id.Short())
	}
	return err
}

// save writes a lock file with the present time, which is then the first of
// l.files.
func (l *Lock) save(ctx context.Context) error {
	info := l.info
	info.Time = l.r.opts.Now()
	plain, err := json.Marshal(info)
	if err != nil {
		return &Error{Op: "lock repository", Err: err}
	}
	id, err := l.r.saveFile(ctx, "lock repository", backend.LockFile, plain)
	if err != nil {
		// The file can be there all the same, and would be in everybody's way for
		// as long as this process lives.
		return errors.Join(err, l.r.removeLock(ctx, id))
	}
	heldLocks.Store(id, true)
	l.files = slices.Insert(l.files, 0, id)
	l.last = info.Time
	return nil
}

// remove removes all lock files but the first keep. Those that could not be
// removed stay in l.files, for the next time.
func (l *Lock) remove(ctx context.Context, keep int) error {
	var errs []error
	left := slices.Clone(l.files[:keep])
	for _, id := range l.files[keep:] {
		if err := l.r.removeLock(ctx, id); err != nil {
			errs, left = append(errs, err), append(left, id)
		}
		heldLocks.Delete(id)
	}
	l.files = left
	return errors.Join(errs...)
}

// removeLock removes a lock file, also when ctx is done: nobody else would for
// half an hour. One that is gone is fine.
func (r *Repository) removeLock(ctx context.Context, id ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTime)
	defer cancel()
	h := backend.Handle{Type: backend.LockFile, Name: id.String()}
	err := r.be.Remove(ctx, h)
	if err == nil || errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return &Error{Op: "remove lock", File: h.String(), Err: err}
}

// checkLocks looks for locks, other than mine, that stand against a lock like
// me, and removes stale ones.
func (r *Repository) checkLocks(ctx context.Context, me LockInfo, mine ID) error {
	const op = "check locks"
	ids, err := r.listFiles(ctx, op, backend.LockFile)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id == mine {
			continue
		}
		info, err := r.loadLock(ctx, op, id)
		if errors.Is(err, backend.ErrNotExist) {
			continue // given back meanwhile
		}
		if errors.Is(err, ErrDamaged) || errors.Is(err, ErrLimit) {
			if err := r.removeUnreadable(ctx, id, err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		now := r.opts.Now()
		_, held := heldLocks.Load(id)
		if isStale(info, me.Hostname, held, now) {
			if err := r.removeLock(ctx, id); err != nil {
				return err
			}
			continue
		}
		if me.Exclusive || info.Exclusive {
			return &LockedError{Holder: info, ID: id, Now: now}
		}
	}
	return nil
}

// removeUnreadable removes a lock file that cannot be read, for the given reason,
// if it is so old that nobody can hold it: whoever holds a lock writes a new file
// every few minutes. Otherwise the error is the reason.
func (r *Repository) removeUnreadable(ctx context.Context, id ID, reason error) error {
	h := backend.Handle{Type: backend.LockFile, Name: id.String()}
	info, err := r.be.Stat(ctx, h)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return nil // given back meanwhile
	case err != nil:
		return &Error{Op: "check locks", File: h.String(), Err: err}
	case info.ModTime.IsZero() || r.opts.Now().Sub(info.ModTime) <= staleAge:
		return reason
	}
	if err := r.removeLock(ctx, id); err != nil {
		return err
	}
	r.opts.Warn(fmt.Errorf("removed lock %s, which could not be read and was of %s: %w", id.Short(), info.ModTime.Format(time.RFC3339), reason))
	return nil
}

// loadLock reads a lock file.
func (r *Repository) loadLock(ctx context.Context, op string, id ID) (LockInfo, error) {
	plain, err := r.loadFile(ctx, op, backend.LockFile, id)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && errors.Is(err, ErrDamaged) {
			e.Hint = "it may be anybody's lock; in half an hour it is nobody's any more and is removed where the storage tells its age; restic unlock --remove-all removes it at once, when nobody works on the repository"
		}
		return LockInfo{}, err
	}
	var info LockInfo
	if err := json.Unmarshal(plain, &info); err != nil {
		return LockInfo{}, damaged(op, backend.Handle{Type: backend.LockFile, Name: id.String()}, "%w", err)
	}
	return info, nil
}
