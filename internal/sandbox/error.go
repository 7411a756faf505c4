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
		return fmt.Sprintf("%s inode %d of %s", what, r.Ino, treeText(r.Tree))
	}
	switch k.op {
	case wire.OpSetup:
		return "confining itself"
	case wire.OpOpen:
		return "opening the disks"
	case wire.OpSnapshots:
		return "listing snapshots"
	case wire.OpBitmaps:
		return "listing dirty bitmaps"
	case wire.OpDirty:
		return "reading a dirty bitmap"
	case wire.OpUnused:
		return "finding what the guest does not use"
	case wire.OpPlaces:
		r, _ := wire.DecodePlaces(k.request)
		return fmt.Sprintf("finding where volume %d lies", r.Number)
	case wire.OpVolumes:
		return "recognising volumes"
	case wire.OpMount:
		r, _ := wire.DecodeMount(k.request)
		return fmt.Sprintf("opening the filesystem in volume %d", r.Volume)
	case wire.OpGuest:
		return "putting the guest's filesystems together"
	case wire.OpSubvolumes:
		return "listing subvolumes"
	case wire.OpReadDir:
		r, _ := wire.DecodeReadDir(k.request)
		return fmt.Sprintf("listing directory inode %d of %s from entry %d on", r.Ino, treeText(r.Tree), r.Skip)
	case wire.OpDescribe:
		r, _ := wire.DecodeDescribe(k.request)
		return fmt.Sprintf("reading %d inodes of %s", len(r.Inos), treeText(r.Tree))
	case wire.OpInode:
		return node("reading")
	case wire.OpReadlink:
		return node("reading the target of")
	case wire.OpXattrs:
		return node("reading the attributes of")
	case wire.OpRead:
		r, _ := wire.DecodeRead(k.request)
		return fmt.Sprintf("reading %d bytes at %d of %s", r.Length, r.Off, objectText(r.Object))
	case wire.OpPieces:
		r, _ := wire.DecodePiecesRequest(k.request)
		return fmt.Sprintf("listing the pieces of %d bytes at %d of %s", r.Length, r.Off, objectText(r.Object))
	case wire.OpReadMany:
		r, _ := wire.DecodeReadMany(k.request)
		return fmt.Sprintf("reading %d small files of %s", len(r.Files), treeText(r.Tree))
	}
	return fmt.Sprintf("serving request %d", k.op)
}

func treeText(number uint32) string {
	if number == wire.GuestTree {
		return "the guest's tree"
	}
	return fmt.Sprintf("volume %d", number)
}

func objectText(o wire.Object) string {
	switch o.Kind {
	case wire.ObjectFile:
		return fmt.Sprintf("inode %d of %s", o.Ino, treeText(o.Tree))
	case wire.ObjectDisk:
		return fmt.Sprintf("disk %d", o.Tree)
	}
	return treeText(o.Tree)
}
