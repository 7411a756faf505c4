package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// newImageHost is a [newWriterHost] with a backup of a tree.
func newImageHost(t *testing.T, src string) *host {
	t.Helper()
	h := newWriterHost(t, `
      root: {path: DIR/root.raw, format: raw, mount: /}
`)
	must(t, os.MkdirAll(h.path("state"), 0o700))
	must(t, os.WriteFile(h.path("state", "repository.key"), []byte("secret\n"), 0o600))
	h.restic("init")
	backUp(h, src)
	return h
}

// backUp has restic store a folder as drydock would store the VM's tree.
func backUp(h *host, src string, tags ...string) {
	h.t.Helper()
	args := []string{"--no-cache", "-r", h.where, "--password-file", h.path("state", "repository.key"), "backup", "-q", "--host", "web", "."}
	for _, tag := range append([]string{"drydock", "disk:root=/"}, tags...) {
		args = append(args, "--tag", tag)
	}
	c := exec.CommandContext(h.t.Context(), "restic", args...)
	c.Dir = src
	if out, err := c.CombinedOutput(); err != nil {
		h.t.Fatalf("restic backup: %v\n%s", err, out)
	}
}

// packs are the files of the repository that have content in them.
func packs(h *host) []string {
	h.t.Helper()
	list, err := filepath.Glob(h.where + "/data/*/*")
	if err != nil || len(list) == 0 {
		h.t.Fatalf("%v, %v", list, err)
	}
	return list
}

// backUpDamaged adds a file to the backup whose content is damaged then.
func backUpDamaged(h *host, src, name string) {
	h.t.Helper()
	before, noise := packs(h), make([]byte, 20000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // has no error
	must(h.t, os.WriteFile(filepath.Join(src, name), noise, 0o600))
	backUp(h, src)
	hit := 0
	for _, path := range packs(h) {
		data, err := os.ReadFile(path)
		must(h.t, err)
		if slices.Contains(before, path) || len(data) < len(noise) {
			continue
		}
		data[100] ^= 1
		must(h.t, os.Chmod(path, 0o600))
		must(h.t, os.WriteFile(path, data, 0o600))
		hit++
	}
	if hit != 1 {
		h.t.Fatalf("%d packs were damaged, want 1", hit)
	}
}

// sgi are the ACLs that are listed already, as XFS has them.
var sgi = regexp.MustCompile(` trusted\.SGI_ACL_[A-Z]+="(\\.|[^"\\])*"`)

// TestRestoreToImagesThatAMachineWrites: what people put into a tree comes into an XFS
// and a btrfs, and nothing is left beside them.
func TestRestoreToImagesThatAMachineWrites(t *testing.T) {
	t.Parallel() // most of it is waiting
	// restic 0.14 has no word for what the tree is without.
	src := treetest.Make(t, treetest.Without{SymlinkXattrs: true, OddTargets: true, Sockets: true, LargeMinors: true})
	h, want := newImageHost(t, src), treetest.List(t, src)
	for fstype, check := range map[string][]string{"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check"}} {
		t.Run(fstype, func(t *testing.T) {
			h := *h
			h.t = t
			dir := t.TempDir()
			path := filepath.Join(dir, "new, image.raw")
			const uuid = "12345678-1234-5678-9abc-123456789abc"
			backUp(&h, src, fmt.Sprintf("fs:root=%s:%s:%d:a%%20label", fstype, strings.ReplaceAll(uuid, "-", ""), 400<<20))
			r := h.run(0, "restore", "web@latest", "--to-image", path)
			if !strings.Contains(r.stdout, fstype+" of 400.0 MiB") || r.stderr != "" {
				t.Errorf("%q, %q", r.stdout, r.stderr)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("something is left behind: %v, %v", left, err)
			}
			if out, err := exec.Command(check[0], append(check[1:], path)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", check[0], err, out)
			}
			if out, err := exec.Command("blkid", "-o", "export", path).CombinedOutput(); !strings.Contains(string(out), "UUID="+uuid+"\n") || !strings.Contains(string(out), "LABEL=a\\ label\n") {
				t.Errorf("%v, %s", err, out)
			}
			mounted, _ := testmount.Image(t, path, "ro")
			got := treetest.List(t, mounted)
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
// machine with it. The next one begins anew, and names the file that is damaged in the
// backup.
func TestKilledMachineRestore(t *testing.T) {
	t.Parallel() // most of it is waiting
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "large"), bytes.Repeat([]byte("content"), 16<<20), 0o600))
	h, dir := newImageHost(t, src), t.TempDir()
	backUpDamaged(h, src, "bad\x1b")
	args := []string{"restore", "web@latest", "--to-image", filepath.Join(dir, "new.raw"), "--fs", "btrfs", "--size", "300M"}
	c := h.command(t.Context(), args...)
	must(t, c.Start())
	machine := 0
	within(t, "a machine is started", func() bool {
		for _, pid := range children(c.Process.Pid) {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.HasPrefix(string(name), "qemu") {
				machine = pid
			}
		}
		return machine != 0
	})
	within(t, "it writes content", func() bool {
		st, err := os.Stat(filepath.Join(dir, ".new.raw.drydock-partial"))
		return err == nil && st.Sys().(*syscall.Stat_t).Blocks > 16<<20/512
	})
	must(t, c.Process.Kill())
	_ = c.Wait() // it was killed
	within(t, "the machine ends", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", machine))
		return err != nil
	})
	r := h.run(3, args...)
	if !strings.Contains(r.stderr, `drydock: /bad\u{1b}: `) || !strings.Contains(r.stderr, "0 files are not in the image as they are in the backup, and 1 could not be read") {
		t.Errorf("%s", r.stderr)
	}
	mounted, _ := testmount.Image(t, filepath.Join(dir, "new.raw"), "ro")
	if names, err := os.ReadDir(mounted); err != nil || len(names) != 1 || names[0].Name() != "large" {
		t.Errorf("there are %v, %v", names, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("something is left behind: %v, %v", left, err)
	}
}
