package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testsystemd"
)

// TestStartFromBackupUnbegun: what cannot have an image in its place is refused, and a
// start of which no disk was put leaves nothing that keeps rounds from the VM.
func TestStartFromBackupUnbegun(t *testing.T) {
	t.Parallel() // most of it is waiting
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

// TestStartFromBackupGoesOff: a VM that goes off as soon as it was healthy has disks that
// are not filled in. That is an error, which says so, and the same command goes on.
func TestStartFromBackupGoesOff(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	var stays atomic.Bool
	probed := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		pid, err := os.ReadFile(h.path("run", "vm", "web", "pid"))
		for !stays.Load() && err == nil && exec.Command("kill", "-9", strings.TrimSpace(string(pid))).Run() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}))
	defer probed.Close()
	disk := h.path("web.qcow2")
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64, -accel, tcg, -nodefaults, -drive, "file=%[2]s,format=qcow2,if=virtio"]
    shutdown_timeout: 1s
    health: {timeout: 5m, interval: 200ms, probes: [{http: %[3]q}]}
    disks:
      data: {path: %[2]s, format: qcow2, backup: image}
`, h.dir, disk, probed.URL), 0o600))
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", disk, "8M")
	tool(t, "qemu-io", "-c", "write -P 7 0 1M", disk)
	h.run(0, "run")

	r := h.run(1, "start-from-backup", "web")
	for _, want := range []string{"web is off, and its disks are not filled in", "drydock start-from-backup web"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in %s", want, r.stderr)
		}
	}
	// Without the record nobody knows on which backup it lies.
	folder := h.path("state", "from-backup", "web")
	must(t, os.Rename(folder, folder+".away"))
	if r := h.run(1, "start-from-backup", "web"); !strings.Contains(r.stderr, "disk data at "+disk+" is being filled in from a backup, and "+folder+" is gone") {
		t.Errorf("%s", r.stderr)
	}
	must(t, os.Rename(folder+".away", folder))
	stays.Store(true)
	h.run(0, "start-from-backup", "web")
	h.run(0, "stop", "--kill")
	tool(t, "qemu-io", "-c", "read -P 7 0 1M", disk)
	if info := tool(t, "qemu-img", "info", disk); strings.Contains(info, "backing") {
		t.Errorf("%s", info)
	}
}

// TestStartFromBackupAsUser: a VM that a unit of a real systemd runs as another user
// reaches the backup, and the disks are that user's.
func TestStartFromBackupAsUser(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	site, config := filepath.Join(dir, "site"), filepath.Join(dir, "drydock.yaml")
	must(t, os.Mkdir(site, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", Dir: site})
	tool(t, "cp", filepath.Join(testguest.KernelFolder(t), "vmlinuz"), site)
	for i, arg := range g.Command {
		if arg == "-kernel" {
			g.Command[i+1] = filepath.Join(site, "vmlinuz")
		}
	}
	tool(t, "chown", "-R", "nobody", site)
	sys := testsystemd.Start(t, testsystemd.Options{Bind: []string{dir, filepath.Dir(drydock)}, HostNetwork: true})
	sys.Write("/etc/systemd/system/web.service", unit(g, site)+"User=nobody\n")
	must(t, os.WriteFile(config, managedConfig(g, dir, "", fmt.Sprintf("    driver: systemd\n    unit: web.service\n    qmp: %s/web.qmp", site), ""), 0o600))
	run := func(args ...string) {
		t.Helper()
		sys.Run(drydock, append([]string{"--config", config}, args...)...)
	}
	sys.Run("systemctl", "daemon-reload")
	sys.Run("systemctl", "start", "web.service")
	healthy(t, g)
	must(t, g.Put(t.Context(), "/var/letter", []byte("of a user's VM")))
	must(t, g.Sync(t.Context()))
	run("run")
	for _, there := range []bool{true, false} {
		run("stop")
		if !there {
			must(t, os.Remove(g.DataPath))
		}
		run("start-from-backup", "web")
		if letter, err := g.Get(t.Context(), "/var/letter"); err != nil || string(letter) != "of a user's VM" {
			t.Errorf("the letter is %q, %v", letter, err)
		}
		if got := tool(t, "stat", "-c", "%U %a", g.DataPath); got != "nobody 644\n" {
			t.Errorf("the disk is %s", got)
		}
	}
}

// TestStartFromBackupRaw: of a VM with raw disks it is said what makes qcow2 disks of them,
// and with that it runs from its backup.
func TestStartFromBackupRaw(t *testing.T) {
	t.Parallel() // most of it is waiting
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataFormat: testguest.Raw})
	h, g := bootHostOf(t, g, "mount: /var", "raw", "backup: image")
	out := h.run(1, "start-from-backup", "web")
	for _, want := range []string{"set vms.web.disks.root.format and vms.web.disks.data.format to qcow2 in " + h.config, "in vms.web.command format=qcow2 for " + g.RootPath + " and " + g.DataPath} {
		if !strings.Contains(out.stderr, want) {
			t.Errorf("%q is not in %s", want, out.stderr)
		}
	}
	if left, err := filepath.Glob(h.path("state", "from-backup", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	text := strings.NewReplacer("format=raw", "format=qcow2", "format: raw", "format: qcow2").Replace(h.machine.String())
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
	h.run(0, "start-from-backup", "web")
	checkFilled(t, h, g, "")
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Errorf("the next night: %+v", r)
	}
}
