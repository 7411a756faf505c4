package round

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// Report is what a round did. It is printed, and kept in the history.
type Report struct {
	Round    string        `json:"round"`
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended"`
	Outcome  state.Outcome `json:"outcome"`
	VMs      []*VMReport   `json:"vms"`
	Recovery *Recovery     `json:"recovery,omitempty"`
	Prune    *PruneReport  `json:"prune,omitempty"`
	Copies   []*CopyReport `json:"copies,omitempty"`
	// Warnings are of what is no single VM's.
	Warnings []string     `json:"warnings,omitempty"`
	Verify   *ProofReport `json:"verify,omitempty"` // nil: it was not due
}

// VMReport is what a round did to one VM. Durations are in nanoseconds.
type VMReport struct {
	VM      string        `json:"vm"`
	Round   string        `json:"round"`
	Started time.Time     `json:"started"`
	Outcome state.Outcome `json:"outcome"`
	Found   vm.State      `json:"found"`
	Left    vm.State      `json:"left"`

	// Downtime is from the request to shut down until the VM was healthy
	// again; Dock is the part of it in which the VM was off.
	Downtime time.Duration `json:"downtime"`
	Dock     time.Duration `json:"dock"`

	Steps   []StepReport  `json:"steps"`
	Image   *ImageReport  `json:"image,omitempty"`
	Harvest *Harvest      `json:"harvest,omitempty"`
	Build   string        `json:"build,omitempty"` // the builder: what was decided about its BUILD
	Backup  *BackupReport `json:"backup,omitempty"`
	Sinks   []SinkReport  `json:"sinks,omitempty"`
	Boot    *BootReport   `json:"boot,omitempty"` // nil: it was not due
	Retain  *RetainReport `json:"retain,omitempty"`
	// Warnings do not keep the round from its goal; Errors do.
	Warnings []string `json:"warnings,omitempty"`
	Errors   []string `json:"errors,omitempty"`
}

// StepReport is one step.
type StepReport struct {
	Step     Step          `json:"step"`
	Phase    state.Phase   `json:"phase"`
	Duration time.Duration `json:"duration"`
	Text     string        `json:"text,omitempty"`
}

// ImageReport says what became of a root disk.
type ImageReport struct {
	Disk       string `json:"disk"`
	Before     string `json:"before,omitempty"` // version, or "" when drydock had not installed it
	After      string `json:"after"`
	RolledBack string `json:"rolled_back,omitempty"` // the version that was tried and is now marked bad
	Reason     string `json:"reason,omitempty"`
}

// BackupReport is what one backup read and stored.
type BackupReport struct {
	ID             string        `json:"id"`
	Parent         string        `json:"parent,omitempty"`
	Duration       time.Duration `json:"duration"`
	FilesNew       int64         `json:"files_new"`
	FilesChanged   int64         `json:"files_changed"`
	FilesUnchanged int64         `json:"files_unchanged"`
	BytesTotal     int64         `json:"bytes_total"`  // of files, and the sizes of Images
	BytesRead      int64         `json:"bytes_read"`   // from the guest's disks
	BytesStored    int64         `json:"bytes_stored"` // added to the repository
	LeftOut        []LeftOut     `json:"left_out,omitempty"`
	Damaged        []string      `json:"damaged,omitempty"`
	DamagedTotal   int64         `json:"damaged_total,omitempty"`
	Warnings       []string      `json:"warnings,omitempty"` // about the repository
	Images         []ImageBackup `json:"images,omitempty"`   // of the disks that are backed up whole
}

// ImageBackup is what one backup did with a disk that it has whole. Each of its
// bytes was unchanged, zero, free, swap, or read.
type ImageBackup struct {
	Disk           string   `json:"disk"`
	Size           int64    `json:"size"`
	BytesUnchanged int64    `json:"bytes_unchanged"` // the dirty bitmap says so
	BytesZero      int64    `json:"bytes_zero"`      // the image has nothing there
	BytesFree      int64    `json:"bytes_free"`      // the guest has freed them
	BytesSwap      int64    `json:"bytes_swap"`
	BytesRead      int64    `json:"bytes_read"`
	BytesStored    int64    `json:"bytes_stored"`
	Bitmap         string   `json:"bitmap,omitempty"` // the dirty bitmap that was used
	Whole          string   `json:"whole,omitempty"`  // why none was used, or none was started
	Kept           []string `json:"kept,omitempty"`   // why nothing of a volume was free
	Layout         bool     `json:"layout,omitempty"` // it is what is around the files that are backed up
}

// String says it in one line.
func (b ImageBackup) String() string {
	what := "image"
	if b.Layout {
		what = "layout"
	}
	text := fmt.Sprintf("%s of %s, %s: read %s, stored %s; skipped", what, b.Disk, Bytes(b.Size), Bytes(b.BytesRead), Bytes(b.BytesStored))
	for _, part := range []struct {
		n    int64
		what string
	}{{b.BytesUnchanged, "unchanged"}, {b.BytesZero, "zero"}, {b.BytesFree, "free"}, {b.BytesSwap, "swap"}} {
		if part.n > 0 {
			text += fmt.Sprintf(" %s %s,", Bytes(part.n), part.what)
		}
	}
	text, nothing := strings.CutSuffix(text, "; skipped")
	if !nothing {
		text = strings.TrimSuffix(text, ",")
	}
	if b.Layout {
		return text
	}
	if b.Whole != "" && b.Bitmap == "" {
		text += "; read in whole"
	}
	if b.Whole != "" {
		text += ": " + b.Whole
	}
	if len(b.Kept) > 0 {
		text += "; no free space is skipped: " + strings.Join(b.Kept, "; ")
	}
	return text
}

// SinkReport is what became of the disks with one other backup program.
type SinkReport struct {
	Sink     string        `json:"sink"`
	Duration time.Duration `json:"duration"`
	Warnings []string      `json:"warnings,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// LeftOut is what one rule of the configuration has kept out of a backup.
type LeftOut struct {
	Disk  string `json:"disk"`
	Rule  string `json:"rule"`  // the pattern, or the key
	Files int64  `json:"files"` // all that is no folder
	Dirs  int64  `json:"dirs"`  // what is in them is not counted
	Bytes int64  `json:"bytes"` // the sizes of Files
}

// ProofReport is what a look at the backups found.
type ProofReport struct {
	Mode      string        `json:"mode"`
	Duration  time.Duration `json:"duration"`
	Backups   int           `json:"backups"` // that were looked at
	Damaged   int           `json:"damaged"` // backups of which something is lost
	BytesRead int64         `json:"bytes_read"`
	// Damage names what is damaged, one line each, the first few of them.
	Damage      []string `json:"damage,omitempty"`
	DamageTotal int      `json:"damage_total,omitempty"`
	// Mended counts packs and index files that were damaged or gone, and are whole.
	Mended int `json:"mended,omitempty"`
	// Indexed counts packs that no index file named, and that one names again.
	Indexed int `json:"indexed,omitempty"`
	// Error is why not everything was looked at.
	Error string `json:"error,omitempty"`
}

// BootReport is how the start of a VM from a backup went.
type BootReport struct {
	Backup  string        `json:"backup"`  // its ID
	Healthy time.Duration `json:"healthy"` // from the start of QEMU until all probes passed
	Read    int64         `json:"read"`    // bytes of the backup
	Error   string        `json:"error,omitempty"`
	Notes   []string      `json:"notes,omitempty"` // what is not proven
}

func (v *VMReport) warn(err error) { v.Warnings = append(v.Warnings, err.Error()) }
func (v *VMReport) fail(err error) { v.Errors = append(v.Errors, err.Error()) }

// settle fills in the outcome from what was collected.
func (v *VMReport) settle() {
	switch {
	case len(v.Errors) > 0:
		v.Outcome = state.FailedRound
	case len(v.Warnings) > 0:
		v.Outcome = state.Warnings
	default:
		v.Outcome = state.Done
	}
}

func (r *Report) settle() {
	r.Outcome = state.Done
	for _, v := range r.VMs {
		v.settle()
		switch {
		case v.Outcome == state.FailedRound:
			r.Outcome = state.FailedRound
		case v.Outcome == state.Warnings && r.Outcome == state.Done:
			r.Outcome = state.Warnings
		}
	}
	warned := len(r.Warnings) > 0 || slices.ContainsFunc(r.Copies, func(c *CopyReport) bool { return len(c.problems()) > 0 }) || r.Recovery != nil && len(r.Recovery.Warnings) > 0
	if r.Outcome == state.Done && warned {
		r.Outcome = state.Warnings
	}
	switch v := r.Verify; {
	case v == nil:
	case v.DamageTotal > 0: // invariant: the last good backup stays readable
		r.Outcome = state.FailedRound
	case v.Error != "" && r.Outcome == state.Done:
		r.Outcome = state.Warnings
	}
}

// Problems returns every warning and error in the order of the VMs, one line
// each.
func (r *Report) Problems() []string {
	var out []string
	if r.Recovery != nil {
		out = append(out, r.Recovery.Warnings...)
	}
	for _, v := range r.VMs {
		out = append(out, v.Errors...)
		out = append(out, v.Warnings...)
	}
	out = append(out, r.Warnings...)
	for _, c := range r.Copies {
		out = append(out, c.problems()...)
	}
	if r.Verify != nil {
		out = append(out, r.Verify.problems(string(StepVerify))...)
	}
	return out
}

// stepError says which step of which VM failed. An error that says so already
// keeps its words.
func stepError(name string, s Step, err error, hint string) error {
	var se *StepError
	if errors.As(err, &se) {
		return err
	}
	// A driver's error names the VM as well; the step says the rest.
	if ve, ok := err.(*vm.Error); ok { // not errors.As: one that is wrapped has words around it
		err, hint = ve.Err, cmp.Or(hint, ve.Hint)
	}
	return &StepError{VM: name, Step: s, Err: err, Hint: hint}
}

// ErrNothingToDo says that a round was asked for that has no VM in it.
var ErrNothingToDo = fmt.Errorf("no VM to work on")
