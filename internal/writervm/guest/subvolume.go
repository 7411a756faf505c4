//go:build linux

package guest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// What a btrfs is told (include/uapi/linux/btrfs.h).
const (
	subvolCreate   = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	snapDestroy    = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	subvolSetFlags = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	subvolDefault  = 0x40089413 // BTRFS_IOC_DEFAULT_SUBVOL
	inoLookup      = 0xd0009412 // BTRFS_IOC_INO_LOOKUP

	subvolReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
	firstFree      = 256    // BTRFS_FIRST_FREE_OBJECTID, the root of each subvolume
)

// namedArgs is struct btrfs_ioctl_vol_args.
type namedArgs struct {
	fd   int64
	name [4088]byte // ends with a NUL
}

// lookupArgs is struct btrfs_ioctl_ino_lookup_args.
type lookupArgs struct {
	tree, object uint64
	name         [4080]byte
}

func ioctl(fd int, request uint, args unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(args)); errno != 0 {
		return errno
	}
	return nil
}

// makeFolder makes a folder, or a subvolume where the filesystem has some.
func (t *tree) makeFolder(at int, f *wire.File) error {
	name := string(f.Name)
	switch {
	case !t.subvolume(f):
		return unix.Mkdirat(at, name, f.Mode&permissions)
	case t.stage.take(f.Subvolume):
		return unix.Renameat2(t.stage.fd, stagedName(f.Subvolume), at, name, unix.RENAME_NOREPLACE)
	}
	return subvolumeIoctl(at, subvolCreate, name)
}

// subvolumeIoctl makes or removes a subvolume in a folder.
func subvolumeIoctl(at int, request uint, name string) error {
	args := namedArgs{}
	if copy(args.name[:], name) == len(args.name) {
		return unix.ENAMETOOLONG
	}
	return ioctl(at, request, unsafe.Pointer(&args))
}

// subvolume reports whether a folder is made as a subvolume.
func (t *tree) subvolume(f *wire.File) bool {
	return t.btrfs && f.Type() == disk.ModeDir && f.Flags&disk.FlagSubvolume != 0
}

// noteSubvolume remembers what a subvolume becomes when all is written.
func (t *tree) noteSubvolume(fd int, f *wire.File) error {
	if !t.subvolume(f) || f.Flags&(disk.FlagReadOnly|disk.FlagDefault) == 0 {
		return nil
	}
	if f.Flags&disk.FlagDefault != 0 {
		var err error
		if t.chosen, err = numberOf(fd); err != nil {
			return t.soft(nil, err)
		}
	}
	if f.Flags&disk.FlagReadOnly == 0 {
		return nil
	}
	if len(t.readOnly) == maxFlagged {
		return t.warn(t.path(nil), fmt.Errorf("it is not read-only: that more than %d subvolumes are is not kept", maxFlagged))
	}
	handle, _, err := unix.NameToHandleAt(fd, ".", 0)
	if err != nil {
		return t.failed(nil, fmt.Errorf("remember a subvolume that is read-only: %w", err))
	}
	t.readOnly = append(t.readOnly, flagged{handle: handle, path: t.path(nil)})
	return nil
}

// numberOf returns the number of the subvolume that a folder is in.
func numberOf(fd int) (uint64, error) {
	args := lookupArgs{object: firstFree}
	if err := ioctl(fd, inoLookup, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("find the number of a subvolume: %w", err)
	}
	return args.tree, nil
}

// finishSubvolumes makes those read-only that were, and one the default.
func (t *tree) finishSubvolumes() error {
	for _, s := range t.readOnly {
		if err := t.setReadOnly(s); err != nil {
			if err := t.soften(s.path, fmt.Errorf("make a subvolume read-only: %w", err)); err != nil {
				return err
			}
		}
	}
	if t.chosen == 0 {
		return nil
	}
	if err := ioctl(t.root, subvolDefault, unsafe.Pointer(&t.chosen)); err != nil {
		return t.soften(nil, fmt.Errorf("choose the default subvolume: %w", err))
	}
	return nil
}

func (t *tree) setReadOnly(s flagged) error {
	fd, err := unix.OpenByHandleAt(t.root, s.handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags := uint64(subvolReadOnly)
	return ioctl(fd, subvolSetFlags, unsafe.Pointer(&flags))
}
