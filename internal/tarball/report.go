package tarball

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// maxWarnings is how many warnings a report keeps. All are counted.
const maxWarnings = 100

// Report is what is in an archive.
type Report struct {
	Files    int64 `json:"files"` // regular files, each once
	Dirs     int64 `json:"dirs"`
	Symlinks int64 `json:"symlinks"` // each once
	Links    int64 `json:"links"`    // further names of what is counted already
	Specials int64 `json:"specials"` // devices and FIFOs
	Bytes    int64 `json:"bytes"`    // the sizes of Files

	Sockets int64 `json:"sockets"` // left out

	// Damaged counts what is not in the archive, or not in whole, each with a
	// warning.
	Damaged int64 `json:"damaged"`
	// Warnings says what is not as it was in the source: one printable line
	// each, with the path in front. WarningsTotal counts what Warnings has no
	// room for, too.
	Warnings      []string `json:"warnings,omitempty"`
	WarningsTotal int64    `json:"warnings_total"`
}

// warn notes that something at path is not as it was.
func (a *archiver) warn(path []byte, err error) {
	a.report.WarningsTotal++
	if len(a.report.Warnings) < maxWarnings {
		a.report.Warnings = append(a.report.Warnings, escape.Bytes(path)+": "+escape.Line(err.Error()))
	}
}

// fail notes that what is at path is damaged. It returns the error when going on
// makes no sense: a source that is damaged in one place is not so in others, but
// any other error is of what it is read through, or of the output.
func (a *archiver) fail(path []byte, err error) error {
	if err == nil {
		return nil
	}
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if e := (*endError)(nil); errors.As(err, &e) {
		return err // on its way up, through all the folders
	}
	if a.opts.Strict || !isDamage(err) {
		return &endError{bytes.Clone(path), err}
	}
	a.report.Damaged++
	a.warn(path, err)
	return nil
}

// endError is an error that ends the archive, with where it was.
type endError struct {
	path []byte
	err  error
}

func (e *endError) Error() string { return escape.Bytes(e.path) + ": " + e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

func isDamage(err error) bool {
	d := (*disk.Error)(nil)
	return errors.As(err, &d)
}

func (a *archiver) damaged(structure, format string, args ...any) error {
	return a.refused(disk.ErrCorrupt, structure, format, args...)
}

func (a *archiver) refused(why error, structure, format string, args ...any) error {
	return &disk.Error{Layer: a.fsys.Info().Type, Structure: structure, Offset: -1, Err: why, Detail: fmt.Sprintf(format, args...)}
}
