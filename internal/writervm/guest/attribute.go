//go:build linux

package guest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// attributes gives a file its owner, extended attributes, mode and times. The order
// matters: a new owner takes setuid bits and capabilities, and an ACL changes the mode.
func (t *tree) attributes(at int, name string, f *wire.File) error {
	told := ownName(f)
	if err := unix.Fchownat(at, name, int(f.UID), int(f.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err := t.soft(told, fmt.Errorf("owner: %w", err)); err != nil {
			return err
		}
	}
	for _, x := range f.Xattrs {
		// Linux has no setxattrat before 6.13.
		err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", at, name), string(x.Name), x.Value, 0)
		if err == nil {
			continue
		}
		// Not ENOSPC, which is also the word for an attribute that is too large.
		if err := t.warn(t.path(told), fmt.Errorf("attribute %q: %w", x.Name, err)); err != nil {
			return err
		}
	}
	if f.Type() != disk.ModeSymlink {
		const permissions = 0o7777
		if err := unix.Fchmodat(at, name, f.Mode&permissions, 0); err != nil {
			if err := t.soft(told, fmt.Errorf("mode: %w", err)); err != nil {
				return err
			}
		}
	}
	times := []unix.Timespec{timespec(f.Access), timespec(f.Modify)}
	if err := unix.UtimesNanoAt(at, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return t.soft(told, fmt.Errorf("times: %w", err))
	}
	return nil
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

// flagBits are the flags of chattr(1) that can be set, as FS_IOC_SETFLAGS has them
// (include/uapi/linux/fs.h).
var flagBits = map[disk.InodeFlags]int{disk.FlagImmutable: 0x10, disk.FlagAppend: 0x20, disk.FlagNoDump: 0x40}

// flagged is what gets flags when everything else is done: what is immutable takes no
// further name, and nothing new in it.
type flagged struct {
	handle unix.FileHandle
	path   []byte
	bits   int
}

// noteFlags remembers the flags of a file.
func (t *tree) noteFlags(at int, name string, f *wire.File) error {
	bits := 0
	for flag, bit := range flagBits {
		if f.Flags&flag != 0 {
			bits |= bit
		}
	}
	if kind := f.Type(); bits == 0 || kind != disk.ModeRegular && kind != disk.ModeDir {
		return nil
	}
	handle, _, err := unix.NameToHandleAt(at, name, 0)
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
			err = fmt.Errorf("flags: %w", err)
			if fatal(err) {
				return err
			}
			if err := t.warn(f.path, err); err != nil {
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
