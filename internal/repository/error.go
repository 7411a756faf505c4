package repository

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// The reasons why work on a repository fails, found with [errors.Is].
var (
	// ErrNotExist is of a place that holds no repository.
	ErrNotExist = errors.New("no repository there")
	// ErrExist is of a place that holds one already, or remains of one.
	ErrExist = errors.New("a repository is there already")
	// ErrWrongKey is of a password that opens no key of the repository.
	ErrWrongKey = errors.New("wrong password")
	// ErrFormat is of a repository in a format that this program does not know.
	ErrFormat = errors.New("unknown repository format")
	// ErrReadOnly is of a write to a repository that can only be read.
	ErrReadOnly = errors.New("the repository can only be read")
	// ErrDamaged is of a file whose content is not what was once stored.
	ErrDamaged = errors.New("damaged")
	// ErrBlobNotFound is of a blob that no index names.
	ErrBlobNotFound = errors.New("blob not found")
	// ErrLocked is of a repository that somebody else has locked; see
	// [LockedError].
	ErrLocked = errors.New("the repository is locked")
	// ErrLockLost is of a lock that could not be refreshed in time, or that
	// somebody removed.
	ErrLockLost = errors.New("the lock was lost")
	// ErrLimit is of something larger than this program is willing to handle.
	ErrLimit = errors.New("too large")
)

// Error is an operation that failed on one file of a repository, or on the whole
// of it.
type Error struct {
	Op   string // "load index"
	File string // "index/1f3a…"; empty for the whole
	Err  error
	Hint string // the likely fix; may be empty
}

// Error is one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.File != "" {
		b.WriteString(" " + e.File)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// hintRepair is the fix for a file that came back other than it was stored.
const hintRepair = "drydock verify names what is hit, and with --repair brings back what parity or a copy has; without these see restic repair"

// damaged says that file h is not what was once stored.
func damaged(op string, h backend.Handle, format string, args ...any) error {
	cause := fmt.Errorf(format, args...)
	return &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: %w", ErrDamaged, cause), Hint: hintRepair}
}

// LockedError tells who holds a lock that is in the way. It is an [ErrLocked].
type LockedError struct {
	Holder LockInfo
	ID     ID // of the lock file
	Now    time.Time
}

// Error is one line.
func (e *LockedError) Error() string {
	kind := ""
	if e.Holder.Exclusive {
		kind = " exclusively"
	}
	return fmt.Sprintf("the repository is locked%s by process %d of %q on host %q since %s, %s ago (wait for it; a lock whose process is dead is removed by itself)",
		kind, e.Holder.PID, e.Holder.Username, e.Holder.Hostname,
		e.Holder.Time.Format(time.RFC3339), e.Now.Sub(e.Holder.Time).Round(time.Second))
}

// Unwrap returns [ErrLocked].
func (e *LockedError) Unwrap() error { return ErrLocked }

// IsDamage tells what is wrong with a repository, or is not in it, from what keeps us
// from looking.
func IsDamage(err error) bool {
	for _, e := range []error{ErrDamaged, ErrBlobNotFound, ErrLimit, backend.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
