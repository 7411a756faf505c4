package disk

import (
	"errors"
	"fmt"
	"strings"
)

// The sentinels that an [Error] wraps.
var (
	// ErrCorrupt: the bytes contradict the format.
	ErrCorrupt = errors.New("damaged")
	// ErrUnsupported: the bytes may be right, but use what the reader refuses.
	ErrUnsupported = errors.New("not supported")
	// ErrLimit: reading on would pass one of the reader's named limits.
	ErrLimit = errors.New("beyond a limit")
	// ErrNotExist: there is no such snapshot, partition or inode.
	ErrNotExist = errors.New("does not exist")
)

// Error is the one error type of the disk readers: where in which layer
// reading stopped, why, and what the user can do.
type Error struct {
	Layer     string // "qcow2", "gpt", "ext4"
	Structure string // "L2 table", "extent tree of inode 12"
	Offset    int64  // byte offset of the structure in its layer, or -1
	Err       error  // one of the sentinels, or the error of the layer below
	Detail    string // what is wrong: "cluster_bits is 40, at most 21 is possible"
	Hint      string // the likely way out; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Layer, e.Structure)
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at offset %#x", e.Offset)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }
