package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testguest"
)

// kernelWorld is all that the kernel says of a filesystem that lies at an offset in an
// image.
func kernelWorld(t *testing.T, path string, offset int64) []string {
	t.Helper()
	dir := t.TempDir()
	tool(t, "mount", "-o", fmt.Sprintf("loop,ro,offset=%d", offset), path, dir)
	defer unmount(t, dir)
	w := append(treetest.List(t, dir), treetest.Holes(t, dir)...)
	for i := range w {
		w[i] = sgi.ReplaceAllString(w[i], "")
	}
	return append(w, treetest.Flags(t, dir)...)
}

// scattered makes a file whose pieces lie so apart that an inode has no room to say where.
func scattered(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for i := range 700 {
		_, err := f.WriteAt([]byte(strings.Repeat(fmt.Sprintf("piece %d. ", i), 1000)), int64(i)*40000+100)
		must(t, err)
	}
	must(t, f.Sync())
}

// treeDisk makes an image with a filesystem that has a tree of everything.
func treeDisk(t *testing.T, fstype, path string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	tool(t, "truncate", "-s", "400M", path)
	tool(t, "mkfs."+fstype, append([]string{"-q", "-L", "a label", path}, args...)...)
	tool(t, "mount", "-o", "loop", path, dir)
	treetest.MakeIn(t, dir, treetest.Without{LargeMinors: true})
	treetest.Extreme(t, dir)
	scattered(t, filepath.Join(dir, "scattered"))
	must(t, os.WriteFile(filepath.Join(dir, "large"), []byte(strings.Repeat("large.", 3<<20)), 0o600))
	unmount(t, dir)
}

// TestDisksOfFilesThatAMachineWrites: an XFS, and a btrfs in a partition, of which the
// backup has the files are disks, as their own programs and the kernel see them. Several
// may be made at once, and nothing is left of them.
func TestDisksOfFilesThatAMachineWrites(t *testing.T) {
	h := newHost(t)
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
writer: {kernel: %[2]s/vmlinuz, modules: %[3]s, accelerator: tcg}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      pool: {path: %[1]s/pool.raw, format: raw, mount: /pool}
      tree: {path: %[1]s/tree.raw, format: raw, mount: /tree, partition: 1}
`, h.dir, testguest.KernelFolder(t), testguest.ModulesFolder(t)), 0o600))
	const partition = 1 << 20
	treeDisk(t, "xfs", h.path("pool.raw"))
	part := filepath.Join(t.TempDir(), "part.raw")
	treeDisk(t, "btrfs", part)
	tool(t, "truncate", "-s", "402M", h.path("tree.raw"))
	tool(t, "sgdisk", "-n", "1:2048:+400M", h.path("tree.raw"))
	tool(t, "dd", "if="+part, "of="+h.path("tree.raw"), "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}

	// Two of the btrfs at once.
	made := map[string]string{}
	var wait sync.WaitGroup
	for _, name := range []string{"pool", "tree", "tree again"} {
		disk, _, _ := strings.Cut(name, " ")
		made[name] = filepath.Join(t.TempDir(), disk)
		f, err := os.Create(made[name])
		must(t, err)
		defer f.Close()
		c := h.command(t.Context(), "cat", "--raw", "web/"+disk+"@latest")
		var errs strings.Builder
		c.Stdout, c.Stderr = f, &errs
		must(t, c.Start())
		wait.Go(func() {
			if err := c.Wait(); err != nil || errs.Len() > 0 {
				t.Errorf("%s: %v, %s", name, err, errs.String())
			}
		})
	}
	wait.Wait()
	tool(t, "xfs_repair", "-n", made["pool"])
	again := filepath.Join(t.TempDir(), "again")
	tool(t, "dd", "if="+made["tree"], "of="+again, "bs=1M", "skip=1", "count=400", "conv=sparse", "status=none")
	tool(t, "btrfs", "check", "--check-data-csum", again)
	for name, offset := range map[string]int64{"pool": 0, "tree": partition, "tree again": partition} {
		disk, _, _ := strings.Cut(name, " ")
		if a, b := identity(t, h.path(disk+".raw"), "raw"), identity(t, made[name], "raw"); a != b {
			t.Errorf("%s is %s, and was %s", name, b, a)
		}
		treetest.Compare(t, kernelWorld(t, made[name], offset), kernelWorld(t, h.path(disk+".raw"), offset))
	}
	if left, err := os.ReadDir(h.path("state", "work")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
