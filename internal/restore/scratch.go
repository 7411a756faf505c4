package restore

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
)

// scratchName begins the names of folders for sockets, in the folder for temporary
// files.
const scratchName = "drydock-nbd-"

// scratch makes a folder that only this user can enter, and removes those that
// processes have left which were killed: they hold no lock. done removes it.
func scratch() (dir string, done func() error, err error) {
	if err := sweepScratch(); err != nil {
		return "", nil, err
	}
	// It has its name only when it is locked: nobody else finds it without.
	made, err := os.MkdirTemp("", "drydock-new-")
	if err != nil {
		return "", nil, err
	}
	lock, err := flock.TakeFolder(made)
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(made))
	}
	dir = filepath.Join(filepath.Dir(made), scratchName+rand.Text())
	if err := os.Rename(made, dir); err != nil {
		return "", nil, errors.Join(err, lock.Release(), os.Remove(made))
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Release()) }, nil
}

// sweepScratch removes the folders of this user whose makers are gone. Others' are no
// business of ours, whatever they are called.
func sweepScratch() error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), scratchName+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
			continue
		}
		lock, err := flock.TakeFolder(path)
		if err != nil {
			continue // in use, or gone meanwhile
		}
		err = os.RemoveAll(path)
		if err := errors.Join(err, lock.Release()); err != nil {
			return err
		}
	}
	return nil
}
