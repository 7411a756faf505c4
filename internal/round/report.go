package round

import (
	"cmp"
	"errors"
	"fmt"
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
	Verify   *ProofReport  `json:"verify,omitempty"` // nil: it was not due
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
	BytesTotal     int64         `json:"bytes_total"`
	BytesRead      int64         `json:"bytes_read"`   // from the guest's disks
	BytesStored    int64         `json:"bytes_stored"` // added to the repository
	Damaged        []string      `json:"damaged,omitempty"`
	DamagedTotal   int64         `json:"damaged_total,omitempty"`
	Warnings       []string      `json:"warnings,omitempty"` // about the repository
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
	// Error is why not everything was looked at.
	Error string `json:"error,omitempty"`
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
	if r.Recovery != nil && r.Outcome == state.Done && len(r.Recovery.Warnings) > 0 {
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
	if r.Verify != nil {
		out = append(out, r.Verify.problems()...)
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
