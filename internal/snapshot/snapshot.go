// Package snapshot freezes disks: it takes points in time of disk images, from
// which backups are read while the VM runs on, and drops them again.
//
// There are three kinds. A reflink copy of the whole file, where the filesystem
// can share blocks (XFS, btrfs, bcachefs, ZFS with block cloning); an internal
// snapshot in a qcow2 image, on any filesystem; and none, for everything else.
// [Snapshotter.Plan] says which a disk gets and why.
//
// All operations are idempotent: taking what was taken and dropping what is
// gone are no errors, so that a round that was cut short is simply repeated.
// Only what carries drydock's own prefix is ever deleted.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// prefix is in front of every name of a snapshot on disk: the copy is
// "PATH.drydock-NAME", the internal snapshot "drydock-NAME".
const prefix = "drydock-"

// Kind is a kind of snapshot. The kind of a configured disk may be Auto, that
// of a plan and of a snapshot is one of the others.
type Kind string

// The kinds.
const (
	// Auto is the first of Reflink, QCOW2 and None that works.
	Auto Kind = "auto"
	// Reflink is a copy that shares its blocks with the disk.
	Reflink Kind = "reflink"
	// QCOW2 is an internal snapshot. It is taken while the VM is off, and
	// dropped while it is off or through its QMP.
	QCOW2 Kind = "qcow2"
	// None is no snapshot: the disk itself is read, and must not change
	// meanwhile.
	None Kind = "none"
)

// The formats of a disk, always declared.
const (
	FormatRaw   = "raw"
	FormatQCOW2 = "qcow2"
)

// Disk is a disk to freeze.
type Disk struct {
	Path   string // absolute; a symlink is followed
	Format string
	Kind   Kind // as configured
}

// Plan is the kind that a disk gets, and why that one.
type Plan struct {
	Kind   Kind   `json:"kind"`
	Reason string `json:"reason"`
}

// Snapshot is a point in time of a disk. It is plain data that outlives the
// process, in a journal.
type Snapshot struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"`
	Path   string `json:"path"` // of the disk, symlinks resolved
	Format string `json:"format"`
	Reason string `json:"reason,omitempty"` // why this kind
}

// Source is what to read for the content of a snapshot.
type Source struct {
	Path   string
	Format string
	// QCOW2Snapshot names the internal snapshot in Path; it is empty for the
	// active content.
	QCOW2Snapshot string
}

// Source returns what to read. For kind None that is the disk itself.
func (s Snapshot) Source() Source {
	src := Source{Path: s.Path, Format: s.Format}
	switch s.Kind {
	case Reflink:
		src.Path = copyPath(s.Path, s.Name)
	case QCOW2:
		src.QCOW2Snapshot = prefix + s.Name
	}
	return src
}

// LiveDeleter deletes an internal snapshot from a disk of a VM that runs, as
// QMP's blockdev-snapshot-delete-internal-sync does. path is the disk's image
// file, symlinks resolved.
type LiveDeleter interface {
	DeleteSnapshot(ctx context.Context, path, name string) error
}

// The errors of this package.
var (
	// ErrName: the name cannot be that of a snapshot.
	ErrName = errors.New(`the name of a snapshot is 1 to 64 letters, digits, "-" and "_"`)
	// ErrNotPossible: a kind was asked for that this disk cannot have.
	ErrNotPossible = errors.New("this kind of snapshot is not possible")
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Options are the settings of a [Snapshotter].
type Options struct {
	QEMUImg *qemuimg.Tool
}

// Snapshotter takes and drops snapshots. It is safe for concurrent use on
// different disks.
type Snapshotter struct{ qemu *qemuimg.Tool }

// New returns a Snapshotter.
func New(o Options) *Snapshotter {
	if o.QEMUImg == nil {
		o.QEMUImg = qemuimg.New(qemuimg.Options{})
	}
	return &Snapshotter{qemu: o.QEMUImg}
}

// Plan says which kind of snapshot the disk would get now. It changes nothing,
// and a VM may run on the disk. The error is [ErrNotPossible], with the reason,
// where the configuration insists on a kind that the disk cannot have.
func (s *Snapshotter) Plan(ctx context.Context, d Disk) (Plan, error) {
	path, err := resolve(d.Path)
	if err != nil {
		return Plan{}, err
	}
	var reasons []string
	for _, k := range d.candidates() {
		err := s.possible(ctx, k, path, d.Format)
		if err == nil {
			return Plan{Kind: k, Reason: reason(k, d.Kind, reasons)}, nil
		}
		if ctx.Err() != nil {
			return Plan{}, err
		}
		reasons = append(reasons, err.Error())
	}
	return Plan{}, fmt.Errorf("%s: %s: %w: %s (say snapshot: auto)", d.Path, d.Kind, ErrNotPossible, strings.Join(reasons, "; "))
}

// Take freezes the disk as it is now. Nobody may be writing to it: the error is
// an [imagelock.InUseError] otherwise. With kind Auto it falls through to the
// next kind when one fails, and the snapshot says why. A snapshot of that name
// that is there already is returned as it is.
func (s *Snapshotter) Take(ctx context.Context, d Disk, name string) (Snapshot, error) {
	if !namePattern.MatchString(name) {
		return Snapshot{}, fmt.Errorf("freeze %s as %q: %w", d.Path, name, ErrName)
	}
	path, err := resolve(d.Path)
	if err != nil {
		return Snapshot{}, err
	}
	var reasons []string
	for _, k := range d.candidates() {
		err := s.take(ctx, k, path, d.Format, name)
		if err == nil {
			return Snapshot{Kind: k, Name: name, Path: path, Format: d.Format, Reason: reason(k, d.Kind, reasons)}, nil
		}
		// A disk in use can have no snapshot of any kind, and neither None.
		if ctx.Err() != nil || errors.Is(err, imagelock.ErrInUse) {
			return Snapshot{}, fmt.Errorf("freeze %s: %w", d.Path, err)
		}
		reasons = append(reasons, err.Error())
	}
	return Snapshot{}, fmt.Errorf("freeze %s as %s: %w: %s", d.Path, d.Kind, ErrNotPossible, strings.Join(reasons, "; "))
}

// Release drops a snapshot. One that is gone is dropped. An internal snapshot of
// a disk in use is dropped through live, if that is not nil; otherwise the error
// is an [imagelock.InUseError], and the next round can try again.
func (s *Snapshotter) Release(ctx context.Context, snap Snapshot, live LiveDeleter) error {
	if !namePattern.MatchString(snap.Name) {
		return fmt.Errorf("drop snapshot %q of %s: %w", snap.Name, snap.Path, ErrName)
	}
	var err error
	switch snap.Kind {
	case Reflink:
		err = releaseCopy(snap.Path, snap.Name)
	case QCOW2:
		err = s.releaseInternal(ctx, snap.Path, prefix+snap.Name, live)
	}
	if err != nil {
		return fmt.Errorf("drop snapshot %s of %s: %w", snap.Name, snap.Path, err)
	}
	return nil
}

// Leftovers returns the snapshots of the disk that are there, whoever took them,
// and removes what a copy that was cut short has left.
func (s *Snapshotter) Leftovers(ctx context.Context, d Disk) ([]Snapshot, error) {
	path, err := resolve(d.Path)
	if err != nil {
		return nil, err
	}
	var found []Snapshot
	names, err := copies(path)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		found = append(found, Snapshot{Kind: Reflink, Name: name, Path: path, Format: d.Format})
	}
	if d.Format != FormatQCOW2 {
		return found, nil
	}
	info, err := s.qemu.Info(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("look for snapshots in %s: %w", path, err)
	}
	for _, internal := range info.Snapshots {
		if name, ok := strings.CutPrefix(internal, prefix); ok && namePattern.MatchString(name) {
			found = append(found, Snapshot{Kind: QCOW2, Name: name, Path: path, Format: d.Format})
		}
	}
	return found, nil
}

// candidates are the kinds to try, in this order.
func (d Disk) candidates() []Kind {
	if d.Kind == Auto || d.Kind == "" {
		return []Kind{Reflink, QCOW2, None}
	}
	return []Kind{d.Kind}
}

// reason says why a disk gets kind k, after the others failed for reasons.
func reason(k, configured Kind, reasons []string) string {
	var why string
	switch k {
	case Reflink:
		why = "the filesystem shares the blocks of a copy"
	case QCOW2:
		why = "an internal snapshot, dropped through QMP or in the next round"
	default:
		why = "no snapshot: the VM stays down during the backup"
	}
	if len(reasons) > 0 {
		return strings.Join(reasons, "; ") + "; so " + why
	}
	if configured == k {
		return why + " (as configured)"
	}
	return why
}

// resolve returns the file behind path. The copy must lie beside that and not
// beside a link, which may be on another filesystem.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	if _, err := os.Stat(abs); err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	return abs, nil
}
