package disktest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// LVM runs the tools of LVM2 on devices of a test, and on no others. The kernel
// need not have a device mapper: volumes are made but never activated.
type LVM struct {
	t   testing.TB
	dir string // LVM_SYSTEM_DIR
}

// NewLVM lets the tools see the given block devices.
func NewLVM(t testing.TB, devices ...string) *LVM {
	t.Helper()
	RequireRoot(t)
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
