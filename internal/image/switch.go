package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/imagelock"
)

// What lies beside a disk.
const (
	nextSuffix     = ".next"      // a new disk, finished
	partSuffix     = ".next.part" // a new disk, being written
	previousSuffix = ".previous"  // the disk before the last switch
)

// Stage is how far the switch of a disk has got, as the files show it.
type Stage string

// The stages. The disk itself is whole in each of them.
const (
	// Idle: nothing is prepared. A PATH.previous may be there.
	Idle Stage = "idle"
	// Prepared: PATH.next is there, and the disk is the old one.
	Prepared Stage = "prepared"
	// Linked: the disk is the old one, and is called PATH.previous as well.
	Linked Stage = "linked"
	// Switched: the disk is the one that was prepared, and the old one is
	// PATH.previous.
	Switched Stage = "switched"
)

// Stage says how far the switch of the disk at path has got. After
// [Store.Commit] it is Idle.
func (s *Store) Stage(path string) (Stage, error) {
	path, err := resolve(path)
	if err != nil {
		return Idle, err
	}
	disk, err := statFile(path)
	if err != nil {
		return Idle, err
	}
	next, err := statFile(path + nextSuffix)
	if err != nil {
		return Idle, err
	}
	previous, err := statFile(path + previousSuffix)
	if err != nil {
		return Idle, err
	}
	record, ok, err := s.prepared(path)
	switch {
	case err != nil:
		return Idle, err
	case disk != nil && previous != nil && *disk == *previous:
		return Linked, nil
	case next != nil:
		return Prepared, nil
	case ok && disk != nil && record.file() == *disk:
		return Switched, nil
	}
	return Idle, nil
}

// Switched reports whether the disk at path was switched to v, and the switch
// neither undone nor committed.
func (s *Store) Switched(path string, v Version) (bool, error) {
	stage, err := s.Stage(path)
	if err != nil || stage != Switched {
		return false, err
	}
	if path, err = resolve(path); err != nil {
		return false, err
	}
	record, _, err := s.prepared(path)
	return record.Image == v.Image && record.SHA256 == v.SHA256, err
}

// Switch puts PATH.next in the place of the disk and keeps the old one as
// PATH.previous. At each moment the disk is whole, the old or the new one.
// Nobody may write to the disk: the error is an [imagelock.InUseError] otherwise, and
// [ErrNotPrepared] without a PATH.next.
func (s *Store) Switch(path string) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	next, err := statFile(path + nextSuffix)
	if err != nil {
		return fmt.Errorf("switch %s: %w", path, err)
	}
	record, ok, err := s.prepared(path)
	if err != nil {
		return err
	}
	// A file that is not on record could be switched to, and not back.
	if next == nil || !ok || record.file() != *next {
		return fmt.Errorf("switch %s: %w", path, ErrNotPrepared)
	}
	return alone(path, "switch", steps(path))
}

// step is one change of the folder, after any of which the power may fail.
type step func() error

// steps are the changes that a switch consists of. A switch that stopped after
// any of them is finished by doing all of them again.
func steps(path string) []step {
	return []step{
		func() error { return remove(path + previousSuffix) },
		func() error { return os.Link(path, path+previousSuffix) },
		func() error { return os.Rename(path+nextSuffix, path) },
		func() error { return atomicfile.SyncDir(filepath.Dir(path)) },
	}
}

// Undo puts the old disk back if the disk at path was switched and not
// committed; the new one is gone then. Otherwise it does nothing, beside taking
// back a switch that was stopped half way.
func (s *Store) Undo(path string) error {
	stage, err := s.Stage(path)
	if err != nil {
		return err
	}
	if path, err = resolve(path); err != nil {
		return err
	}
	var back step
	switch stage {
	case Linked:
		// Renaming one name of a file to another of its names does nothing.
		back = func() error { return remove(path + previousSuffix) }
	case Switched:
		back = func() error { return os.Rename(path+previousSuffix, path) }
	default:
		return nil
	}
	err = alone(path, "switch back", []step{back, func() error { return atomicfile.SyncDir(filepath.Dir(path)) }})
	if err != nil || stage == Linked {
		return err // what is prepared can be switched to again
	}
	return s.forgetPrepared(path)
}

// Discard removes what [Store.Prepare] made, and was not switched to.
func (s *Store) Discard(path string) error {
	stage, err := s.Stage(path)
	if err != nil {
		return err
	}
	if path, err = resolve(path); err != nil {
		return err
	}
	if stage == Linked {
		if err := remove(path + previousSuffix); err != nil {
			return fmt.Errorf("discard the new disk of %s: %w", path, err)
		}
	}
	if err := errors.Join(remove(path+nextSuffix), remove(path+partSuffix)); err != nil {
		return fmt.Errorf("discard the new disk of %s: %w", path, err)
	}
	if stage != Switched {
		return s.forgetPrepared(path)
	}
	return nil
}

// alone does the steps while it holds QEMU's lock on the disk: against writers
// only, since the file itself stays as it is, and a backup may be reading it.
func alone(path, what string, steps []step) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, do := range steps {
		if err := do(); err != nil {
			return fmt.Errorf("%s %s: %w", what, path, err)
		}
	}
	return nil
}

// file is what tells one file from another.
type file struct{ device, inode uint64 }

func (p prepared) file() file { return file{p.Device, p.Inode} }

// statFile returns nil for a file that is not there.
func statFile(path string) (*file, error) {
	var st syscall.Stat_t
	err := syscall.Lstat(path, &st)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return &file{uint64(st.Dev), st.Ino}, nil
}
