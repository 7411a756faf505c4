package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// guestVariable is a variable of UEFI that the guest sets.
const guestVariable = "Letter-6f1d0a3c-5d36-4a8e-9b2e-1f0c0d1e2f30"

// boots changes the command of a VM that is off.
func (h *host) boots(from, to []string) {
	h.t.Helper()
	was, err := json.Marshal(from)
	must(h.t, err)
	is, err := json.Marshal(to)
	must(h.t, err)
	text := strings.Replace(h.machine.String(), string(was), string(is), 1)
	if text == h.machine.String() {
		h.t.Fatalf("the VM has no command %s", was)
	}
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
}

// ownRuntime gives a configuration that was restored, which says nothing of the host, the
// folder of this test.
func (h *host) ownRuntime() {
	h.t.Helper()
	text, err := os.ReadFile(h.config)
	must(h.t, err)
	must(h.t, os.WriteFile(h.config, append([]byte("runtime: "+h.path("run")+"\n"), text...), 0o600))
}

// onRaw does something with a raw image of a qcow2 disk, and puts that in its place.
func onRaw(t *testing.T, path string, do func(raw string)) {
	t.Helper()
	raw := path + ".edit"
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	do(raw)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
	must(t, os.Remove(raw))
}

// rootOf makes the root disk of a guest a qcow2 that is backed up as disk says.
func (h *host) rootOf(g *testguest.Guest, disk string) {
	h.t.Helper()
	tool(h.t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", g.RootPath, g.RootPath+".q")
	must(h.t, os.Rename(g.RootPath+".q", g.RootPath))
	text := strings.ReplaceAll(h.machine.String(), "id=root,format=raw", "id=root,format=qcow2")
	text = strings.Replace(text, "format: raw, mount: /, image: web, backup: off}", "format: qcow2, mount: /, "+disk+"}", 1)
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
}

// TestWholeUEFI loses a host with a VM that boots by UEFI: what is started is said by a
// variable in its flash, and lies on a partition of which no files are backed up. The VM
// is there again from the repository and its key, boots from its backup, and runs from it.
func TestWholeUEFI(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	site := h.path("site")
	must(t, os.Mkdir(site, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", Dir: site})
	variables, medium := g.UEFI(t)
	command := g.Command
	g.Command = medium
	h.vm(g)
	h.rootOf(g, "partition: 2")
	qcow2 := func(command []string) (out []string) {
		for _, arg := range command {
			out = append(out, strings.Replace(arg, "id=root,format=raw", "id=root,format=qcow2", 1))
		}
		return out
	}
	ctx := t.Context()
	h.run(0, "start")
	must(t, g.SetVariable(ctx, testguest.BootEntry, testguest.Entry(t)))
	must(t, g.SetVariable(ctx, testguest.BootOrder, []byte{0xcc, 0xd0}))
	h.run(0, "stop")
	h.boots(qcow2(medium), qcow2(command))
	h.run(0, "start") // without a medium
	must(t, g.SetVariable(ctx, guestVariable, []byte("set by the guest")))
	must(t, g.Put(ctx, "/var/letter", []byte("dear reader")))
	h.run(0, "stop")
	h.run(0, "run")
	note := h.path("note")
	must(t, os.WriteFile(note, []byte("an update of the loader"), 0o600))
	onRaw(t, g.RootPath, func(raw string) { tool(t, "mcopy", "-i", raw+"@@1M", note, "::EFI/drydock/note") })
	h.run(0, "run")
	h.judged()
	was := identity(t, g.RootPath, "qcow2") + guids(t, g.RootPath)
	// The place where the other disk is mounted has the attributes of that.
	place := regexp.MustCompile(`(?m)^\./var d .*\n`)
	files := place.ReplaceAllString(kernelSees(t, g.RootPath, "qcow2", testguest.UEFIRoot), "")
	flash, err := os.ReadFile(variables)
	must(t, err)

	key := h.path("key")
	tool(t, "cp", h.path("state", "repository.key"), key)
	for _, lost := range []string{site, h.path("state"), h.path("run"), h.config} {
		must(t, os.RemoveAll(lost))
	}
	h.run(0, "restore", "vm", "web", "--repository", h.where, "--password-file", key, "--state", h.path("state"), "--allow", site)
	if back, err := os.ReadFile(variables); err != nil || len(back) != len(flash) {
		t.Errorf("the flash has %d bytes, and had %d: %v", len(back), len(flash), err)
	}
	if is := identity(t, g.RootPath, "qcow2") + guids(t, g.RootPath); is != was {
		t.Errorf("the root disk is\n%s\nand was\n%s", is, was)
	}
	if got := place.ReplaceAllString(kernelSees(t, g.RootPath, "qcow2", testguest.UEFIRoot), ""); got != files || !strings.Contains(got, "/init") {
		t.Errorf("the root has\n%s\nand had\n%s", got, files)
	}
	onRaw(t, g.RootPath, func(raw string) {
		if got := tool(t, "mtype", "-i", raw+"@@1M", "::EFI/drydock/note"); got != "an update of the loader" {
			t.Errorf("the loader's partition has %q", got)
		}
	})
	h.ownRuntime()
	h.run(0, "start", "web")
	checkVariables(t, g)
	h.run(0, "stop")

	before, err := os.ReadFile(variables)
	must(t, err)
	var r bootReport
	h.json(&r, 0, "verify", "--mode", "boot")
	if !r.Good || len(r.Boots) != 1 || r.Boots[0].Healthy <= 0 || r.Boots[0].Error != "" || len(r.Boots[0].Notes) > 0 {
		t.Fatalf("%+v", r)
	}
	noTrial(t, h)
	if after, err := os.ReadFile(variables); err != nil || !bytes.Equal(after, before) {
		t.Errorf("a machine that was started from the backup has written to the VM's flash (%v)", err)
	}

	for _, path := range []string{g.RootPath, g.DataPath, variables} {
		must(t, os.Remove(path))
	}
	// The flash first, which is no disk.
	h.run(0, "restore", "vm", "web", "--allow", site, "--without", "root", "--without", "data")
	h.run(0, "start-from-backup", "web")
	checkVariables(t, g)
	if letter, err := g.Get(ctx, "/var/letter"); err != nil || string(letter) != "dear reader" {
		t.Errorf("the letter is %q, %v", letter, err)
	}
	h.run(0, "stop")
	if is := identity(t, g.RootPath, "qcow2") + guids(t, g.RootPath); is != was {
		t.Errorf("the root disk that was filled in is\n%s\nand was\n%s", is, was)
	}
}

// guids is a disk's partition table.
func guids(t *testing.T, path string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	return strings.ReplaceAll(tool(t, "sgdisk", "-p", "-i", "1", "-i", "2", raw), raw, "disk")
}

// checkVariables checks that a guest was started as its variables say, and has them.
func checkVariables(t *testing.T, g *testguest.Guest) {
	t.Helper()
	healthy(t, g)
	for name, want := range map[string]string{
		guestVariable:       "set by the guest",
		testguest.BootEntry: string(testguest.Entry(t)),
	} {
		if got, err := g.Variable(t.Context(), name); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if got, err := g.Variable(t.Context(), testguest.BootOrder); err != nil || !bytes.HasPrefix(got, []byte{0xcc, 0xd0}) {
		t.Errorf("the order of what is booted is %x, %v", got, err)
	}
}
