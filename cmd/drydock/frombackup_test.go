package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/imagelock"
)

// TestStartFromBackupUnbegun: what cannot have an image in its place is refused, and a
// start of which no disk was put leaves nothing that keeps rounds from the VM.
func TestStartFromBackupUnbegun(t *testing.T) {
	h := retainHost(t)
	config := strings.Replace(retainConfig, "web.raw, format: raw, mount: /", "web.qcow2, format: qcow2, backup: image", 1)
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))
	disk := h.path("web.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", disk, "8M")
	tool(t, "qemu-io", "-c", "write -P 7 0 1M", disk)
	h.run(0, "run")

	left := func(why string) {
		t.Helper()
		if left, err := os.ReadDir(h.path("state", "from-backup")); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind are %v, %v", why, left, err)
		}
	}
	image, err := os.OpenFile(disk, os.O_RDWR, 0)
	must(t, err)
	defer image.Close()
	lock, err := imagelock.Acquire(image, imagelock.Exclusive)
	must(t, err)
	if r := h.run(1, "start-from-backup", "web"); !strings.Contains(r.stderr, imagelock.ErrInUse.Error()) {
		t.Errorf("in use: %s", r.stderr)
	}
	left("in use")
	must(t, lock.Release())
	h.run(0, "run")

	must(t, os.Rename(disk, disk+".away"))
	must(t, os.Mkdir(disk, 0o700)) // as little a file as a block device is
	if r := h.run(1, "start-from-backup", "web"); !strings.Contains(r.stderr, "disk data is no file") {
		t.Errorf("no file: %s", r.stderr)
	}
	left("no file")
	if _, err := os.Lstat(disk + ".from-backup"); err == nil {
		t.Error("an image was made")
	}
}
