//go:build linux

package guest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// permissions are those of a mode that a file is made with; all are those that chmod(2)
// sets.
const (
	permissions = 0o777
	all         = 0o7777
)

// object is a file that was made. A descriptor takes the kernel less time than a name.
type object struct {
	fd   int // -1 if it is not open
	at   int // its folder, or itself
	name string
}

// attributes gives a file its owner, extended attributes, mode and times. The order
// matters: a new owner takes setuid bits and capabilities, and an ACL changes the mode.
func (t *tree) attributes(o object, f *wire.File) error {
	soft := func(what string, err error) error {
		if err == nil {
			return nil
		}
		return t.soft(ownName(f), fmt.Errorf("%s: %w", what, err))
	}
	if len(t.folders) == 1 || f.UID != 0 || f.GID != 0 {
		if err := soft("owner", o.chown(int(f.UID), int(f.GID))); err != nil {
			return err
		}
	}
	for _, x := range f.Xattrs {
		err := o.setXattr(string(x.Name), x.Value)
		if err == nil {
			continue
		}
		// Not ENOSPC, which is also the word for an attribute that is too large.
		if err := t.warn(t.path(ownName(f)), fmt.Errorf("attribute %q: %w", x.Name, err)); err != nil {
			return err
		}
	}
	special := f.Mode&(all&^permissions) != 0
	if f.Type() != disk.ModeSymlink && (special || len(f.Xattrs) > 0 || len(t.folders) == 1 || t.subvolume(f)) {
		if err := soft("mode", o.chmod(f.Mode&all)); err != nil {
			return err
		}
	}
	return soft("times", o.setTimes(timespec(f.Access), timespec(f.Modify)))
}

func (o object) chown(uid, gid int) error {
	if o.fd >= 0 {
		return unix.Fchown(o.fd, uid, gid)
	}
	return unix.Fchownat(o.at, o.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (o object) chmod(mode uint32) error {
	if o.fd >= 0 {
		return unix.Fchmod(o.fd, mode)
	}
	return unix.Fchmodat(o.at, o.name, mode, 0)
}

func (o object) setXattr(name string, value []byte) error {
	if o.fd >= 0 {
		return unix.Fsetxattr(o.fd, name, value, 0)
	}
	// Linux has no setxattrat before 6.13.
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", o.at, o.name), name, value, 0)
}

func (o object) setTimes(access, modify unix.Timespec) error {
	times := []unix.Timespec{access, modify}
	if o.fd >= 0 {
		return unix.UtimesNanoAt(o.fd, "", times, unix.AT_EMPTY_PATH)
	}
	return unix.UtimesNanoAt(o.at, o.name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// ownName is the name that an error tells. A folder gets its attributes when it is open
// itself, and is the place where things are.
func ownName(f *wire.File) []byte {
	if f.Type() == disk.ModeDir {
		return nil
	}
	return f.Name
}

func timespec(t disk.Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

// maxFlagged is how many files with flags are remembered.
const maxFlagged = 1 << 20

// flagged is what gets flags when everything else is done: what is immutable takes no
// further name, and nothing new in it.
type flagged struct {
	handle unix.FileHandle
	path   []byte
	bits   int
}

// noteFlags remembers the flags of a file.
func (t *tree) noteFlags(o object, f *wire.File) error {
	bits := f.Flags.Settable()
	if kind := f.Type(); bits == 0 || kind != disk.ModeRegular && kind != disk.ModeDir {
		return nil
	}
	if len(t.flagged) == maxFlagged {
		return t.warn(t.path(ownName(f)), fmt.Errorf("flags of more than %d files are left out", maxFlagged))
	}
	handle, _, err := unix.NameToHandleAt(o.at, o.name, 0)
	if err != nil {
		return t.failed(ownName(f), fmt.Errorf("remember a file with flags: %w", err))
	}
	t.flagged = append(t.flagged, flagged{handle, t.path(ownName(f)), bits})
	return nil
}

// setFlags sets the flags that were noted.
func (t *tree) setFlags() error {
	for _, f := range t.flagged {
		if err := t.setFlagsOf(f); err != nil {
			if err := t.soften(f.path, fmt.Errorf("flags: %w", err)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tree) setFlagsOf(f flagged) error {
	fd, err := unix.OpenByHandleAt(t.root, f.handle, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	was, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(was)|f.bits)
}
