//go:build linux

package libvirt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/vmtest"
)

// zeros is a disk of zeros.
type zeros struct{ *bytes.Reader }

func (z zeros) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// overServer makes a qcow2 image that lies on an NBD server, as package fill does, and has
// that serve until stop.
func overServer(t *testing.T) (image string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "nbd.sock")
	header := fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"nbd","export":"data","reconnect-delay":3600,"server":{"type":"unix","path":%q}}}`, socket)
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", header, image, "1M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := nbd.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	exports := []nbd.Export{{Name: "data", Disk: zeros{bytes.NewReader(make([]byte, 1<<20))}}}
	s := nbd.Start(l, nbd.Options{Exports: exports}, func(err error) { t.Error(err) })
	stop = func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	return image, stop
}

// waits reports whether QEMU waits for the server that the domain's disk lies on.
func (h *host) waits(name string) bool {
	nodes := h.Virsh("qemu-monitor-command", name, `{"execute": "query-named-block-nodes"}`)
	return strings.Contains(nodes, `"node-name":"drydock-`) || strings.Contains(nodes, `"node-name": "drydock-`)
}

// cut: wherever a drydock dies that starts a domain whose disk lies on its server, the
// guest executes with a QEMU that waits for the next one, or not at all; the next start
// goes on.
func (h *host) cut(t *testing.T) {
	image, stop := overServer(t)
	defer stop()
	h.Define(strings.Replace(domain("cut"), "</devices>", fmt.Sprintf(
		"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/></disk></devices>", image), 1))
	m := h.machine(t, "cut")
	seen := map[vm.State]int{}
	const most = 40 // requests that a start takes
	died := true
	for requests := 1; died && requests < most; requests++ {
		made := 0
		socket := h.Relay(func(uint32) bool { made++; return made <= requests })
		died = h.at(t, socket, "cut").Start(t.Context()) != nil
		state, err := m.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[state]++
		if state == vm.Running && !h.waits("cut") {
			t.Errorf("after %d requests the guest executes, and its reads fail when the server is gone", requests)
		}
		if err := m.Start(t.Context()); err != nil {
			t.Errorf("the next start, after %d requests: %v", requests, err)
		}
		vmtest.WantState(t, m, vm.Running)
		if !h.waits("cut") {
			t.Errorf("it does not wait after %d requests, and the next start", requests)
		}
		h.Virsh("destroy", "cut")
	}
	if died || seen[vm.Off] == 0 || seen[vm.Paused] < 2 || seen[vm.Running] == 0 {
		t.Errorf("it died when the domain was %v", seen)
	}
}

// A domain that was left is not made to execute while nobody serves its disk, and one that
// somebody else has paused is left alone.
func (h *host) left(t *testing.T) {
	image, stop := overServer(t)
	h.Define(strings.Replace(domain("left"), "</devices>", fmt.Sprintf(
		"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/></disk></devices>", image), 1))
	m := h.machine(t, "left")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Virsh("suspend", "left")
	vmtest.WantError(t, m.Start(t.Context()), vm.ErrPaused, "virsh resume")
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrPaused, "virsh resume")
	h.Virsh("destroy", "left")
	h.Virsh("start", "left", "--paused")
	stop()
	vmtest.WantError(t, m.Start(t.Context()), nil, "drydock start-from-backup")
	vmtest.WantState(t, m, vm.Paused)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrPaused, "drydock start-from-backup")
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	vmtest.WantState(t, m, vm.Off)
}

// A volume of a pool that is a folder is the file in it, also when the pool has not seen
// it: it is started over a server, and filled in.
func (h *host) volume(t *testing.T) {
	image, stop := overServer(t)
	defer stop()
	folder, name := filepath.Split(image)
	away := image + ".away"
	if err := os.Rename(image, away); err != nil {
		t.Fatal(err)
	}
	h.Virsh("pool-define-as", "folder", "dir", "--target", folder)
	h.Virsh("pool-start", "folder")
	h.Define(strings.Replace(domain("volume"), "</devices>", fmt.Sprintf(
		"<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='folder' volume='%s'/><target dev='vda' bus='virtio'/></disk></devices>", name), 1))
	m := h.machine(t, "volume")
	if err := errors.Join(m.CanFill(t.Context(), image), m.Attached(t.Context(), image)); err != nil {
		t.Error(err)
	}
	for _, err := range []error{m.CanFill(t.Context(), away), m.Attached(t.Context(), away)} {
		vmtest.WantError(t, err, nil, "configure the path")
	}
	if err := os.Rename(away, image); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !h.waits("volume") {
		t.Error("it does not wait for the server")
	}
	if err := m.Fill(t.Context(), image, func(_, _ int64) {}); err != nil {
		t.Error(err)
	}
	if text := h.Virsh("dumpxml", "volume"); strings.Contains(text, "nbd") {
		t.Errorf("libvirt still knows of a server: %s", text)
	}
	h.Virsh("destroy", "volume")
	if header, err := qemuimg.ReadHeader(image); err != nil || header.Backing != "" {
		t.Errorf("it lies on %q, %v", header.Backing, err)
	}

	if d, err := m.Definition(t.Context()); err != nil || !strings.Contains(strings.Join(d.Command, " "), image) {
		t.Errorf("command %q, %v", d.Command, err)
	}

	h.Virsh("pool-define-as", "group", "logical", "--source-name", "vg", "--target", "/dev/vg")
	h.Define(strings.Replace(domain("logical"), "</devices>",
		"<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='group' volume='v'/><target dev='vda' bus='virtio'/></disk></devices>", 1))
	err := h.machine(t, "logical").CanFill(t.Context(), image)
	vmtest.WantError(t, err, nil, "<disk type='file'>")
	if !strings.Contains(err.Error(), "storage pool group is of type logical") {
		t.Error(err)
	}
}
