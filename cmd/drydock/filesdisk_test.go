package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// kernelWorld is all that the kernel says of a filesystem that lies at an offset in an
// image.
func kernelWorld(t *testing.T, path string, offset int64) []string {
	t.Helper()
	dir := t.TempDir()
	defer testmount.At(t, testmount.Loop(t, path, offset, 0, "--read-only"), dir, "-o", "ro")()
	w := append(treetest.List(t, dir), treetest.Holes(t, dir)...)
	if tool(t, "stat", "-f", "-c", "%T", dir) == "btrfs\n" {
		for line := range strings.Lines(tool(t, "btrfs", "subvolume", "list", dir)) {
			w = append(w, line[strings.Index(line, " path "):])
		}
	}
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
	tool(t, "truncate", "-s", "400M", path)
	tool(t, "mkfs."+fstype, append([]string{"-q", "-L", "a label", path}, args...)...)
	dir, unmount := testmount.Image(t, path, "")
	treetest.MakeIn(t, dir, treetest.Without{LargeMinors: true})
	treetest.Extreme(t, dir)
	scattered(t, filepath.Join(dir, "scattered"))
	must(t, os.WriteFile(filepath.Join(dir, "large"), []byte(strings.Repeat("large.", 3<<20)), 0o600))
	if fstype == "btrfs" {
		for _, name := range []string{"@home", "@home/below"} {
			tool(t, "btrfs", "subvolume", "create", filepath.Join(dir, name))
			must(t, os.WriteFile(filepath.Join(dir, name, "large"), []byte(strings.Repeat(name, 1<<20)), 0o600))
		}
	}
	unmount()
}

// TestDisksOfFilesThatCannotBe: a filesystem that nobody makes so small any more, and one
// of which nobody knows how to make it.
func TestDisksOfFilesThatCannotBe(t *testing.T) {
	t.Parallel() // most of it is waiting
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "file"), []byte("file"), 0o600))
	h := newImageHost(t, src)
	for fs, want := range map[string]string{
		"xfs":      "xfs has at least 314572800 bytes (choose a larger size): here it has the type and the size that it had (drydock restore --to-image takes others",
		"btrfs":    "btrfs has at least 114294784 bytes (choose a larger size): here it has",
		"reiserfs": `"reiserfs" cannot be made: choose ext4, xfs or btrfs: here it has the type`,
	} {
		backUp(h, src, fmt.Sprintf("fs:root=%s:%032x:%d:", fs, 1, 100<<20))
		if r := h.run(1, "cat", "--raw", "web/root@latest"); !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %s", fs, r.stderr)
		}
	}
}

// TestDisksOfFilesThatCannotGrow: a filesystem in a partition, which would have to be larger
// than it was, is refused before a machine is started, with what is left to do.
func TestDisksOfFilesThatCannotGrow(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newWriterHost(t, `
      root: {path: DIR/root.raw, format: raw, mount: /, partition: 1}
`)
	part := filepath.Join(t.TempDir(), "part.raw")
	tool(t, "truncate", "-s", "100M", part)
	tool(t, "mkfs.xfs", "--unsupported", "-q", part)
	tool(t, "truncate", "-s", "102M", h.path("root.raw"))
	tool(t, "sgdisk", "-n", "1:2048:+100M", h.path("root.raw"))
	tool(t, "dd", "if="+part, "of="+h.path("root.raw"), "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
	rounds(t, h, 0)
	for _, args := range [][]string{{"cat", "--raw", "web/root@latest"}, {"verify", "--mode", "boot", "web"}} {
		r := h.run(1, args...)
		for _, want := range []string{"xfs has at least 314572800 bytes", "it lies in a partition or volume, which has the size that it had", "backup: image"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%q: %q is not in %s", args, want, r.stderr)
			}
		}
		if strings.Contains(r.stderr, "start-from-backup --size") {
			t.Errorf("%q: %s", args, r.stderr)
		}
	}
}

// TestDisksOfFilesThatAMachineWrites: an XFS, and a btrfs in a partition, of which the
// backup has the files are disks, as their own programs and the kernel see them. Several
// may be made at once, and nothing is left of them.
func TestDisksOfFilesThatAMachineWrites(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newWriterHost(t, `
      pool: {path: DIR/pool.raw, format: raw, mount: /pool}
      tree: {path: DIR/tree.raw, format: raw, mount: /tree, partition: 1}
`)
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

	// Two of the btrfs at once, one of them over NBD.
	made := map[string]string{"served": filepath.Join(t.TempDir(), "tree")}
	var wait sync.WaitGroup
	for _, name := range []string{"pool", "tree"} {
		made[name] = filepath.Join(t.TempDir(), name)
		f, err := os.Create(made[name])
		must(t, err)
		defer f.Close()
		c := h.command(t.Context(), "cat", "--raw", "web/"+name+"@latest")
		var errs strings.Builder
		c.Stdout, c.Stderr = f, &errs
		must(t, c.Start())
		wait.Go(func() {
			if err := c.Wait(); err != nil || errs.Len() > 0 {
				t.Errorf("%s: %v, %s", name, err, errs.String())
			}
		})
	}
	uri, stop := background(t, "--config", h.config, "nbd", "web/tree@latest", "--socket", h.path("nbd.sock"))
	tool(t, "nbdcopy", uri, made["served"])
	stop()
	wait.Wait()
	tool(t, "xfs_repair", "-n", made["pool"])
	again := filepath.Join(t.TempDir(), "again")
	tool(t, "dd", "if="+made["tree"], "of="+again, "bs=1M", "skip=1", "count=400", "conv=sparse", "status=none")
	tool(t, "btrfs", "check", "--check-data-csum", again)
	for name, was := range map[string]struct {
		disk   string
		offset int64
	}{"pool": {"pool", 0}, "tree": {"tree", partition}, "served": {"tree", partition}} {
		path := h.path(was.disk + ".raw")
		if a, b := identity(t, path, "raw"), identity(t, made[name], "raw"); a != b {
			t.Errorf("%s is %s, and was %s", name, b, a)
		}
		treetest.Compare(t, kernelWorld(t, made[name], was.offset), kernelWorld(t, path, was.offset))
	}
	if left, err := os.ReadDir(h.path("state", "work")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
