//go:build linux

package qmp_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// TestFillIsWhole: when an image lies on nothing any more, all of it is in its file, also
// the tables that QEMU keeps in memory until the guest asks for a flush: a QEMU that is
// killed then leaves a whole disk, and not one of zeros.
func TestFillIsWhole(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "top.qcow2")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("qemu-img", "create", "-q", "-f", "qcow2", base, "64M")
	run("qemu-io", "-c", "write -P 7 0 48M", base)
	run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top, "64M")
	socket, _ := startQEMU(t, dir, "-S", "-drive", "if=virtio,format=qcow2,file="+top) // its guest flushes nothing
	for range 2 {
		if err := qmp.Fill(deadline(t), qmp.At(socket), top, func(_, _ int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	// What the file has now is what a kill would leave.
	if out := run("qemu-img", "info", "-U", top); strings.Contains(out, "backing") {
		t.Errorf("it lies on something: %s", out)
	}
	if out := run("qemu-io", "-U", "-r", "-c", "read -P 7 0 48M", top); strings.Contains(out, "failed") {
		t.Errorf("it has other content: %s", out)
	}
}
