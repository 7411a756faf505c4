//go:build linux

package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qemu"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
	"github.com/drydock-vm/drydock/internal/vm/vmtest"
)

// starterEnv makes this test binary a process that starts a machine, and is
// killed in the middle of its life.
const starterEnv = "DRYDOCK_TEST_STARTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(starterEnv); dir != "" {
		machine, err := qemu.New(options(dir, firmware()...))
		if err == nil {
			err = machine.Start(context.Background())
		}
		fmt.Println("started:", err)
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

// firmware is a machine that has nothing to boot from, and a firmware that does
// not react to the power button.
func firmware(args ...string) []string {
	return append([]string{"qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-m", "16"}, args...)
}

func options(dir string, command ...string) qemu.Options {
	return qemu.Options{
		Name: "web", Command: command,
		RuntimeDir: filepath.Join(dir, "run", "vm", "web"), LogDir: filepath.Join(dir, "log"),
	}
}

func open(t *testing.T, o qemu.Options) *qemu.Machine {
	t.Helper()
	m, err := qemu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// deadline ends what hangs; a guest on a busy machine takes minutes.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pid returns the process of a machine that runs.
func pid(t *testing.T, o qemu.Options) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.RuntimeDir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDeafGuest(t *testing.T) {
	o := options(t.TempDir(), firmware()...)
	open(t, o)
	vmtest.Deaf(t, func() vm.Machine { return open(t, o) })
}

func TestObedientGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	g := testguest.New(t, testguest.Options{Name: "web"})
	o := options(t.TempDir(), g.Command...)
	vmtest.Obedient(t, func() vm.Machine { return open(t, o) }, func(ctx context.Context) error {
		_, err := g.WaitHealthy(ctx)
		return err
	})
	console, err := os.ReadFile(open(t, o).ConsolePath())
	if err != nil || !strings.Contains(string(console), "testguest: ready v1") {
		t.Errorf("console %q, %v", console, err)
	}
}

// A machine outlives whoever started it, and is found again.
func TestOutlivesItsStarter(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	o := options(dir, firmware()...)
	m := open(t, o)

	lock, err := os.Create(filepath.Join(dir, "lock of the starter"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	starter := exec.Command(os.Args[0])
	starter.Env = append(os.Environ(), starterEnv+"="+dir, "NOTIFY_SOCKET=/nowhere")
	starter.Stdout = input
	starter.ExtraFiles = []*os.File{lock} // not marked to be closed on exec
	starter.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	input.Close()
	said := make([]byte, 100)
	n, err := output.Read(said)
	if err != nil || string(said[:n]) != "started: <nil>\n" {
		t.Errorf("the starter said %q, %v", said[:n], err)
	}
	if err := syscall.Kill(-starter.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = starter.Wait()

	if state, err := m.State(ctx); err != nil || state != vm.Running {
		t.Fatalf("after its starter was killed the machine is %q, %v", state, err)
	}
	// The starter's output has no other writer now, so none is in QEMU.
	if n, err := output.Read(said); n != 0 || err == nil {
		t.Errorf("the output of the starter is still open: %q, %v", said[:n], err)
	}
	checkIsolation(t, pid(t, o), lock)
}

// checkIsolation looks at what a QEMU has of the process that started it.
func checkIsolation(t *testing.T, pid int, lock *os.File) {
	t.Helper()
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("the session of process %d is %d, %v", pid, sid, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("open files: %d, %v", len(fds), err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && to == lock.Name() {
			t.Errorf("file %s is open: %s", fd.Name(), to)
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || strings.Contains(string(environ), "NOTIFY_SOCKET") || !strings.Contains(string(environ), "PATH=") {
		t.Errorf("environment %q, %v", environ, err)
	}
}

// A pidfile without its lock is nothing, whatever process it names.
func TestStalePidfile(t *testing.T) {
	ctx := deadline(t)
	o := options(t.TempDir(), firmware()...)
	m := open(t, o)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid(t, o), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for state := vm.Running; state != vm.Off; {
		var err error
		if state, err = m.State(ctx); err != nil {
			t.Fatal(err)
		}
	}
	pid(t, o) // it is still there
	// The number has gone to another process: this one.
	if err := os.WriteFile(filepath.Join(o.RuntimeDir, "pid"), fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Off {
		t.Errorf("with a stale pidfile the machine is %q, %v", state, err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Errorf("kill with a stale pidfile: %v", err)
	}
	if err := m.Start(ctx); err != nil {
		t.Errorf("start with a stale pidfile: %v", err)
	}
}

// What somebody paused stays paused, and no wait is lost on it.
func TestPaused(t *testing.T) {
	ctx := deadline(t)
	o := options(t.TempDir(), firmware()...)
	m := open(t, o)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := qmp.Dial(ctx, filepath.Join(o.RuntimeDir, "qmp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := m.Start(ctx); !errors.Is(err, vm.ErrPaused) {
		t.Errorf("start: %v", err)
	}
	if err := m.Shutdown(ctx, time.Hour); !errors.Is(err, vm.ErrPaused) {
		t.Errorf("shutdown: %v", err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Paused {
		t.Errorf("the machine is %q, %v", state, err)
	}
}

// A QEMU that hangs is running, and can be killed.
func TestHangs(t *testing.T) {
	ctx := deadline(t)
	o := options(t.TempDir(), firmware()...)
	m := open(t, o)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid(t, o), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Running {
		t.Errorf("the machine is %q, %v", state, err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Off {
		t.Errorf("after the kill the machine is %q, %v", state, err)
	}
}

// When QEMU gives up, the error has its words and the likely fix.
func TestGivesUp(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := options(filepath.Join(dir, "holder"), firmware("-drive", "format=raw,file="+disk)...)
	if err := open(t, holder).Start(ctx); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, c := range []struct{ name, command, words, hint string }{
		{"disk in use", strings.Join(holder.Command, " "), `Failed to get "write" lock`, "another process uses that disk image"},
		{"port in use", fmt.Sprintf("qemu-system-x86_64 -accel tcg -netdev user,id=n,hostfwd=tcp:%s-:80", listener.Addr()),
			"Could not set up host forwarding rule", "another program uses that port"},
		{"no disk", "qemu-system-x86_64 -accel tcg -drive format=raw,file=/none\x1b[2J", `Could not open '/none\u{1b}[2J'`, "paths have to be absolute"},
		{"no such option", "qemu-system-x86_64 -acel tcg", "invalid option", "misspelt"},
		{"not QEMU", "true", "QEMU ended at once", "qemu.log"},
		{"not installed", "qemu-system-none", "not found", "install QEMU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := open(t, options(filepath.Join(t.TempDir()), strings.Split(c.command, " ")...))
			err := m.Start(ctx)
			var failed *vm.Error
			if !errors.As(err, &failed) || failed.VM != "web" || failed.Op != "start" {
				t.Fatalf("error %v", err)
			}
			if !strings.Contains(err.Error(), c.words) || !strings.Contains(failed.Hint, c.hint) {
				t.Errorf("error %v", err)
			}
			if state, err := m.State(ctx); err != nil || state != vm.Off {
				t.Errorf("the machine is %q, %v", state, err)
			}
		})
	}
}

// A start that is called off leaves nothing behind.
func TestStartCalledOff(t *testing.T) {
	o := options(t.TempDir(), "sh", "-c", "exec sleep 600")
	m := open(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := m.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if state, err := m.State(deadline(t)); err != nil || state != vm.Off {
		t.Errorf("the machine is %q, %v", state, err)
	}
}

// While one process starts the machine, others see that.
func TestStarting(t *testing.T) {
	o := options(t.TempDir(), "sh", "-c", "exec sleep 600")
	m := open(t, o)
	ctx, cancel := context.WithCancel(deadline(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.Start(ctx)
	}()
	for state := vm.Off; state != vm.Starting; {
		var err error
		if state, err = open(t, o).State(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// It is not off either: it may be about to run.
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if err := open(t, o).Shutdown(short, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown meanwhile: %v", err)
	}
	if err := open(t, o).Shutdown(ctx, 50*time.Millisecond); !errors.Is(err, vm.ErrShutdownTimeout) {
		t.Errorf("shutdown meanwhile, in a hurry: %v", err)
	}
	cancel()
	<-ended
}

func TestLongLogIsSetAside(t *testing.T) {
	ctx := deadline(t)
	o := options(t.TempDir(), firmware()...)
	m := open(t, o)
	if err := os.MkdirAll(o.LogDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.ConsolePath(), make([]byte, 17<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	old, err1 := os.Stat(m.ConsolePath() + ".1")
	now, err2 := os.Stat(m.ConsolePath())
	if err := errors.Join(err1, err2); err != nil || old.Size() != 17<<20 || now.Size() > 1<<20 || now.Mode().Perm() != 0o600 {
		t.Errorf("the console is %v, the old one %v, %v", now, old, err)
	}
}
