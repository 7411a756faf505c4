//go:build linux

package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testsystemd"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
	"github.com/drydock-vm/drydock/internal/vm/systemd"
	"github.com/drydock-vm/drydock/internal/vm/vmtest"
)

const (
	// quitEnv makes this test binary an ExecStop= of a unit: it has the QEMU
	// at that socket end, and waits until it has.
	quitEnv = "DRYDOCK_TEST_QUIT"
	// startEnv makes it a process that starts the machine of that unit.
	startEnv = "DRYDOCK_TEST_START"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(quitEnv); socket != "" {
		for qmp.Quit(context.Background(), socket) == nil {
			time.Sleep(10 * time.Millisecond)
		}
		return
	}
	if unit := os.Getenv(startEnv); unit != "" {
		m, err := systemd.New(systemd.Options{Unit: unit})
		if err == nil {
			err = m.Start(context.Background())
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// host is a systemd with units that are machines.
type host struct {
	*testsystemd.System
	dir string
}

func boot(t *testing.T) *host {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &host{dir: dir, System: testsystemd.Start(t, testsystemd.Options{
		Bind:        []string{dir, filepath.Dir(self), testguest.KernelFolder(t)},
		HostNetwork: true,
	})}
}

func (h *host) socket(name string) string { return filepath.Join(h.dir, name+".sock") }

// add writes a unit whose main process is a machine without a disk, and lines
// that belong into its sections Unit and Service.
func (h *host) add(name, unit string, service ...string) {
	h.Write("/etc/systemd/system/"+name+".service", fmt.Sprintf(`[Unit]
%s
[Service]
ExecStart=qemu-system-x86_64 -nodefaults -display none -accel tcg -m 16 -qmp unix:%s,server=on,wait=off
%s
`, unit, h.socket(name), strings.Join(service, "\n")))
	h.Run("systemctl", "daemon-reload")
}

// execStop is an ExecStop= that has the machine end, and waits for it.
func (h *host) execStop(name string) string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // it worked before
	}
	return fmt.Sprintf("Environment=%s=%s\nExecStop=%s", quitEnv, h.socket(name), self)
}

// machine opens a unit by its QMP socket, or without one.
func (h *host) machine(t *testing.T, name, socket string) *systemd.Machine {
	t.Helper()
	m, err := systemd.New(systemd.Options{Unit: name + ".service", QMPSocket: socket, Connect: systemd.At(h.Bus)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *host) withQMP(t *testing.T, name string) *systemd.Machine {
	return h.machine(t, name, h.socket(name))
}

func start(t *testing.T, m vm.Machine) {
	t.Helper()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	vmtest.WantState(t, m, vm.Running)
}

func TestMachines(t *testing.T) {
	h := boot(t)
	t.Run("deaf", func(t *testing.T) {
		h.add("deaf", "")
		vmtest.Deaf(t, func() vm.Machine { return h.withQMP(t, "deaf") })
	})
	t.Run("obedient", func(t *testing.T) { h.obedient(t) })
	t.Run("in order", func(t *testing.T) { h.inOrder(t) })
	t.Run("not in order", func(t *testing.T) { h.notInOrder(t) })
	t.Run("restart", func(t *testing.T) { h.restart(t) })
	t.Run("conditions", func(t *testing.T) { h.conditions(t) })
	t.Run("failures", func(t *testing.T) { h.failures(t) })
	t.Run("recover at boot", func(t *testing.T) { h.recoverAtBoot(t) })
}

func (h *host) obedient(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	g := testguest.New(t, testguest.Options{Name: "web", Dir: h.dir})
	command := make([]string, len(g.Command))
	for i, arg := range g.Command {
		command[i] = `"` + arg + `"`
	}
	h.Write("/etc/systemd/system/web.service", fmt.Sprintf("[Service]\nExecStart=%s -qmp unix:%s,server=on,wait=off\n",
		strings.Join(command, " "), h.socket("web")))
	h.Run("systemctl", "daemon-reload")
	vmtest.Obedient(t, func() vm.Machine { return h.withQMP(t, "web") }, func(ctx context.Context) error {
		_, err := g.WaitHealthy(ctx)
		return err
	})
}

// A unit with a good ExecStop= needs no QMP socket.
func (h *host) inOrder(t *testing.T) {
	h.add("good", "", h.execStop("good"), "TimeoutStopSec=2min")
	m := h.machine(t, "good", "")
	start(t, m)
	if err := m.Shutdown(t.Context(), 2*time.Minute); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	vmtest.WantState(t, m, vm.Off)
}

// What would cut the power is refused beforehand; if systemd did it all the
// same, that is said.
func (h *host) notInOrder(t *testing.T) {
	h.add("bare", "")
	m := h.machine(t, "bare", "")
	start(t, m)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), nil, "ExecStop=")
	vmtest.WantState(t, m, vm.Running)

	h.add("hasty", "", h.execStop("hasty"), "TimeoutStopSec=30")
	m = h.machine(t, "hasty", "")
	start(t, m)
	vmtest.WantError(t, m.Shutdown(t.Context(), 30*time.Second+1), nil, "TimeoutStopSec=31")
	vmtest.WantState(t, m, vm.Running)

	h.add("slow", "", "ExecStop=sleep 600", "TimeoutStopSec=1")
	m = h.machine(t, "slow", "")
	start(t, m)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), vm.ErrHardStop, "journalctl -u slow.service")
	vmtest.WantState(t, m, vm.Failed)
	start(t, m) // although it has failed
	if err := m.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}
}

// A unit that comes back by itself is stopped so that it does not, or left alone.
func (h *host) restart(t *testing.T) {
	h.add("phoenix", "", "Restart=always", "RestartSec=0")
	m := h.withQMP(t, "phoenix")
	start(t, m)
	vmtest.WantError(t, m.Shutdown(t.Context(), time.Second), nil, "Restart=on-failure")
	vmtest.WantState(t, m, vm.Running)
	if err := m.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}

	h.add("tame", "", "Restart=always", "RestartSec=0", h.execStop("tame"))
	m = h.withQMP(t, "tame")
	start(t, m)
	if err := m.Shutdown(t.Context(), 10*time.Second); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	vmtest.WantState(t, m, vm.Off)
	time.Sleep(500 * time.Millisecond) // for it to come back, if it does
	vmtest.WantState(t, h.withQMP(t, "phoenix"), vm.Off)
	vmtest.WantState(t, m, vm.Off)
}

func (h *host) conditions(t *testing.T) {
	h.add("declined", "", "ExecCondition=false")
	h.add("unmet", "ConditionPathExists=/none")
	for _, name := range []string{"declined", "unmet"} {
		m := h.withQMP(t, name)
		if err := m.Start(t.Context()); !errors.Is(err, vm.ErrSkipped) {
			t.Errorf("%s: %v", name, err)
		}
		vmtest.WantState(t, m, vm.Off)
	}
	h.add("broken", "", `ExecCondition=sh -c "exit 255"`)
	m := h.withQMP(t, "broken")
	if err := m.Start(t.Context()); errors.Is(err, vm.ErrSkipped) {
		t.Errorf("a condition that could not be told: %v", err)
	} else {
		vmtest.WantError(t, err, nil, "journalctl -u broken.service")
	}
	// Declined and then met: what the last start left does not count.
	h.add("declined", "", "ExecCondition=true")
	m = h.withQMP(t, "declined")
	start(t, m)
	if err := m.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}
}

func (h *host) failures(t *testing.T) {
	ctx := t.Context()
	h.add("dies", "", "ExecStart=", "ExecStart=false", "Restart=always", "RestartSec=1h")
	m := h.withQMP(t, "dies")
	vmtest.WantError(t, m.Start(ctx), nil, "journalctl -u dies.service")
	if state, err := m.State(ctx); err != nil || state.UsesDisks() {
		t.Errorf("after a start that failed it is %s, %v", state, err)
	}

	_, err := h.machine(t, "none", "").State(ctx)
	vmtest.WantError(t, err, nil, "is the name right?")
	h.Run("systemctl", "mask", "masked.service")
	vmtest.WantError(t, h.machine(t, "masked", "").Start(ctx), nil, "unmask")

	m, err = systemd.New(systemd.Options{Unit: "a.service", Connect: systemd.At("unix:path=/none")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.State(ctx)
	vmtest.WantError(t, err, nil, "D-Bus")
}

// A machine that comes after the unit that starts it does not wait for itself.
func (h *host) recoverAtBoot(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.add("later", "After=first.service")
	h.Write("/etc/systemd/system/first.service", fmt.Sprintf(
		"[Service]\nType=oneshot\nTimeoutStartSec=20\nEnvironment=%s=later.service\nExecStart=%s\n", startEnv, self))
	h.Run("systemctl", "daemon-reload")
	h.Run("systemctl", "start", "first.service")
	m := h.withQMP(t, "later")
	if err := m.Start(t.Context()); err != nil { // it is under way already
		t.Error(err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	for _, o := range []systemd.Options{
		{}, {Unit: "web"}, {Unit: "machine-qemu.scope"},
		{Unit: "web.service", QMPSocket: "qmp.sock"}, {Unit: "web.service", Console: "log"},
	} {
		if _, err := systemd.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	m, err := systemd.New(systemd.Options{Unit: "web.service", Console: "/log"})
	if err != nil || m.ConsolePath() != "/log" {
		t.Errorf("%v", err)
	}
}
