package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testguest"
)

// newImageHost is a host with a backup of a tree, whose images are written by a machine
// that boots the guests' kernel. KVM is not tried: it hangs where tests run.
func newImageHost(t *testing.T, src string) *host {
	t.Helper()
	h := newHost(t)
	modules, err := filepath.Glob(testguest.KernelFolder(t) + "/lib/modules/*/modules.dep")
	if err != nil || len(modules) != 1 {
		t.Fatalf("the guests' kernel: %v, %v (run scripts/install-deps test)", modules, err)
	}
	text := fmt.Sprintf(`state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
writer: {kernel: %[2]s/vmlinuz, modules: %[3]s, accelerator: tcg}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      root: {path: %[1]s/root.raw, format: raw, mount: /}
`, h.dir, testguest.KernelFolder(t), filepath.Dir(modules[0]))
	must(t, os.WriteFile(h.config, []byte(text), 0o600))
	must(t, os.MkdirAll(h.path("state"), 0o700))
	must(t, os.WriteFile(h.path("state", "repository.key"), []byte("secret\n"), 0o600))
	h.restic("init")
	c := exec.CommandContext(t.Context(), "restic", "--no-cache", "-r", h.where, "--password-file", h.path("state", "repository.key"),
		"backup", "-q", "--host", "web", "--tag", "drydock", "--tag", "disk:root=/", ".")
	c.Dir = src
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("restic backup: %v\n%s", err, out)
	}
	return h
}

// asMounted mounts an image as the host's kernel sees it.
func asMounted(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro", path, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// sgi are the ACLs that are listed already, as XFS has them.
var sgi = regexp.MustCompile(` trusted\.SGI_ACL_[A-Z]+="(\\.|[^"\\])*"`)

// TestRestoreToImagesThatAMachineWrites: what people put into a tree comes into an XFS
// and a btrfs, and nothing is left beside them.
func TestRestoreToImagesThatAMachineWrites(t *testing.T) {
	// restic 0.14 has no word for what the tree is without.
	src := treetest.Make(t, treetest.Without{SymlinkXattrs: true, OddTargets: true, Sockets: true, LargeMinors: true})
	h, want := newImageHost(t, src), treetest.List(t, src)
	for fstype, check := range map[string][]string{"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check"}} {
		t.Run(fstype, func(t *testing.T) {
			h := *h
			h.t = t
			dir := t.TempDir()
			path := filepath.Join(dir, "new, image.raw")
			r := h.run(0, "restore", "web@latest", "--to-image", path, "--fs", fstype, "--size", "400M")
			if !strings.Contains(r.stdout, fstype+" of 400.0 MiB") || r.stderr != "" {
				t.Errorf("%q, %q", r.stdout, r.stderr)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("something is left behind: %v, %v", left, err)
			}
			if out, err := exec.Command(check[0], append(check[1:], path)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", check[0], err, out)
			}
			got := treetest.List(t, asMounted(t, path))
			for i := range got {
				got[i] = sgi.ReplaceAllString(got[i], "")
			}
			treetest.Compare(t, got, want)
		})
	}
	if r := h.try("doctor"); strings.Count(r.stdout, testguest.KernelFolder(t)+"/vmlinuz") != 2 {
		t.Errorf("doctor does not find the kernel: %s", r.stdout)
	}
	if r := h.run(1, "restore", "web@latest", "--to-image", h.path("x.raw"), "--fs", "xfs", "--size", "400M", "--kernel", "/no/such/kernel"); !strings.Contains(r.stderr, "/no/such/kernel: no such file or directory (apt-get install ") {
		t.Errorf("%s", r.stderr)
	}
	if r := h.run(1, "restore", "web@latest", "--to-image", h.path("x.raw"), "--fs", "xfs", "--size", "200M"); !strings.Contains(r.stderr, "at least") {
		t.Errorf("%s", r.stderr)
	}
	h.run(2, "restore", "web@latest", "--to-image", h.path("x.raw"), "--fs", "xfs", "--size", "400M", "--modules", "/lib/modules/x")
}

// TestKilledMachineRestore: a restore that is killed while the machine writes takes the
// machine with it. The next one begins anew.
func TestKilledMachineRestore(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "large"), bytes.Repeat([]byte("content"), 16<<20), 0o600))
	h, dir := newImageHost(t, src), t.TempDir()
	args := []string{"restore", "web@latest", "--to-image", filepath.Join(dir, "new.raw"), "--fs", "btrfs", "--size", "300M"}
	c := h.command(t.Context(), args...)
	must(t, c.Start())
	var machine []int
	for deadline := time.Now().Add(2 * time.Minute); len(machine) == 0; time.Sleep(20 * time.Millisecond) {
		for _, pid := range children(c.Process.Pid) {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.HasPrefix(string(name), "qemu") {
				machine = append(machine, pid)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no machine is started")
		}
	}
	must(t, c.Process.Kill())
	_ = c.Wait() // it was killed
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", machine[0])); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the machine goes on")
		}
	}
	h.run(0, args...)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("something is left behind: %v, %v", left, err)
	}
}
