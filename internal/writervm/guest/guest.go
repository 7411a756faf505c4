//go:build linux

// Package guest is what runs in the machine of package writervm, as its first and only
// process: it mounts the filesystem on /dev/vda, writes what it is told over a serial
// port, unmounts, and powers the machine off.
//
// It supports what a backup has: names and targets of any bytes, paths of any length,
// owners, modes with setuid bits, times to the nanosecond, extended attributes with
// capabilities and ACLs, hardlinks, holes, devices, FIFOs, sockets, the flags a, d
// and i of chattr(1), and in btrfs subvolumes: read-only ones, and the default one.
//
// It promises to say what it could not make, and to say that it is done only when all
// is on the disk. What it is told was written by a hostile guest, but reaches nothing
// that it could harm: there is nothing in this machine but itself, and the disk that
// is made.
package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

const (
	// Verb is the first argument of a drydock that is process 1 of the machine. The
	// second is the type of the filesystem, and a third may be Hollow.
	Verb = "write-image"
	// Hollow says that content may be left out.
	Hollow = "hollow"
	// Modules is the folder of the modules that are loaded, in order of their names.
	Modules = "/modules"

	port      = "/dev/vport*p1" // there is one; the number is that of the virtio device
	device    = "/dev/vda"
	target    = "/image"
	statistic = "/sys/block/vda/stat"

	// deviceWait is how long a device may take to appear once its module is loaded.
	deviceWait  = 30 * time.Second
	devicePause = 10 * time.Millisecond
)

// Main is the whole life of process 1. It does not return.
func Main(args []string) {
	if err := run(args); err != nil {
		fmt.Println("drydock:", err) // on the machine's console
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("drydock: power off:", err)
	}
	select {} // the kernel panics when process 1 ends
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("the type of the filesystem is missing")
	}
	options := ""
	if slices.Contains(args[1:], Hollow) {
		options = hollowOptions[args[0]]
	}
	if err := prepare(); err != nil {
		return err
	}
	l, err := openLink()
	if err != nil {
		return err
	}
	if err := fill(l, args[0], options); err != nil {
		return errors.Join(err, l.failed(err))
	}
	return l.send(wire.Done)
}

// prepare makes the devices appear.
func prepare() error {
	for _, m := range []struct{ name, folder string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.folder, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.name, m.folder, m.name, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.folder, err)
		}
	}
	modules, err := filepath.Glob(Modules + "/*")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, path := range modules {
		if err := load(path); err != nil {
			return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
		}
	}
	unix.Umask(0)
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// await waits until a device is there, and returns its name.
func await(pattern string) (string, error) {
	for end := time.Now().Add(deviceWait); ; time.Sleep(devicePause) {
		found, err := filepath.Glob(pattern)
		switch {
		case err != nil:
			return "", err
		case len(found) > 0:
			return found[0], nil
		case time.Now().After(end):
			return "", fmt.Errorf("the device %s does not appear", pattern)
		}
	}
}

// fill mounts the filesystem, writes the tree, and brings all to the disk.
func fill(l *link, fstype, options string) error {
	if _, err := await(device); err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, target, fstype, unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount the new %s: %w", fstype, err)
	}
	if err := l.send(wire.Ready); err != nil {
		return err
	}
	stop := l.tellProgress()
	defer stop()
	if err := write(l, fstype); err != nil {
		return err
	}
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmount the new %s: %w", fstype, err)
	}
	return syncDevice()
}

// write writes the tree. Nothing is open when it returns.
func write(l *link, fstype string) error {
	root, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new filesystem: %w", err)
	}
	defer unix.Close(root)
	t := &tree{root: root, warn: l.warn, links: map[uint64]*linked{}, contents: map[uint64]unix.FileHandle{}, btrfs: fstype == "btrfs"}
	defer t.close()
	if err := t.read(l); err != nil {
		return err
	}
	if err := unix.Syncfs(root); err != nil {
		return fmt.Errorf("bring the files to the disk: %w", err)
	}
	return nil
}

// syncDevice reports what went wrong with writes of which no file knows.
func syncDevice() error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("bring the filesystem to the disk: %w", err)
	}
	return nil
}
