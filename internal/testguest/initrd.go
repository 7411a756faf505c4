//go:build linux

package testguest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// initScript is the init of the initrd: it finds the volume group, and goes on with
// the init of the root filesystem that is in it.
const initScript = `#!/bin/busybox sh
export PATH=/bin LVM_SYSTEM_DIR=/etc/lvm LVM_SUPPRESS_FD_WARNINGS=1 DM_DISABLE_UDEV=1
busybox mkdir -p /proc /sys /dev /root /run/lock
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox insmod /dm-mod.ko
lvm vgchange --sysinit --activate y %[1]s
lvm vgmknodes
busybox mount -o ro /dev/%[1]s/%[2]s /root && exec busybox switch_root /root /init
echo testguest: no root filesystem
busybox poweroff -f
`

// lvmConfig lets LVM do without the daemons that an initrd has not.
const lvmConfig = `devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
global { use_lvmpolld=0 use_lvmlockd=0 event_activation=0 locking_dir="/run/lock" }
backup { backup=0 archive=0 }
`

// OnVolume has a guest find its root filesystem in the volume of a group, which Debian's
// LVM activates in an initrd that is made here. The disk is for the caller to make. It
// returns the initrd, which the guest's command names.
func (g *Guest) OnVolume(t testing.TB, group, volume string) (initrd string) {
	t.Helper()
	tree := t.TempDir()
	for _, folder := range []string{"bin", "etc/lvm"} {
		if err := os.MkdirAll(filepath.Join(tree, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "/bin/busybox", filepath.Join(tree, "bin/busybox"), 0o755)
	copyFile(t, filepath.Join(moduleFolder(t), "drivers/md/dm-mod.ko"), filepath.Join(tree, "dm-mod.ko"), 0o644)
	copyProgram(t, "/sbin/lvm", tree, "bin/lvm")
	for name, text := range map[string]string{"init": fmt.Sprintf(initScript, group, volume), "etc/lvm/lvm.conf": lvmConfig} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	initrd = strings.TrimSuffix(g.RootPath, ".root.raw") + ".initrd"
	run(t, "sh", "-c", `cd "$0" && find . | cpio --quiet -o -H newc | gzip -1 > "$1"`, tree, initrd)
	for i, arg := range g.Command {
		g.Command[i] = strings.Replace(arg, "root=/dev/nvme0n1 ro init=/init", "rdinit=/init", 1)
	}
	g.Command = append(g.Command, "-initrd", initrd)
	return initrd
}

// library is a line of ldd's that names a file.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// copyProgram copies a program, with the libraries that it takes, into a tree.
func copyProgram(t testing.TB, from, tree, to string) {
	t.Helper()
	copyFile(t, from, filepath.Join(tree, to), 0o755)
	list, err := exec.Command("ldd", from).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v (scripts/install-deps test installs what the tests need)", from, err)
	}
	for _, found := range library.FindAllStringSubmatch(string(list), -1) {
		at := filepath.Join(tree, found[1])
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, found[1], at, 0o755)
	}
}
