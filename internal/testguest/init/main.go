//go:build linux

// Command init is process 1 of the test guest: it mounts what it needs, brings
// up the network, answers HTTP on port 80 and powers the machine off when the
// ACPI power button is pressed. Package testguest builds it into a root disk.
//
// What it supports is what drydock's tests ask of a guest: a root disk that
// carries no state (mounted read-only), a data disk on /var, one record in
// /var/boots per boot, and two kinds of misbehaviour that files on the root
// disk switch on: /etc/broken (the service never answers) and
// /etc/ignore-power-button.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// modules are loaded in this order, which is that of their dependencies.
var modules = []string{
	"button", "evdev",
	"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
	"failover", "net_failover", "virtio_net",
}

// variables is where those of UEFI are, on machines that have it.
const variables = "/sys/firmware/efi/efivars"

// mounts are made in this order, before that of the data disk.
var mounts = []struct{ source, target, fstype string }{
	{"proc", "/proc", "proc"},
	{"sysfs", "/sys", "sysfs"},
	{"devtmpfs", "/dev", "devtmpfs"},
	{"tmpfs", "/run", "tmpfs"},
}

// dataDisk is the second namespace of the one NVMe controller: its name does not depend
// on the order of discovery. Where there is none, the disk is on virtio.
const (
	dataDisk       = "/dev/nvme0n2"
	virtioDataDisk = "/dev/vda"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("testguest: failed:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("testguest: cannot power off:", err)
	}
	unix.Pause() // process 1 must not end: the kernel would panic
}

// run is the life of the guest, from its mounts to the pressed power button.
func run() error {
	for _, m := range mounts {
		err := unix.Mount(m.source, m.target, m.fstype, 0, "")
		if err != nil && err != unix.EBUSY { // the kernel may have mounted /dev
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	for _, name := range modules {
		if err := loadModule(name); err != nil {
			return err
		}
	}
	if err := mountData(); err != nil {
		return err
	}
	if exists("/sys/firmware/efi") {
		if err := mountVariables(); err != nil {
			return err
		}
	}
	if err := configureNetwork(); err != nil {
		return err
	}
	version, err := os.ReadFile("/etc/image-version")
	if err != nil {
		return err
	}
	if err := recordBoot(strings.TrimSpace(string(version))); err != nil {
		return err
	}
	pressed, err := watchPowerButton()
	if err != nil {
		return err
	}
	return serve(strings.TrimSpace(string(version)), pressed)
}

// mountData mounts the data disk as /etc/data says: the type of its filesystem, and the
// modules that it takes. Without one it is an ext4.
func mountData() error {
	text, err := os.ReadFile("/etc/data")
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte("ext4"), nil
	}
	if err != nil {
		return err
	}
	words := strings.Fields(string(text))
	if len(words) == 0 {
		return errors.New("/etc/data is empty")
	}
	for _, name := range words[1:] {
		if err := loadModule(name); err != nil {
			return err
		}
	}
	disk := dataDisk
	if !exists(disk) {
		disk = virtioDataDisk
	}
	if err := unix.Mount(disk, "/var", words[0], 0, ""); err != nil {
		return fmt.Errorf("mount %s on /var: %w", disk, err)
	}
	return nil
}

// serve answers until the power button is pressed, then puts the data disk
// away.
func serve(version string, pressed <-chan error) error {
	server := &http.Server{Addr: ":80", Handler: agent(version)}
	failed := make(chan error, 1)
	if exists("/etc/broken") {
		fmt.Println("testguest: broken", version)
	} else {
		go func() { failed <- server.ListenAndServe() }()
		fmt.Println("testguest: ready", version)
	}
	select {
	case err := <-failed:
		return err
	case err := <-pressed:
		if err != nil {
			return err
		}
	}
	fmt.Println("testguest: power button")
	deadline, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		fmt.Println("testguest: requests cut off:", err)
	}
	unix.Sync()
	if err := unix.Unmount("/var", 0); err != nil {
		return fmt.Errorf("unmount /var: %w", err)
	}
	fmt.Println("testguest: off")
	return nil
}

// mountVariables mounts the variables of UEFI, whose module is for machines alone that
// have it.
func mountVariables() error {
	if err := loadModule("efivarfs"); err != nil {
		return err
	}
	if err := unix.Mount("efivarfs", variables, "efivarfs", 0, ""); err != nil {
		return fmt.Errorf("mount the variables of UEFI: %w", err)
	}
	return nil
}

func loadModule(name string) error {
	file, err := os.Open(filepath.Join("/lib/modules", name+".ko"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return nil
}

// configureNetwork gives eth0 the one address that QEMU's user network
// forwards to.
func configureNetwork() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer unix.Close(socket)
	for _, set := range []struct {
		name    string
		request uint
		address []byte
	}{
		{"eth0", unix.SIOCSIFADDR, []byte{10, 0, 2, 15}},
		{"eth0", unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}},
		{"eth0", unix.SIOCSIFFLAGS, nil},
		{"lo", unix.SIOCSIFFLAGS, nil},
	} {
		request, err := unix.NewIfreq(set.name)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		if set.address == nil {
			request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		} else if err := request.SetInet4Addr(set.address); err != nil {
			return fmt.Errorf("network: %w", err)
		}
		if err := unix.IoctlIfreq(socket, set.request, request); err != nil {
			return fmt.Errorf("network: configure %s: %w", set.name, err)
		}
	}
	return nil
}

// recordBoot appends one line to /var/boots and brings it to the disk.
func recordBoot(version string) error {
	file, err := os.OpenFile("/var/boots", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := fmt.Fprintf(file, "%s %s\n", version, time.Now().UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	return file.Sync()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
