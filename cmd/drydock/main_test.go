package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// The binary under test, built once.
var drydock string

// patience is how long what is not tested may take on a machine that is busy.
const patience = 5 * time.Minute

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "drydock-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	drydock = filepath.Join(dir, "drydock")
	c := exec.Command("go", "build", "-o", drydock, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	// Guests and servers are waited for more than processors. -parallel says otherwise.
	if err := flag.Set("test.parallel", fmt.Sprint(2*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// host is a folder that drydock takes for its host.
type host struct {
	t       *testing.T
	dir     string
	config  string
	where   string // the location of the repository
	env     []string
	machine strings.Builder // the vms: section
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, dir: dir, config: filepath.Join(dir, "drydock.yaml"), where: filepath.Join(dir, "repository")}
	t.Cleanup(func() {
		// Whatever a test left running ends with it.
		c := exec.Command(drydock, "--config", h.config, "stop", "--kill")
		if out, err := c.CombinedOutput(); err != nil {
			t.Logf("drydock stop --kill: %v\n%s", err, out)
		}
	})
	return h
}

// newWriterHost is a host with the VM web, which has disks, as the configuration has them;
// DIR in them is the host's folder. New images are written by a machine that boots the
// guests' kernel. KVM is not tried: it hangs where tests run.
func newWriterHost(t *testing.T, disks string) *host {
	t.Helper()
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
%[4]s`, h.dir, testguest.KernelFolder(t), testguest.ModulesFolder(t), strings.TrimPrefix(strings.ReplaceAll(disks, "DIR", h.dir), "\n")), 0o600))
	return h
}

// vm adds a guest to the configuration. extra are further lines of its section.
func (h *host) vm(g *testguest.Guest, extra ...string) {
	p := func(format string, args ...any) { fmt.Fprintf(&h.machine, format+"\n", args...) }
	p("  %s:", g.Name)
	p("    driver: qemu")
	command, err := json.Marshal(g.Command)
	if err != nil {
		h.t.Fatal(err)
	}
	p("    command: %s", command)
	p("    shutdown_timeout: 60s")
	p("    health: {timeout: 5m, interval: 200ms, probes: [{http: %q}]}", g.URL()+"/healthz")
	for _, e := range extra {
		p("    %s", e)
	}
	p("    disks:")
	p("      root: {path: %s, format: raw, mount: /, image: web, backup: off}", g.RootPath)
	p("      data: {path: %s, format: %s, mount: /var}", g.DataPath, g.DataFormat)
}

// write writes the configuration.
func (h *host) write() {
	h.t.Helper()
	text := fmt.Sprintf("state: %s\nruntime: %s\nrepository: {path: %s}\nimages: {web: {}}\nvms:\n%s",
		h.path("state"), h.path("run"), h.where, h.machine.String())
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) path(elements ...string) string {
	return filepath.Join(append([]string{h.dir}, elements...)...)
}

// result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, drydock, append([]string{"--config", h.config}, args...)...)
	c.Env = append(os.Environ(), h.env...)
	return c
}

// try runs drydock, whatever comes of it.
func (h *host) try(args ...string) result {
	h.t.Helper()
	var out, errs bytes.Buffer
	c := h.command(h.t.Context(), args...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("drydock %s: %v", strings.Join(args, " "), err)
	}
	r := result{out.String(), errs.String(), c.ProcessState.ExitCode()}
	h.t.Logf("drydock %s: exit %d\n%s%s", strings.Join(args, " "), r.code, clip(r.stdout), r.stderr)
	return r
}

// clip keeps the log of a test readable, and free of archives.
func clip(s string) string {
	const most = 3000
	if len(s) > most {
		return s[:most] + "…\n"
	}
	return s
}

// run runs drydock and fails the test unless it ends with code.
func (h *host) run(code int, args ...string) result {
	h.t.Helper()
	r := h.try(args...)
	if r.code != code {
		h.t.Fatalf("drydock %s: exit code %d, want %d", strings.Join(args, " "), r.code, code)
	}
	return r
}

// json runs drydock with --json and decodes what it prints.
func (h *host) json(into any, code int, args ...string) {
	h.t.Helper()
	r := h.run(code, append(args, "--json")...)
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		h.t.Fatalf("drydock %s: %v in %q", strings.Join(args, " "), err, r.stdout)
	}
}

// restic runs the real restic on the host's repository.
func (h *host) restic(args ...string) string {
	h.t.Helper()
	c := exec.CommandContext(h.t.Context(), "restic", append([]string{
		"--no-cache", "-r", h.where, "--password-file", h.path("state", "repository.key"),
	}, args...)...)
	out, err := c.CombinedOutput()
	if err != nil {
		h.t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// judged lets the real restic read every byte that was stored.
func (h *host) judged() {
	h.t.Helper()
	if out := h.restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
		h.t.Errorf("restic check: %s", out)
	}
}

// state is the state of a VM as drydock status has it.
func (h *host) state(vm string) string {
	h.t.Helper()
	var status struct{ VMs []struct{ VM, State string } }
	h.json(&status, 0, "status", vm)
	if len(status.VMs) != 1 {
		h.t.Fatalf("status of %s: %+v", vm, status)
	}
	return status.VMs[0].State
}

// healthy waits for a guest, and returns the version of its root disk.
func healthy(t *testing.T, g *testguest.Guest) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	version, err := g.WaitHealthy(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// within waits until something is done, and fails the test if patience ends before.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// killed runs drydock run and kills it with SIGKILL after a while. It reports
// whether that came in the middle of the round.
func (h *host) killed(after time.Duration) bool {
	h.t.Helper()
	c := h.command(h.t.Context(), "run")
	must(h.t, c.Start())
	timer := time.AfterFunc(after, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait() // killed, or done
	status, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}
