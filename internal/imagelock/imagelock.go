// Package imagelock takes and probes the locks that QEMU keeps on disk images,
// so that QEMU refuses to start on a disk that drydock works on, and drydock
// refuses to touch one that a QEMU holds.
//
// QEMU (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE) keeps
// open-file-description locks on single bytes of the image file, always shared
// ones. There is one byte for each permission that a user of the file has, and
// one for each that it does not share with others:
//
//	byte  100+n   somebody has permission n
//	byte  200+n   somebody does not let others have permission n
//
//	n = 0   read, and see consistent data
//	n = 1   write
//	n = 2   write without changing what a guest sees
//	n = 3   resize
//
// Whoever opens an image locks its bytes first and then asks, with F_OFD_GETLK
// for an exclusive lock, whether somebody holds a byte that stands against it.
// The locks say nothing about the file's content and need not exist in it.
//
// [Acquire] holds such locks on an open file, for as long as the file is open.
// [InUse] asks without taking any. Both work on Linux and on filesystems with
// OFD locks only. The locks are advisory: they keep out QEMU, qemu-img, other
// runs of drydock and all who ask.
package imagelock

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The first bytes of the two ranges.
const (
	permBase   = 100
	sharedBase = 200
)

// permission is a set of QEMU's permissions, as bit n of BLK_PERM_*.
type permission uint8

const (
	permRead permission = 1 << iota
	permWrite
	permWriteUnchanged
	permResize

	permCount = 4
	permAll   = permRead | permWrite | permWriteUnchanged | permResize
)

// Mode says what the holder of a lock does with the image, and what others may
// do meanwhile.
type Mode uint8

// The modes.
const (
	// Exclusive is for changing the image: nobody else may open it, other than
	// by force (qemu-img -U).
	Exclusive Mode = iota
	// ReadShared is for reading an image that must not change: others may read
	// it too, and nobody may write.
	ReadShared
)

func (m Mode) String() string {
	if m == Exclusive {
		return "exclusive"
	}
	return "shared for reading"
}

// permissions returns what a holder in mode m has, and what it denies others.
func (m Mode) permissions() (have, deny permission) {
	if m == Exclusive {
		return permAll, permAll
	}
	return permRead, permWrite | permWriteUnchanged | permResize
}

// ErrInUse is in the chain of an [InUseError].
var ErrInUse = errors.New("the disk image is in use")

// InUseError says that somebody uses an image in a way that stands against
// what was asked.
type InUseError struct {
	Path string
	By   string // "process 4711 (qemu-system-x86)"; empty if it cannot be told
}

func (e *InUseError) Error() string {
	if e.By == "" {
		return fmt.Sprintf("%s: %v (another process holds QEMU's lock on it: stop the VM that it belongs to)", e.Path, ErrInUse)
	}
	return fmt.Sprintf("%s: %v by %s (stop the VM that it belongs to)", e.Path, ErrInUse, e.By)
}

func (e *InUseError) Unwrap() error { return ErrInUse }

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// Acquire locks f, which must be open for reading, in mode m. The lock belongs
// to the open file: processes that inherit the descriptor hold it too, and it
// is gone when the last of them has closed it, or died. The error is an
// [InUseError] where another open of the same file stands against it; Acquire
// never waits.
func Acquire(f *os.File, m Mode) (*Lock, error) {
	have, deny := m.permissions()
	if err := lockBytes(f, have, deny); err != nil {
		return nil, errors.Join(err, unlock(f))
	}
	against, err := conflict(f, have, deny)
	if err == nil && !against {
		return &Lock{file: f}, nil
	}
	if err == nil {
		err = &InUseError{Path: f.Name(), By: holder(f)}
	}
	return nil, errors.Join(err, unlock(f))
}

// Release gives the lock up and leaves the file open. Closing the file does the
// same.
func (l *Lock) Release() error { return unlock(l.file) }

// Use is how an image is used at the moment.
type Use struct {
	Read  bool // somebody reads it
	Write bool // somebody may write to it, or resize it
	// Denied: somebody does not let others read it.
	Denied bool
	// By is "process 4711 (qemu-system-x86)", or empty if it cannot be told.
	By string
}

// Any reports whether somebody uses the image at all.
func (u Use) Any() bool { return u.Read || u.Write || u.Denied }

// InUse reports how the image at path is used by others at this moment,
// without taking a lock. Opens of this process count as others.
func InUse(path string) (Use, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Use{}, fmt.Errorf("ask who uses a disk image: %w", err)
	}
	defer f.Close()
	var held [2][permCount]bool
	for n := range permCount {
		for i, base := range []int64{permBase, sharedBase} {
			if held[i][n], err = isHeld(f, base+int64(n)); err != nil {
				return Use{}, err
			}
		}
	}
	u := Use{Read: held[0][0], Write: held[0][1] || held[0][2] || held[0][3], Denied: held[1][0]}
	if u.Any() {
		u.By = holder(f)
	}
	return u, nil
}

// lockBytes takes the bytes for having and for denying permissions.
func lockBytes(f *os.File, have, deny permission) error {
	for n := range permCount {
		for _, want := range []struct {
			set  permission
			base int64
		}{{have, permBase}, {deny, sharedBase}} {
			if want.set&(1<<n) == 0 {
				continue
			}
			lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: want.base + int64(n), Len: 1}
			if err := fcntl(f, unix.F_OFD_SETLK, &lk); err != nil {
				return fmt.Errorf("lock the disk image %s: %w", f.Name(), err)
			}
		}
	}
	return nil
}

// conflict reports whether somebody denies what we have, or has what we deny.
func conflict(f *os.File, have, deny permission) (bool, error) {
	for n := range permCount {
		for _, against := range []struct {
			set  permission
			base int64
		}{{have, sharedBase}, {deny, permBase}} {
			if against.set&(1<<n) == 0 {
				continue
			}
			held, err := isHeld(f, against.base+int64(n))
			if held || err != nil {
				return held, err
			}
		}
	}
	return false, nil
}

// isHeld reports whether another open of the file holds a lock on the byte at
// off.
func isHeld(f *os.File, off int64) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: 1}
	if err := fcntl(f, unix.F_OFD_GETLK, &lk); err != nil {
		return false, fmt.Errorf("ask for the locks of the disk image %s: %w", f.Name(), err)
	}
	return lk.Type != unix.F_UNLCK, nil
}

func unlock(f *os.File) error {
	for _, base := range []int64{permBase, sharedBase} {
		lk := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart, Start: base, Len: permCount}
		if err := fcntl(f, unix.F_OFD_SETLK, &lk); err != nil {
			return fmt.Errorf("unlock the disk image %s: %w", f.Name(), err)
		}
	}
	return nil
}

// fcntl keeps f open during the call and repeats it when a signal interrupts.
func fcntl(f *os.File, cmd int, lk *unix.Flock_t) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var call error
	err = raw.Control(func(fd uintptr) {
		for {
			if call = unix.FcntlFlock(fd, cmd, lk); !errors.Is(call, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, call)
}
