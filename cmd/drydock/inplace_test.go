package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// TestInPlaceVersion: a root disk of an image that is brought back from a backup is of the version
// that the backup tells, and the next round knows it.
func TestInPlaceVersion(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v0"})
	h.vm(g)
	text := strings.Replace(h.machine.String(), "image: web, backup: off}", "image: web, backup: image}", 1)
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
	h.run(0, "start")
	for _, version := range []string{"v1", "v2"} {
		h.run(0, "images", "import", "web", testguest.RootImage(t, version, false), "--version", version)
		if r := rounds(t, h, 0); r.VMs[0].Image == nil || r.VMs[0].Image.After != version {
			t.Fatalf("the night of %s: %+v", version, r)
		}
	}
	h.run(0, "stop")
	h.run(0, "restore", "web/root@latest", "--in-place") // frozen before the second update
	h.run(0, "start")
	if v := healthy(t, g); v != "v1" {
		t.Fatalf("the guest runs %s, want v1", v)
	}
	r := rounds(t, h, 0)
	if img := r.VMs[0].Image; img == nil || img.Before != "v1" || img.After != "v2" {
		t.Errorf("the night after v1 was brought back: %+v", img)
	}
	if v := healthy(t, g); v != "v2" {
		t.Errorf("the guest runs %s, want v2", v)
	}
}

// TestOverwriteIsNamed: what is there is not replaced, and the error says how it would be.
func TestOverwriteIsNamed(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	h.night(0, 0)
	must(t, os.WriteFile(h.path("there.raw"), []byte("a disk"), 0o600))
	if r := h.run(1, "restore", "web/data@latest", "--to-image", h.path("there.raw")); !strings.Contains(r.stderr, "--overwrite") {
		t.Errorf("%s", r.stderr)
	}
	h.run(0, "restore", "web/data@latest", "--to-image", h.path("there.raw"), "--overwrite")
	must(t, os.MkdirAll(h.path("back", "full"), 0o700))
	if r := h.run(1, "restore", "web/data@latest:/", "--to", h.path("back")); !strings.Contains(r.stderr, "--overwrite") {
		t.Errorf("%s", r.stderr)
	}
}
