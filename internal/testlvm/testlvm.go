// Package testlvm runs the tools of LVM2 on the disks of tests, on hosts whose kernel
// need not have a device mapper.
package testlvm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testmount"
)

// LVM runs the tools of LVM2 on devices of a test, and on no others. The kernel
// need not have a device mapper: volumes are made but never activated.
type LVM struct {
	t   testing.TB
	dir string // LVM_SYSTEM_DIR
}

// New lets the tools see the given block devices.
func New(t testing.TB, devices ...string) *LVM {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("LVM's tools work for root only: run this test as root")
	}
	dir := t.TempDir()
	var filter strings.Builder
	for _, d := range devices {
		fmt.Fprintf(&filter, `"a|^%s$|", `, d)
	}
	config := fmt.Sprintf(`devices { pv_min_size=512 use_devicesfile=0 global_filter=[%s"r|.*|"] obtain_device_list_from_udev=0 external_device_info_source="none" md_component_detection=0 multipath_component_detection=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
global { use_lvmpolld=0 use_lvmlockd=0 event_activation=0 locking_dir=%q }
backup { backup=0 archive=0 }
`, filter.String(), filepath.Join(dir, "lock"))
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return &LVM{t: t, dir: dir}
}

// Run runs one command, such as "vgcreate", and returns its standard output.
func (l *LVM) Run(command string, args ...string) string {
	l.t.Helper()
	cmd := exec.Command("lvm", append([]string{command, "--driverloaded", "n"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SYSTEM_DIR="+l.dir, "LVM_SUPPRESS_FD_WARNINGS=1", "DM_DISABLE_UDEV=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("lvm %s %q: %v\n%s%s", command, args, err, out.Bytes(), errs.Bytes())
	}
	return out.String()
}

// Create makes a volume, without touching its content.
func (l *LVM) Create(args ...string) {
	l.t.Helper()
	l.Run("lvcreate", append([]string{"-an", "-Zn", "-Wn", "-y"}, args...)...)
}

// Number returns a number that a reporting command prints of one thing, in bytes:
// of "pvs" the "pe_start", of "lvs" the "lv_size".
func (l *LVM) Number(command, field, of string) int64 {
	l.t.Helper()
	text := strings.TrimSpace(l.Run(command, "--noheadings", "--units", "b", "--nosuffix", "-o", field, of))
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		l.t.Fatalf("lvm %s -o %s: %v", command, field, err)
	}
	return n
}

// Volume makes a GPT with one partition on the disk at path, a volume group in that
// and one linear volume in it, and returns a loop device of the volume's bytes.
func Volume(t testing.TB, path, group, name string) string {
	t.Helper()
	const (
		first       = 2048 * 512 // bytes
		backupTable = 33 * 512   // of the GPT, at the end of the disk
	)
	if out, err := exec.Command("sgdisk", "-n", "1:2048:0", "-t", "1:8e00", path).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	partition := testmount.Loop(t, path, first, info.Size()-first-backupTable)
	l := New(t, partition)
	l.Run("pvcreate", "-y", partition)
	l.Run("vgcreate", group, partition)
	l.Create("-l", "100%FREE", "-n", name, group)
	start, size := l.Number("pvs", "pe_start", partition), l.Number("lvs", "lv_size", group+"/"+name)
	testmount.Detach(t, partition)
	return testmount.Loop(t, path, first+start, size)
}
