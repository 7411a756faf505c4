package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// maxWarnings is how many warnings a report keeps. All are counted.
const maxWarnings = 100

// Report is what a restore did.
type Report struct {
	Files    int64 `json:"files"`    // regular files, each once
	Dirs     int64 `json:"dirs"`     // the target not counted
	Symlinks int64 `json:"symlinks"` // each once
	Links    int64 `json:"links"`    // further names of what is counted already
	Specials int64 `json:"specials"` // devices, FIFOs and sockets
	Bytes    int64 `json:"bytes"`    // the sizes of Files
	Written  int64 `json:"written"`  // bytes of Files that are no holes
	Kept     int64 `json:"kept"`     // of Files, those of an earlier restore; see [Options.Resume]

	LeftOut LeftOut `json:"left_out"`

	// Failed counts what is not there, each with a warning.
	Failed int64 `json:"failed"`
	// Warnings says what is not as it was in the source: one printable line
	// each, with the path in front. WarningsTotal counts what Warnings has no
	// room for, too.
	Warnings      []string `json:"warnings,omitempty"`
	WarningsTotal int64    `json:"warnings_total"`
}

// LeftOut counts what was left out on purpose. See [Options].
type LeftOut struct {
	Setuid       int64 `json:"setuid"`       // files whose setuid or setgid bit was taken
	Capabilities int64 `json:"capabilities"` // files whose capabilities were taken
	Devices      int64 `json:"devices"`      // device nodes
	Flags        int64 `json:"flags"`        // files and folders whose flags of chattr(1) were not set
	Xattrs       int64 `json:"xattrs"`       // attributes that only root may set, or of a kind that cannot be set
}

// warn notes that something at path is not as it was.
func (r *restorer) warn(path []byte, err error) {
	r.report.WarningsTotal++
	if len(r.report.Warnings) < maxWarnings {
		r.report.Warnings = append(r.report.Warnings, escape.Bytes(path)+": "+escape.Line(err.Error()))
	}
}

// fail notes that what is at path could not be restored. It returns the error when
// going on makes no sense.
func (r *restorer) fail(path []byte, err error) error {
	if err == nil {
		return nil
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if e := (*endError)(nil); errors.As(err, &e) {
		return err // on its way up, through all the folders
	}
	if fatal(err) {
		return &endError{bytes.Clone(path), err}
	}
	r.report.Failed++
	r.warn(path, err)
	return nil
}

// endError is an error that ends the restore, with where it was.
type endError struct {
	path []byte
	err  error
}

func (e *endError) Error() string { return escape.Bytes(e.path) + ": " + e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

// targetError is an error of writing to the target.
type targetError struct{ err error }

func (e *targetError) Error() string { return e.err.Error() }
func (e *targetError) Unwrap() error { return e.err }

// onTarget marks an error of writing to the target.
func onTarget(err error) error {
	if err == nil {
		return nil
	}
	return &targetError{err}
}

// endings are the errors of a target to which no file can be restored any more. A lack
// of descriptors is not among them: a guest causes it with folders that lie deep.
var endings = []error{
	unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.ENOMEM, unix.ENODEV, unix.ESTALE,
}

// fatal tells an error that ends the restore from one that costs a file. A source
// that is damaged in one place is not so in others; any other error of a source is
// of what it is read through.
func fatal(err error) bool {
	if t := (*targetError)(nil); !errors.As(err, &t) {
		d := (*disk.Error)(nil)
		return !errors.As(err, &d)
	}
	for _, e := range endings {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (r *restorer) damaged(structure, format string, args ...any) error {
	return &disk.Error{Layer: r.fsys.Info().Type, Structure: structure, Offset: -1, Err: disk.ErrCorrupt, Detail: fmt.Sprintf(format, args...)}
}
