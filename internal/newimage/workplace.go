package newimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
)

// workplace is where an image is made, beside its target. One process at a time
// holds it.
type workplace struct {
	image     string // the raw image that is made
	converted string
	commands  string // for debugfs: a line for each file, or more
	folder    string // where the backup is mounted meanwhile
	lock      *flock.Lock
}

func baseOf(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".drydock-")
}

func lockOf(target string) string { return baseOf(target) + "lock" }

// openWorkplace takes the workplace, and clears away what a process left that was
// killed.
func openWorkplace(target string) (*workplace, error) {
	base := baseOf(target)
	w := &workplace{image: base + "partial", converted: base + "partial.qcow2", commands: base + "commands", folder: base + "mount"}
	var err error
	if w.lock, err = flock.Take(lockOf(target), "making "+target); err != nil {
		if held, ok := errors.AsType[*flock.HeldError](err); ok {
			err = fmt.Errorf("%w: this image is made by %s (if it was killed and does not end: umount -f %s)", ErrTarget, held.Holder, w.folder)
		}
		return nil, err
	}
	// The mount of a process that was killed. By force: programs that use it get
	// errors, and do not wait for answers.
	err = unix.Unmount(w.folder, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = os.Mkdir(w.folder, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		w.close()
		return nil, fmt.Errorf("prepare %s: %w", w.folder, err)
	}
	return w, nil
}

// maxAtOnce is how many may make something of one name, of which nothing is left there.
const maxAtOnce = 16

// openAnyWorkplace takes a workplace beside the target, or beside one whose name has a
// number behind it. It clears away what was left in the others.
func openAnyWorkplace(target string) (mine *workplace, err error) {
	for i := range maxAtOnce {
		name := target
		if i > 0 {
			name = fmt.Sprintf("%s.%d", target, i+1)
		}
		if _, err := os.Lstat(lockOf(name)); mine != nil && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		w, err := openWorkplace(name)
		switch {
		case errors.Is(err, ErrTarget):
		case err != nil && mine != nil:
			mine.close()
			return nil, err
		case err != nil:
			return nil, err
		case mine == nil:
			mine = w
		default:
			w.close()
		}
	}
	if mine == nil {
		return nil, fmt.Errorf("%w: %d processes make %s already (wait for one of them)", ErrTarget, maxAtOnce, target)
	}
	return mine, nil
}

// begin makes an empty image. It is a new file: a program of a process that was
// killed may still write to the one before.
func (w *workplace) begin(size int64) error {
	w.clear()
	f, err := os.OpenFile(w.image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// script makes an empty file of commands.
func (w *workplace) script() (*os.File, error) { return os.Create(w.commands) }

func (w *workplace) clear() {
	for _, path := range []string{w.image, w.converted, w.commands} {
		_ = os.Remove(path) // it may not be there; if it cannot be removed, begin says so
	}
}

// close removes what is not the image. The lock goes last.
func (w *workplace) close() {
	w.clear()
	_ = os.Remove(w.folder)
	_ = w.lock.Remove() // the next to make this image takes it over
}
