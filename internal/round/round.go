// Package round runs rounds: it takes virtual machines into the dock one after
// the other (stop, snapshot, update, start, health), backs them up from the
// snapshots while all of them run again, and drops the snapshots.
//
// [Runner.Plan] says what a round would do and why; [Runner.Run] does exactly
// that; [Runner.Recover] finishes or undoes what a round left in the air when
// its process died. The journal is written before each act, and recovery
// decides by it and by what lies on the disk. The package promises:
//
//   - A VM that was running is running again when Run or Recover returns,
//     whatever step failed, or the report names it as down.
//   - A VM that was off is off.
//   - No disk but one that declares an image is ever replaced, and the one
//     that was replaced is kept.
//   - A VM is only stopped when the repository can be opened.
package round

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// VM is a virtual machine as a round sees it.
type VM struct {
	Name    string
	Machine vm.Machine
	Disks   []Disk // in the order in which the guest mounts them

	ShutdownTimeout time.Duration
	ForceShutdown   bool // take the power away after ShutdownTimeout

	Retain string        // what is kept of its backups, for people; "" is all
	MaxAge time.Duration // of its newest backup, before it is an alarm; 0 is no limit

	// Hold is why rounds leave the VM alone; "" if they do not.
	Hold string

	Builder *Builder // nil for all but the builder VM
	Sinks   []string // the other backup programs that get its disks
}

// Disk is one disk of a VM.
type Disk struct {
	Name   string
	Path   string
	Format string // "raw" or "qcow2", declared
	Image  string // the image whose versions replace this disk, or ""
	Backup bool
}

// Builder is the rule of the builder VM: it is started when a build is due and
// not otherwise.
type Builder struct {
	Every time.Duration
}

// Machines is what a round does to a VM beside starting and stopping it.
type Machines interface {
	// Healthy waits until all probes of the VM pass; the error says which
	// did not, and why. mark is what [Machines.ConsoleMark] returned before
	// the start.
	Healthy(ctx context.Context, v VM, mark int64) error
	ConsoleMark(v VM) int64
}

// Snapshots takes and drops points in time of disks.
type Snapshots interface {
	// Plan says which kind the disk will get, and why. KindNone means that
	// the VM stays down during its backup.
	Plan(ctx context.Context, v VM, d Disk) (kind, reason string)
	// Take makes the snapshot that is called name. The VM is off.
	Take(ctx context.Context, v VM, d Disk, name string) (Snapshot, error)
	// Release drops a snapshot. While the VM is running some kinds cannot be
	// dropped: ErrNotNow. A snapshot that is gone is released.
	Release(ctx context.Context, v VM, s Snapshot) error
	// Sweep drops all snapshots of a disk that drydock ever took, whether or
	// not anybody remembers them. The VM is off.
	Sweep(ctx context.Context, v VM, d Disk) error
}

// KindNone is the kind of a disk that cannot be snapshotted.
const KindNone = "none"

// ErrNotNow says that a snapshot can only be dropped while its VM is off.
var ErrNotNow = errors.New("only possible while the VM is off")

// Snapshot is a point in time of one disk.
type Snapshot struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`   // of the snapshot, made by the round
	Path   string `json:"path"`   // of the disk
	Format string `json:"format"` // of the disk
}

// Images is the image store and the root disks made from it.
type Images interface {
	// Target returns the version that a disk should have, and the one that it
	// has ("" when drydock did not install it). ok is false where the store
	// has none to offer.
	Target(ctx context.Context, v VM, d Disk) (target Version, installed string, ok bool, err error)
	// Prepare lays the version down beside the disk. The VM may run.
	Prepare(ctx context.Context, d Disk, version Version) error
	// Discard removes what Prepare made and Switch did not use.
	Discard(d Disk) error
	// Switch puts what was prepared in the disk's place and keeps the old.
	Switch(d Disk) error
	// Undo puts the old one back. It does nothing when Switch did nothing.
	Undo(d Disk) error
	// Switched reports whether the disk was switched, and the switch neither
	// undone nor committed.
	Switched(d Disk) (bool, error)
	// Commit records that the disk has the version.
	Commit(ctx context.Context, v VM, d Disk, version Version) error
	// MarkBad keeps a version from all VMs.
	MarkBad(ctx context.Context, version Version, reason string) error
}

// Version is one version of an image.
type Version struct {
	Image  string `json:"image"`
	ID     string `json:"version"`
	Digest string `json:"digest"`
}

func (v Version) String() string { return v.Image + " " + v.ID }

// Builds is the host's side of the builder VM.
type Builds interface {
	// SpecDigest is the digest of the specification as it is now.
	SpecDigest(ctx context.Context, v VM) (string, error)
	// Prepare writes the specification disk for a build.
	Prepare(ctx context.Context, v VM, buildID string) error
	// Harvest imports what the builder finished; nil where it finished
	// nothing. The VM is off.
	Harvest(ctx context.Context, v VM) (*Harvest, error)
}

// Harvest is what one build brought.
type Harvest struct {
	BuildID    string         `json:"build_id"`
	SpecDigest string         `json:"spec_digest"`
	Images     []HarvestImage `json:"images"`
}

// HarvestImage is one image of a [Harvest].
type HarvestImage struct {
	Version
	New  bool  `json:"new"`  // false when the store had this digest already
	Size int64 `json:"size"` // bytes
}

// Backups stores what the snapshots hold.
type Backups interface {
	// Check opens the repository, so that no VM is stopped in vain.
	Check(ctx context.Context) error
	// Backup stores the sources of one VM as one backup.
	Backup(ctx context.Context, v VM, round string, sources []Source, progress func(string)) (*BackupReport, error)
}

// Sinks hands frozen disks to other backup programs.
type Sinks interface {
	// Sink runs the program of that name over the sources of one VM.
	Sink(ctx context.Context, v VM, name string, sources []Source) (*SinkReport, error)
}

// Proofs proves that backups can be read back.
type Proofs interface {
	// Prove looks at the backups that the repository holds, if that is due; nil
	// where it is not. Damage is in the report. An error says that not everything
	// could be looked at, and may come with a report of what was.
	Prove(ctx context.Context, progress func(string)) (*ProofReport, error)
	// Due says whether Prove would do so now.
	Due(ctx context.Context) (Due, error)
}

// Boots proves that VMs start from their backups.
type Boots interface {
	// Boot starts the VM from its newest backup, apart from the world, if that is
	// due; nil where it is not. That it did not boot is in the report. An error says
	// that it could not be tried.
	Boot(ctx context.Context, v VM, progress func(string)) (*BootReport, error)
	// Due says whether Boot would do so now.
	Due(ctx context.Context, v VM) (Due, error)
}

// Sources opens what is to be read of a snapshot: at once, since the disk's
// path may come to name another file. For a disk of [KindNone] it is the disk
// itself, locked so that no QEMU can start on it until the source is closed.
type Sources interface {
	Open(v VM, d Disk, s Snapshot) (Source, error)
}

// Source is one disk to read.
type Source struct {
	Disk     Disk
	File     *os.File
	Format   string // of File
	Internal string // the qcow2 internal snapshot to read, or ""
	Unfrozen bool   // File is the disk itself: it is closed before a start
	// Identity changes when the disk is replaced by another. It is that of the
	// disk that File is of, which the round may be about to replace.
	Identity string
}

// Options are what a Runner works with. All but PruneEvery, Observe and
// RetryPause are required.
type Options struct {
	State     *state.DB
	Machines  Machines
	Snapshots Snapshots
	Images    Images
	Builds    Builds
	Sources   Sources
	Backups   Backups
	Sinks     Sinks
	Retention Retention
	// PruneEvery is the time from one prune to the next; 0 is never.
	PruneEvery time.Duration
	Copies     Copies
	Proofs     Proofs
	Boots      Boots
	Now        func() time.Time
	Observe    func(Event) // called from one goroutine at a time
	// RetryPause is the pause before what failed is tried for the second
	// time; before the third it is twice as long. By default one second.
	RetryPause time.Duration
}

// Runner runs rounds over one host's VMs.
type Runner struct{ o Options }

// New returns a Runner.
func New(o Options) *Runner {
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.RetryPause == 0 {
		o.RetryPause = time.Second
	}
	return &Runner{o: o}
}

// Event is one thing that happened, for whoever watches.
type Event struct {
	Time  time.Time   `json:"time"`
	VM    string      `json:"vm,omitempty"`
	Step  Step        `json:"step,omitempty"`
	Phase state.Phase `json:"phase,omitempty"` // empty for a note within the step
	Text  string      `json:"text,omitempty"`
}

// Step is one step of a round for one VM.
type Step string

// The steps, in their order.
const (
	StepStop     Step = "stop"
	StepHarvest  Step = "harvest"
	StepSnapshot Step = "snapshot"
	StepUpdate   Step = "update"
	StepStart    Step = "start"
	StepHealth   Step = "health"
	StepBackup   Step = "backup"
	StepSink     Step = "sink"
	StepRelease  Step = "release"
	StepRetain   Step = "retain"
	StepPrune    Step = "prune" // of the whole round
	StepCopy     Step = "copy"  // the same
	// StepVerify is one of the whole round, not of a VM. It changes nothing, so
	// the journal does not have it.
	StepVerify Step = "verify"
	// StepBoot is one of a VM, and is not in the journal for the same reason.
	StepBoot Step = "boot"
	// stepPrepare is journalled before a new root disk is laid down beside the
	// old one, so that recovery knows where to look for it.
	stepPrepare Step = "prepare"
	// stepDocked is journalled when the VM is back as it was found: from here
	// on recovery has nothing to do for it but to drop snapshots.
	stepDocked Step = "docked"
)

// StepError is what a failed step is reported with.
type StepError struct {
	VM   string
	Step Step
	Err  error
	Hint string
}

func (e *StepError) Error() string {
	s := fmt.Sprintf("%s: %s: %v", e.VM, e.Step, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *StepError) Unwrap() error { return e.Err }

// record writes a journal entry. Data that cannot be written as JSON does not
// exist here: all of it is this package's own structs.
func (r *Runner) record(ctx context.Context, round, name string, s Step, p state.Phase, data any) error {
	var raw json.RawMessage
	if data != nil {
		var err error
		if raw, err = json.Marshal(data); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return r.o.State.Record(ctx, state.Entry{Round: round, VM: name, Step: string(s), Phase: p, Data: raw, At: r.o.Now()})
}

func (r *Runner) event(name string, s Step, p state.Phase, format string, args ...any) {
	r.o.Observe(Event{Time: r.o.Now(), VM: name, Step: s, Phase: p, Text: fmt.Sprintf(format, args...)})
}
