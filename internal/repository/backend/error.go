package backend

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/escape"
)

// ErrRefused is of a place that answered, and that would answer the same again:
// a wrong login, no such bucket, a host key that nobody knows, a full disk. It is
// not tried again.
var ErrRefused = errors.New("refused")

// ErrHostile is of an answer that no honest place gives: a file longer than it
// was said to be, a listing without end. It is not tried again either.
var ErrHostile = errors.New("the server's answer makes no sense")

// Error is what a place on the other side of a network said, and the likely fix.
type Error struct {
	Place string // the location, without a password
	Err   error
	Hint  string // may be empty
}

// Error is one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s: %v", e.Place, e.Err)
	}
	return fmt.Sprintf("%s: %v (%s)", e.Place, e.Err, e.Hint)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// MaxMessage is how much of a server's own words stands in an error, in bytes.
const MaxMessage = 300

// Words makes a server's own words fit to stand in an error.
func Words(s string) string { return escape.Line(s[:min(len(s), MaxMessage)]) }
