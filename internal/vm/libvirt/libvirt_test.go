//go:build linux

package libvirt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlibvirt"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/libvirt"
	"github.com/drydock-vm/drydock/internal/vm/vmtest"
)

// host is a libvirtd with domains.
type host struct {
	*testlibvirt.Libvirt
}

// domain is a machine without a disk, and lines that belong into its XML.
func domain(name string, more ...string) string {
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>%s</domain>`, name, strings.Join(more, "\n"))
}

func (h *host) machine(t *testing.T, name string) *libvirt.Machine {
	t.Helper()
	return h.at(t, h.Socket, name)
}

func TestMachines(t *testing.T) {
	h := &host{testlibvirt.Start(t)}
	t.Run("deaf", func(t *testing.T) {
		h.Define(domain("deaf"))
		vmtest.Deaf(t, func() vm.Machine { return h.machine(t, "deaf") })
	})
	t.Run("obedient", func(t *testing.T) { h.obedient(t) })
	t.Run("refused", func(t *testing.T) { h.refused(t) })
	t.Run("paused", func(t *testing.T) { h.paused(t) })
	t.Run("saved", func(t *testing.T) { h.saved(t) })
	t.Run("failures", func(t *testing.T) { h.failures(t) })
	t.Run("definition", func(t *testing.T) { h.definition(t) })
	t.Run("crashed", func(t *testing.T) { h.crashed(t) })
	t.Run("attached", func(t *testing.T) { h.attached(t) })
	t.Run("cut", func(t *testing.T) { h.cut(t) })
	t.Run("volume", func(t *testing.T) { h.volume(t) })
	t.Run("left", func(t *testing.T) { h.left(t) })
	t.Run("fillable", func(t *testing.T) { h.fillable(t) })
}

// obedient hands all of a guest's command line through, since libvirt has no NVMe disks.
func (h *host) obedient(t *testing.T) {
	g := testguest.New(t, testguest.Options{Name: "web"})
	h.Define(testlibvirt.PassThrough("web", g.Command))
	vmtest.Obedient(t, func() vm.Machine { return h.machine(t, "web") }, func(ctx context.Context) error {
		_, err := g.WaitHealthy(ctx)
		return err
	})
}

// What would not stay off, or be gone, is refused while it runs on.
func (h *host) refused(t *testing.T) {
	h.Define(domain("restart", "<on_poweroff>restart</on_poweroff>"))
	m := h.machine(t, "restart")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), nil, "<on_poweroff>destroy</on_poweroff>")
	vmtest.WantState(t, m, vm.Running)
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}

	path := filepath.Join(t.TempDir(), "transient.xml")
	if err := os.WriteFile(path, []byte(domain("transient")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Virsh("create", path)
	m = h.machine(t, "transient")
	vmtest.WantState(t, m, vm.Running)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), nil, "virsh define")
	vmtest.WantState(t, m, vm.Running)
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func (h *host) paused(t *testing.T) {
	h.Define(domain("paused"))
	m := h.machine(t, "paused")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Virsh("suspend", "paused")
	vmtest.WantState(t, m, vm.Paused)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrPaused, "virsh resume")
	vmtest.WantError(t, m.Start(t.Context()), vm.ErrPaused, "virsh resume")
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	vmtest.WantState(t, m, vm.Off)
}

// The memory of a domain belongs to its disks, also while libvirt keeps it in a file.
func (h *host) saved(t *testing.T) {
	h.Define(domain("saved"))
	m := h.machine(t, "saved")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Virsh("managedsave", "saved")
	vmtest.WantState(t, m, vm.Paused)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrPaused, "virsh start")
	vmtest.WantError(t, m.Start(t.Context()), vm.ErrPaused, "managedsave-remove")
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	vmtest.WantState(t, m, vm.Off)
}

func (h *host) failures(t *testing.T) {
	for name, m := range map[string]*libvirt.Machine{
		"virsh list":    h.machine(t, "nobody"),
		"does libvirtd": h.at(t, filepath.Join(t.TempDir(), "none"), "web"),
	} {
		_, err := m.State(t.Context())
		vmtest.WantError(t, err, nil, name)
		vmtest.WantError(t, m.Start(t.Context()), nil, name)
		vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), nil, name)
		vmtest.WantError(t, m.Kill(t.Context()), nil, name)
	}
	h.Define(domain("broken", "<seclabel type='none'/>"))
	h.Define(strings.Replace(domain("no-disk"), "</devices>", "<disk type='file' device='disk'><source file='/nowhere/disk'/><target dev='vda' bus='virtio'/></disk></devices>", 1))
	m := h.machine(t, "no-disk")
	vmtest.WantError(t, m.Start(t.Context()), nil, "no-disk.log")
	vmtest.WantState(t, m, vm.Off)
	for _, o := range []libvirt.Options{{}, {Domain: "a", Socket: "relative"}, {Domain: "a", Console: "relative"}} {
		if _, err := libvirt.New(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// at is a machine of a daemon at another socket.
func (h *host) at(t *testing.T, socket, name string) *libvirt.Machine {
	t.Helper()
	m, err := libvirt.New(libvirt.Options{Domain: name, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// definition asks for what defines a domain, with names that need quotes.
func (h *host) definition(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a folder")
	h.Define(strings.Replace(domain("defined"), "</devices>", fmt.Sprintf(
		`<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file="%s/disk"/><target dev='vda' bus='virtio'/></disk></devices>`, dir), 1))
	d, err := h.machine(t, "defined").Definition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/etc/libvirt/qemu/defined.xml"}; !slices.Equal(d.Files, want) {
		t.Errorf("files %q, want %q", d.Files, want)
	}
	if d.Command[0] != "/usr/bin/qemu-system-x86_64" || !slices.ContainsFunc(d.Command, func(arg string) bool { return strings.Contains(arg, `"filename":"`+dir+`/disk"`) }) {
		t.Errorf("command %q", d.Command)
	}
	if _, err := os.Stat(h.Files() + d.Files[0]); err != nil {
		t.Error(err)
	}
	if d.User != "0" { // as the daemon's configuration says
		t.Errorf("it runs as %q", d.User)
	}
	h.Define(domain("another", "<seclabel type='static' model='dac' relabel='no'><label>nobody:nogroup</label></seclabel>"))
	if d, err := h.machine(t, "another").Definition(t.Context()); err != nil || d.User != "nobody" {
		t.Errorf("it runs as %q, %v", d.User, err)
	}
}

// attached takes an external snapshot, which puts another image over a disk.
func (h *host) attached(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"disk", "other", "handed"} {
		if err := os.WriteFile(at(name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("disk", at("link")); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(domain("attached"), "</devices>", fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk></devices>`, at("disk")), 1)
	text = strings.Replace(text, "<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ", 1)
	text = strings.Replace(text, "</domain>", "<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='file="+at("handed")+",if=none'/></qemu:commandline></domain>", 1)
	h.Define(text)
	m := h.machine(t, "attached")
	for _, name := range []string{"disk", "link", "handed"} {
		if err := m.Attached(t.Context(), at(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	vmtest.WantError(t, m.Attached(t.Context(), at("other")), nil, "configure the path")
	h.Virsh("snapshot-create-as", "attached", "later", "--disk-only")
	vmtest.WantError(t, m.Attached(t.Context(), at("disk")), nil, "virsh blockcommit attached")
	if err := m.Attached(t.Context(), at("disk.later")); err != nil {
		t.Error(err)
	}
}

// crashed has a guest panic that is kept as it is: its QEMU has the disks still.
func (h *host) crashed(t *testing.T) {
	boot := filepath.Join(t.TempDir(), "boot")
	sector := make([]byte, 1<<20)
	copy(sector, "\xba\x05\x05\xb0\x01\xee\xf4\xeb\xfd") // mov dx, 0x505; mov al, 1; out dx, al; hlt; jmp to the hlt
	copy(sector[510:], "\x55\xaa")
	if err := os.WriteFile(boot, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(domain("crashed", "<on_crash>preserve</on_crash>"), "</devices>", fmt.Sprintf(
		"<panic model='isa'/><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='hda' bus='ide'/></disk></devices>", boot), 1)
	h.Define(text)
	m := h.machine(t, "crashed")
	if err := m.Start(t.Context()); err != nil && !errors.Is(err, vm.ErrPaused) {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); h.Virsh("domstate", "crashed") != "crashed"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it does not crash")
		}
	}
	vmtest.WantState(t, m, vm.Paused)
	vmtest.WantError(t, m.Start(t.Context()), vm.ErrPaused, "virsh destroy")
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrPaused, "virsh destroy")
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	vmtest.WantState(t, m, vm.Off)
}

// An image that lies on a backup is refused where libvirt would not look what it lies on,
// before it is put: the guest would see zeros.
func (h *host) fillable(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk") // which is gone
	for name, c := range map[string]struct{ driver, source, more, hint string }{
		"fillable":  {"qcow2", "file='" + image + "'", "", ""},
		"elsewhere": {"qcow2", "file='" + image + ".other'", "", "configure the path"},
		"raw":       {"raw", "file='" + image + "'", "", "type='qcow2'"},
		"chained":   {"qcow2", "file='" + image + "'", "<backingStore/>", "remove <backingStore>"},
	} {
		h.Define(strings.Replace(domain(name), "</devices>", fmt.Sprintf(
			"<disk type='file' device='disk'><driver name='qemu' type='%s'/><source %s/>%s<target dev='vda' bus='virtio'/></disk></devices>", c.driver, c.source, c.more), 1))
		err := h.machine(t, name).CanFill(t.Context(), image)
		if c.hint != "" {
			vmtest.WantError(t, err, nil, c.hint)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const volume = "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='p' volume='v'/><target dev='vda' bus='virtio'/></disk>"
	h.Define(strings.Replace(domain("pooled"), "</devices>", volume+"</devices>", 1))
	vmtest.WantError(t, h.machine(t, "pooled").CanFill(t.Context(), image), nil, "<disk type='file'>")
	file := fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vdb' bus='virtio'/></disk>", image)
	h.Define(strings.Replace(domain("both"), "</devices>", volume+file+"</devices>", 1))
	if err := h.machine(t, "both").CanFill(t.Context(), image); err != nil {
		t.Errorf("beside a volume: %v", err)
	}
}
