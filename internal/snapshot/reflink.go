package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/imagelock"
)

// partSuffix ends the name of a copy that is being made. No name of a snapshot
// has a dot in it.
const partSuffix = ".part"

// probeSize is the size of the file that a filesystem is asked to clone, in
// bytes: a multiple of every block size that there is.
const probeSize = 64 << 10

// flagNoCOW is FS_NOCOW_FL of linux/fs.h.
const flagNoCOW = 0x00800000

// errNoReflink is said of filesystems without shared blocks.
var errNoReflink = errors.New("its filesystem has no reflink copies")

// copyPath names the reflink copy of a disk.
func copyPath(path, name string) string { return path + "." + prefix + name }

// probeReflink asks the filesystem that path is on to clone a file, since
// neither its type nor its version tells whether it can.
func probeReflink(path string) error {
	dir := filepath.Dir(path)
	src, err := tempFile(dir)
	if err != nil {
		return fmt.Errorf("no copy can lie beside it: %w", err)
	}
	defer src.Close()
	if _, err := src.Write(make([]byte, probeSize)); err != nil {
		return fmt.Errorf("no copy can lie beside it: %w", err)
	}
	dst, err := tempFile(dir)
	if err != nil {
		return fmt.Errorf("no copy can lie beside it: %w", err)
	}
	defer dst.Close()
	return clone(dst, src)
}

// tempFile makes a file that has no name and is gone when it is closed.
// Of the filesystems with reflink only those on a network lack such files.
func tempFile(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
}

// clone makes dst share the blocks of src.
func clone(dst, src *os.File) error {
	err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	for _, unable := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, unable) {
			return fmt.Errorf("%w (%w)", errNoReflink, err)
		}
	}
	if err != nil {
		return fmt.Errorf("clone %s: %w", src.Name(), err)
	}
	return nil
}

// takeCopy makes the reflink copy of a disk: under another name first, so that
// a copy with the right name is always whole.
func takeCopy(path, name string) (err error) {
	to := copyPath(path, name)
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := imagelock.Acquire(src, imagelock.ReadShared); err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return nil // taken already
	}
	part := to + partSuffix
	if err := remove(part); err != nil {
		return err
	}
	dst, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(part))
		}
	}()
	defer dst.Close()
	if err := inheritNoCOW(dst, src); err != nil {
		return err
	}
	if err := clone(dst, src); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(to))
}

// inheritNoCOW gives dst, which must be empty, the no-copy-on-write flag of
// src (chattr +C, usual for VM disks on btrfs): btrfs clones only between files
// that agree on it.
func inheritNoCOW(dst, src *os.File) error {
	flags, err := unix.IoctlGetInt(int(src.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&flagNoCOW == 0 {
		return nil // a filesystem without flags has none to inherit
	}
	if err := unix.IoctlSetPointerInt(int(dst.Fd()), unix.FS_IOC_SETFLAGS, flagNoCOW); err != nil {
		return fmt.Errorf("turn copy-on-write off for the copy: %w", err)
	}
	return nil
}

func releaseCopy(path, name string) error {
	to := copyPath(path, name)
	if err := errors.Join(remove(to), remove(to+partSuffix)); err != nil {
		return err
	}
	err := atomicfile.SyncDir(filepath.Dir(to))
	if errors.Is(err, os.ErrNotExist) {
		return nil // the folder is gone as well
	}
	return err
}

// copies returns the names of the reflink copies of a disk, and removes those
// that were never finished.
func copies(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("look for snapshots: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), copyPath(filepath.Base(path), ""))
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if whole, cut := strings.CutSuffix(name, partSuffix); cut && namePattern.MatchString(whole) {
			if err := remove(copyPath(path, name)); err != nil {
				return nil, fmt.Errorf("remove an unfinished snapshot: %w", err)
			}
		} else if namePattern.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// remove deletes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
