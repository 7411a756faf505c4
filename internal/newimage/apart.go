package newimage

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// devices is the folder of this host's block devices, and known what libblkid remembers
// of images that it was shown.
const (
	devices = "/dev"
	known   = "/run/blkid"
)

// apart runs a program that does not see the block devices of this host. mkfs.btrfs
// makes nothing with a UUID that one of them has, and that is the disk that the backup is
// of, where a VM's disk is a logical volume.
func (m *maker) apart(name string, args ...string) error {
	result := make(chan error)
	go func() {
		// Never unlocked: the thread, which has mounts of its own, ends with this.
		runtime.LockOSThread()
		if err := m.hideDevices(); err != nil {
			result <- err
			return
		}
		// With an input: there is no /dev/null.
		result <- m.program(strings.NewReader(""), nil, name, args...)
	}()
	return <-result
}

// hideDevices takes the devices out of the sight of this thread.
func (m *maker) hideDevices() error {
	if abs, err := filepath.Abs(m.work.image); err != nil || strings.HasPrefix(abs, devices+"/") {
		return err // the image is there too
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); errors.Is(err, unix.EPERM) {
		return nil // in a container; UUIDs that are new are made all the same
	} else if err != nil {
		return err
	}
	// What the host unmounts meanwhile is unmounted here, too, and not kept busy.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	for _, folder := range []string{devices, known} {
		if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "size=1m,mode=700"); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
