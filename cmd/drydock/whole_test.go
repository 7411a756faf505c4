package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// identity is what says which filesystem is on a disk: its size, type, UUID and label.
func identity(t *testing.T, path, format string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, raw)
	return tool(t, "stat", "-c", "%s", raw) + tool(t, "blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "UUID", "-s", "LABEL", "-s", "PTUUID", raw)
}

// kernelSees is what the kernel sees of the files on a disk, in a partition that begins
// at an offset. The guest's list of its boots is left out: each start is in it.
func kernelSees(t *testing.T, path, format string, offset int64) string {
	t.Helper()
	raw, dir := filepath.Join(t.TempDir(), "raw"), t.TempDir()
	tool(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, raw)
	defer testmount.At(t, testmount.Loop(t, raw, offset, 0, "--read-only"), dir, "-o", "ro")()
	var kept []string
	for line := range strings.Lines(treeText(t, dir)) {
		if !strings.Contains(line, "boots") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestWholeVM loses a host, with a VM on it that has a root disk from the image store, a
// disk whose files are backed up, one with a partition of which that is true, and one
// that is backed up as an image. From the
// repository and its key alone it is there again, boots, and has every byte.
func TestWholeVM(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	site := h.path("site")
	must(t, os.Mkdir(site, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v0", Dir: site})
	store := filepath.Join(site, "store.qcow2")
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "store", "-d", "/usr/lib/python3", raw, "64M")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, store)
	g.Command = append(g.Command, "-drive", "if=none,id=store,format=qcow2,file="+store, "-device", "nvme-ns,drive=store,nsid=3")
	parted := filepath.Join(site, "parted.raw")
	const partition = 2048 * 512
	tool(t, "truncate", "-s", "40M", parted)
	tool(t, "sgdisk", "-n", "1:2048:+32M", "-c", "1:mail", parted)
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "mail", "-d", "/etc", "-E", fmt.Sprintf("offset=%d", partition), parted, "32M")
	g.Command = append(g.Command, "-drive", "if=none,id=parted,format=raw,file="+parted, "-device", "nvme-ns,drive=parted,nsid=4")
	h.vm(g)
	fmt.Fprintf(&h.machine, "      parted: {path: %s, format: raw, mount: /mail, partition: 1}\n", parted)
	fmt.Fprintf(&h.machine, "      store: {path: %s, format: qcow2, backup: image}\n", store)
	h.write()
	ctx := t.Context()
	h.run(0, "images", "import", "web", testguest.RootImage(t, "v1", false), "--version", "v1")
	h.run(0, "start")
	must(t, g.Fill(ctx, "/var/many", 1, 100, 50_000))
	must(t, g.Put(ctx, "/var/letter", []byte("written before the host was lost")))
	if r := rounds(t, h, 0); r.VMs[0].Image == nil || r.VMs[0].Image.After != "v1" {
		t.Fatalf("the first night: %+v", r)
	}
	must(t, g.Put(ctx, "/var/letter", []byte("written in the last hour of the host")))
	rounds(t, h, 0)
	boots, err := g.Boots(ctx)
	must(t, err)
	h.run(0, "stop")
	h.judged()
	format := map[string]string{g.DataPath: "qcow2", store: "qcow2", parted: "raw"}
	want := map[string]string{}
	for path := range format {
		want[path] = identity(t, path, format[path])
	}
	mail := kernelSees(t, parted, "raw", partition)
	files := kernelSees(t, g.DataPath, "qcow2", 0)
	usedBefore := h.path("used.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", store, usedBefore)
	blocks := usedBlocks(t, usedBefore)

	key := h.path("key")
	tool(t, "cp", h.path("state", "repository.key"), key)
	for _, lost := range []string{site, h.path("state"), h.path("run"), h.config} {
		must(t, os.RemoveAll(lost))
	}
	flags := []string{"restore", "vm", "web", "--repository", h.where, "--password-file", key, "--state", h.path("state"),
		"--allow", site, "--allow", testguest.KernelFolder(t)}
	h.run(0, append(flags, "--dry-run")...)
	h.run(0, append(flags, "--start")...)

	if v := healthy(t, g); v != "v1" {
		t.Errorf("the guest runs %s, want v1", v)
	}
	if letter, err := g.Get(ctx, "/var/letter"); err != nil || string(letter) != "written in the last hour of the host" {
		t.Errorf("the letter is %q, %v", letter, err)
	}
	if again, err := g.Boots(ctx); err != nil || len(again) != len(boots) || again[0] != boots[0] {
		// The last start was after the snapshot; this one is in its place.
		t.Errorf("boots %q, %v, before %q", again, err, boots)
	}
	h.run(0, "stop")
	for path, was := range want {
		if got := identity(t, path, format[path]); got != was {
			t.Errorf("%s is %s, and was %s", path, got, was)
		}
	}
	after := h.path("after.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", store, after)
	if d := differing(usedBlocks(t, after), blocks); d != nil {
		t.Errorf("the disk that was backed up as an image differs in blocks %d", d)
	}
	if got := kernelSees(t, g.DataPath, "qcow2", 0); got != files || strings.Count(got, "/many/") < 200 {
		t.Errorf("the data disk has\n%s\nand had\n%s", got, files)
	}
	if got := kernelSees(t, parted, "raw", partition); got != mail || !strings.Contains(got, "passwd") {
		t.Errorf("the partition has\n%s\nand had\n%s", got, mail)
	}
	if r := rounds(t, h, 0); r.Outcome != "done" || r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Errorf("the next night: %+v", r)
	}
}

// TestWholeVMWithXFSAndBtrfs: filesystems that a machine has to write come back with the
// VM, too: an XFS that fills its disk, and a btrfs in a partition of a qcow2 disk.
func TestWholeVMWithXFSAndBtrfs(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newWriterHost(t, `
      pool: {path: DIR/pool.raw, format: raw, mount: /}
      tree: {path: DIR/tree.qcow2, format: qcow2, mount: /tree, partition: 1}
`)
	dir := t.TempDir()
	letter, tree, proto := filepath.Join(dir, "letter"), filepath.Join(dir, "tree.raw"), filepath.Join(dir, "proto")
	must(t, os.WriteFile(letter, []byte(strings.Repeat("a letter on an XFS\n", 1000)), 0o644))
	must(t, os.WriteFile(proto, fmt.Appendf(nil, "/dev/null\n0 0\nd--755 0 0\nletter ---640 7 8 %s\ntree d--755 0 0\n$\n$\n", letter), 0o644))
	tool(t, "truncate", "-s", "400M", h.path("pool.raw"))
	tool(t, "mkfs.xfs", "-q", "-L", "pool", "-p", proto, h.path("pool.raw"))
	part := filepath.Join(dir, "part.raw")
	tool(t, "truncate", "-s", "256M", part)
	tool(t, "mkfs.btrfs", "-q", "-L", "tree", "--rootdir", "/usr/lib/python3", part)
	tool(t, "truncate", "-s", "270M", tree)
	tool(t, "sgdisk", "-n", "1:2048:+256M", "-c", "1:tree", tree)
	tool(t, "dd", "if="+part, "of="+tree, "bs=1M", "seek=1", "conv=notrunc", "status=none")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", tree, h.path("tree.qcow2"))

	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	to := filepath.Join(t.TempDir(), "to")
	h.run(0, "restore", "vm", "web", "--to", to)
	for name, format := range map[string]string{"pool.raw": "raw", "tree.qcow2": "qcow2"} {
		was, now := h.path(name), filepath.Join(to, h.path(name))
		if a, b := identity(t, was, format), identity(t, now, format); a != b {
			t.Errorf("%s is %s, and was %s", name, b, a)
		}
		if d := h.run(0, "diff", "--content", was, now).stdout; d != "no differences\n" {
			t.Errorf("%s: %s", name, d)
		}
	}
	tool(t, "xfs_repair", "-n", filepath.Join(to, h.path("pool.raw")))
	back := filepath.Join(dir, "back.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", filepath.Join(to, h.path("tree.qcow2")), back)
	tool(t, "dd", "if="+back, "of="+part, "bs=1M", "skip=1", "count=256", "status=none")
	tool(t, "btrfs", "check", part)
}
