package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// The sentinels that an [Error] wraps. An Error may wrap a context's error
// instead.
var (
	// ErrDied: the worker ended, or was killed by somebody else.
	ErrDied = errors.New("disk reader died")
	// ErrTimeout: a request took longer than [Options.RequestTimeout].
	ErrTimeout = errors.New("disk reader hangs")
	// ErrLied: the worker gave an answer that honest code never gives. The
	// disk may have taken it over.
	ErrLied = errors.New("disk reader is not to be trusted")
	// ErrClosed: the disk was closed.
	ErrClosed = errors.New("disk is closed")
)

// Error says that the worker of a disk is gone, and why. From then on every
// call on the disk returns it. It is about the worker: what is wrong with the
// disk itself is a [*disk.Error].
type Error struct {
	Disk    string // as [DiskSpec.Name] says
	Reason  string // "killed by signal 9 (killed)"
	Request string // what it was doing: "reading 512 bytes at 0 of volume 1"; may be empty
	Stderr  string // the beginning of what it wrote to standard error
	Err     error  // one of the sentinels, or a context's error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "disk reader of %s stopped: %s", e.Disk, e.Reason)
	if e.Request != "" {
		fmt.Fprintf(&b, ", while %s", e.Request)
	}
	if line, _, _ := strings.Cut(e.Stderr, "\n"); line != "" {
		fmt.Fprintf(&b, ": %s", line)
	}
	if hint := e.Hint(); hint != "" {
		fmt.Fprintf(&b, " (%s)", hint)
	}
	return b.String()
}

// Hint is what the user can do, or "".
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, ErrDied), errors.Is(e.Err, ErrLied):
		return "other disks are not affected; the guest may have damaged this one on purpose: look into it with an image backup, away from this host"
	case errors.Is(e.Err, ErrTimeout):
		return "other disks are not affected; look at the storage below the disk, or raise the time limit of disk readers"
	}
	return ""
}

func (e *Error) Unwrap() error { return e.Err }

// String says what a call is doing.
func (k *call) String() string {
	node := func(what string) string {
		r, err := wire.DecodeNode(k.request)
		if err != nil {
			return what
		}
		return fmt.Sprintf("%s inode %d of volume %d", what, r.Ino, r.Volume)
	}
	switch k.op {
	case wire.OpSetup:
		return "confining itself"
	case wire.OpOpen:
		return "opening the disk"
	case wire.OpSnapshots:
		return "listing snapshots"
	case wire.OpVolumes:
		return "recognising volumes"
	case wire.OpMount:
		r, _ := wire.DecodeMount(k.request)
		return fmt.Sprintf("opening the filesystem in volume %d", r.Volume)
	case wire.OpReadDir:
		r, _ := wire.DecodeReadDir(k.request)
		return fmt.Sprintf("listing directory inode %d of volume %d from entry %d on", r.Ino, r.Volume, r.Skip)
	case wire.OpInode:
		return node("reading")
	case wire.OpReadlink:
		return node("reading the target of")
	case wire.OpXattrs:
		return node("reading the attributes of")
	case wire.OpRead:
		r, _ := wire.DecodeRead(k.request)
		return fmt.Sprintf("reading %d bytes at %d of %s", r.Length, r.Off, objectText(r.Object))
	case wire.OpExtents:
		r, _ := wire.DecodeExtentsRequest(k.request)
		return fmt.Sprintf("listing the extents of %d bytes at %d of %s", r.Length, r.Off, objectText(r.Object))
	case wire.OpReadMany:
		r, _ := wire.DecodeReadMany(k.request)
		return fmt.Sprintf("reading %d small files of volume %d", len(r.Files), r.Volume)
	}
	return fmt.Sprintf("serving request %d", k.op)
}

func objectText(o wire.Object) string {
	switch {
	case o.Kind == wire.ObjectFile:
		return fmt.Sprintf("inode %d of volume %d", o.Ino, o.Volume)
	case o.Volume == 0:
		return "the whole disk"
	}
	return fmt.Sprintf("volume %d", o.Volume)
}
