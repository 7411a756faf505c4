//go:build linux

package testmount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Loop makes a loop device of a part of a file until the test ends or [Detach] is called;
// length 0 is all the rest. Options are those of losetup(8).
func Loop(t testing.TB, path string, off, length int64, options ...string) (device string) {
	t.Helper()
	args := append([]string{"--find", "--show", "--offset", fmt.Sprint(off)}, options...)
	if length > 0 {
		args = append(args, "--sizelimit", fmt.Sprint(length))
	}
	args = append(args, path)
	for try := 1; ; try++ { // another process may take the same free device first
		out, err := exec.Command("losetup", args...).CombinedOutput()
		if err == nil {
			device = strings.TrimSpace(string(out))
			break
		}
		if try == 20 {
			t.Fatalf("losetup %q: %v\n%s", args, err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	file := backing(device)
	t.Cleanup(func() {
		if backing(device) == file { // and not given back, and somebody else's
			Detach(t, device)
		}
	})
	forget(t, device)
	return device
}

// Detach gives a loop device back.
func Detach(t testing.TB, device string) {
	t.Helper()
	file := backing(device)
	free := func() error {
		if backing(device) == file {
			return unix.EBUSY
		}
		return nil
	}
	await(t, "give back "+device, func() error { return unheld(device) }, func() []string { return users(device) })
	// Whoever closes it last may have done so already.
	if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil && free() != nil {
		t.Fatalf("losetup --detach %s: %v\n%s", device, err, out)
	}
	await(t, "give back "+device, free, func() []string { return users(device) })
}

// backing is what a loop device is made of, and empty if it is made of nothing.
func backing(device string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	if err != nil {
		return ""
	}
	file, _ := strings.CutSuffix(strings.TrimSpace(string(text)), " (deleted)")
	return file
}

// forget has the kernel forget what btrfs was on a device of this name. Of one that has
// several devices it remembers them when it is unmounted, and it would take another
// filesystem that comes to lie on such a device for a part of it.
func forget(t testing.TB, device string) {
	t.Helper()
	control, err := os.Open("/dev/btrfs-control")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return // this kernel has not seen a btrfs yet
	}
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	const forgetDevice = 0x50009405 // BTRFS_IOC_FORGET_DEV in linux/btrfs.h
	var args struct {
		fd   int64
		name [4088]byte
	}
	copy(args.name[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), forgetDevice, uintptr(unsafe.Pointer(&args))); errno != 0 && errno != unix.ENOENT {
		t.Fatalf("forget what was on %s: %v", device, errno)
	}
}
