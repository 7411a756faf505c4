//go:build linux

package libvirt_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
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
	h.Virsh("destroy", "left")
	h.Virsh("start", "left", "--paused")
	stop()
	vmtest.WantError(t, m.Start(t.Context()), nil, "drydock start-from-backup")
	vmtest.WantState(t, m, vm.Paused)
	h.Virsh("destroy", "left")
}
