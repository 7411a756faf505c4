// Package image is the image store: the versions of the images that root disks
// are made from, which of them is current and which are bad, and the switch of a
// VM's root disk from one version to the next.
//
//	DIR/NAME/VERSION/disk.raw       the whole disk, raw, holes kept
//	DIR/NAME/VERSION/version.json   size, digest, origin
//	DIR/NAME/state.json             current, earlier currents, bad versions
//	DIR/.installed/VM/DISK.json     what a VM's disk was made from
//	DIR/.prepared/….json            which file beside a disk waits to replace it
//
// A version is there as a whole or not at all, its digest was right when it came
// in and is checked again each time a disk is made from it. The current version
// is never a bad one. Nothing removes a version that is current or that a disk
// was made from.
//
// What comes in was made by a hostile builder: this package stores it, and never
// looks into it.
package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// The names in the store.
const (
	diskFile     = "disk.raw"
	versionFile  = "version.json"
	stateFile    = "state.json"
	lockFile     = ".lock"
	installedDir = ".installed"
	preparedDir  = ".prepared"
	importPrefix = ".import-"
)

// The errors of this package, beside [DigestError] and [SpaceError].
var (
	// ErrName: a name that could not be that of a folder in the store.
	ErrName = errors.New(`a name is 1 to 63 letters, digits, ".", "_" and "-", and starts with a letter or digit`)
	// ErrUnchanged: the store has these bytes already, as the version that is
	// returned with it.
	ErrUnchanged = errors.New("the image store has this image already")
	// ErrExists: the version is there, with other bytes.
	ErrExists = errors.New("the version is there already, with another digest")
	// ErrNoVersion: there is no such version, or none at all.
	ErrNoVersion = errors.New("there is no such image version")
	// ErrBad: the version is marked bad.
	ErrBad = errors.New("the version is marked bad")
	// ErrInUse: the version is current, or a disk was made from it.
	ErrInUse = errors.New("the version is in use")
	// ErrDigest is in the chain of a [DigestError].
	ErrDigest = errors.New("the digest differs")
	// ErrSize: the image is larger or smaller than it should be.
	ErrSize = errors.New("the size differs")
	// ErrNotPrepared: nothing lies beside the disk that could replace it.
	ErrNotPrepared = errors.New("no new root disk is prepared")
)

// DigestError says that bytes are not those that they should be.
type DigestError struct {
	What      string // "image web 7"
	Want, Got string // SHA-256, hexadecimal
	Hint      string
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: %v: it is %s, and should be %s (%s)", e.What, ErrDigest, e.Got, e.Want, e.Hint)
}

func (e *DigestError) Unwrap() error { return ErrDigest }

// SpaceError says that a filesystem is full. What was being written is removed.
type SpaceError struct {
	Path string // a file on the filesystem
	Need int64  // bytes that the file may take
	Err  error
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("write %s: %v (make room for %d MiB on that filesystem; nothing was changed)", e.Path, e.Err, (e.Need+1<<20-1)>>20)
}

func (e *SpaceError) Unwrap() error { return e.Err }

// spaceError wraps err if it says that a filesystem is full.
func spaceError(path string, need int64, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &SpaceError{Path: path, Need: need, Err: err}
	}
	return err
}

// Options are the settings of a [Store].
type Options struct {
	Dir     string // STATE/images; it is made when it is needed
	QEMUImg *qemuimg.Tool
	Now     func() time.Time // by default time.Now
}

// Store is an image store. It holds no resources. Any number of processes may
// use it at the same time.
type Store struct {
	dir  string
	qemu *qemuimg.Tool
	now  func() time.Time
}

// New returns the store in o.Dir.
func New(o Options) *Store {
	if o.QEMUImg == nil {
		o.QEMUImg = qemuimg.New(qemuimg.Options{})
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{dir: o.Dir, qemu: o.QEMUImg, now: o.Now}
}

// namePattern keeps names from leaving the store's folders, and from meeting
// the store's own names, which start with a dot.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidName returns ErrName if name cannot be that of an image, a version, a VM
// or a disk.
func ValidName(name string) error {
	if !namePattern.MatchString(name) || name == stateFile {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

func validNames(names ...string) error {
	for _, name := range names {
		if err := ValidName(name); err != nil {
			return err
		}
	}
	return nil
}

// locked runs f while no other process or goroutine is in locked. The lock is
// gone with the process that holds it. f must be short.
func (s *Store) locked(f func() error) (err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("open the image store: %w", err)
	}
	lock, err := flock.Wait(context.Background(), filepath.Join(s.dir, lockFile), "image store")
	if err != nil {
		return fmt.Errorf("lock the image store: %w", err)
	}
	defer lock.Release()
	return f()
}

// remove deletes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
