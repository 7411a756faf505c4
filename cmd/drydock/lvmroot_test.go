package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestWholeLVM loses a host with a VM whose root filesystem is a volume of LVM, which its
// initrd activates. The VM is there again from the repository and its key, boots from its
// backup, and runs from it.
func TestWholeLVM(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	site := h.path("site")
	must(t, os.Mkdir(site, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", Dir: site})
	initrd := g.OnVolume(t, "system", "root")
	bare := h.path("bare")
	must(t, os.Rename(g.RootPath, bare))
	tool(t, "truncate", "-s", "64M", g.RootPath)
	device := testlvm.Volume(t, g.RootPath, "system", "root")
	tool(t, "dd", "if="+bare, "of="+device, "bs=1M", "conv=sparse", "status=none")
	tool(t, "resize2fs", device)
	testmount.Detach(t, device)
	h.vm(g)
	h.rootOf(g, "volume: system/root")
	ctx := t.Context()
	h.run(0, "start")
	must(t, g.Put(ctx, "/var/letter", []byte("dear reader")))
	h.run(0, "run")
	h.run(0, "stop")
	h.judged()
	was, files := identity(t, g.RootPath, "qcow2"), volumeSees(t, g.RootPath)
	kept, err := os.ReadFile(initrd)
	must(t, err)

	key := h.path("key")
	tool(t, "cp", h.path("state", "repository.key"), key)
	for _, lost := range []string{site, h.path("state"), h.path("run"), h.config} {
		must(t, os.RemoveAll(lost))
	}
	h.run(0, "restore", "vm", "web", "--repository", h.where, "--password-file", key, "--state", h.path("state"),
		"--allow", site, "--allow", testguest.KernelFolder(t))
	same := func(how string) {
		t.Helper()
		if is := identity(t, g.RootPath, "qcow2"); is != was {
			t.Errorf("%s: the root disk is\n%s\nand was\n%s", how, is, was)
		}
		if got := volumeSees(t, g.RootPath); got != files || !strings.Contains(got, "/init") {
			t.Errorf("%s: the volume has\n%s\nand had\n%s", how, got, files)
		}
	}
	same("restored")
	if back, err := os.ReadFile(initrd); err != nil || string(back) != string(kept) {
		t.Errorf("the initrd has %d bytes, and had %d: %v", len(back), len(kept), err)
	}
	answers := func() {
		t.Helper()
		if letter, err := g.Get(ctx, "/var/letter"); err != nil || string(letter) != "dear reader" {
			t.Errorf("the letter is %q, %v", letter, err)
		}
	}
	h.ownRuntime()
	h.run(0, "start", "web")
	answers()
	h.run(0, "stop")

	var r bootReport
	h.json(&r, 0, "verify", "--mode", "boot")
	if !r.Good || len(r.Boots) != 1 || r.Boots[0].Healthy <= 0 || r.Boots[0].Error != "" || len(r.Boots[0].Notes) > 0 {
		t.Fatalf("%+v", r)
	}
	noTrial(t, h)

	for _, path := range []string{g.RootPath, g.DataPath} {
		must(t, os.Remove(path))
	}
	h.run(0, "start-from-backup", "web")
	answers()
	h.run(0, "stop")
	same("filled in")
}

// volumeSees is what LVM says of the root disk, and the kernel of the filesystem in its
// volume. The place where the other disk is mounted has the attributes of that, and is
// left out.
func volumeSees(t *testing.T, path string) string {
	t.Helper()
	const first = 2048 * 512
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	partition := testmount.Loop(t, raw, first, 0)
	l := testlvm.New(t, partition)
	out := l.Run("pvs", "--noheadings", "-o", "vg_name,vg_uuid,pv_uuid") + l.Run("lvs", "--noheadings", "-o", "lv_name,lv_uuid,lv_size")
	start := l.Number("pvs", "pe_start", partition)
	testmount.Detach(t, partition)
	out += kernelSees(t, raw, "raw", first+start)
	return regexp.MustCompile(`(?m)^\./var d .*\n`).ReplaceAllString(out, "")
}
