//go:build linux

package qemu_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/snapshot"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qemu"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// What the package promises to its callers.
var (
	_ vm.Machine           = (*qemu.Machine)(nil)
	_ vm.Console           = (*qemu.Machine)(nil)
	_ snapshot.LiveDeleter = (*qemu.Machine)(nil)
)

func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func makeDisk(t *testing.T, path string, snapshots ...string) {
	t.Helper()
	qemuImg(t, "create", "-q", "-f", "qcow2", path, "16M")
	for _, s := range snapshots {
		qemuImg(t, "snapshot", "-c", s, path)
	}
}

// checkSnapshots fails unless a disk that is in use has just these snapshots.
func checkSnapshots(t *testing.T, path string, want ...string) {
	t.Helper()
	var got []string
	for i, line := range strings.Split(strings.TrimSpace(qemuImg(t, "snapshot", "-U", "-l", path)), "\n") {
		if fields := strings.Fields(line); i >= 2 && len(fields) > 1 {
			got = append(got, fields[1])
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has the snapshots %q, want %q", path, got, want)
	}
}

// However a disk was given to QEMU, its snapshot is found by the disk's file.
func TestDeleteSnapshot(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	drive, block, other := filepath.Join(dir, "drive,1.qcow2"), filepath.Join(dir, "block.qcow2"), filepath.Join(dir, "other.qcow2")
	makeDisk(t, drive, "keep", "drop")
	makeDisk(t, block, "drop")
	makeDisk(t, other, "drop")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(drive, link); err != nil {
		t.Fatal(err)
	}
	m := open(t, options(dir, firmware(
		"-drive", "if=none,id=d0,format=qcow2,file="+strings.ReplaceAll(link, ",", ",,"), "-device", "nvme,serial=a,drive=d0",
		"-blockdev", "driver=qcow2,node-name=b0,file.driver=file,file.filename="+block, "-device", "nvme,serial=b,drive=b0",
	)...))
	if err := m.DeleteSnapshot(ctx, drive, "drop"); err == nil {
		t.Error("it went well on a machine that is off")
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, disk := range []string{drive, block} {
		for range 2 { // the second time there is nothing to do
			if err := m.DeleteSnapshot(ctx, disk, "drop"); err != nil {
				t.Errorf("%s: %v", disk, err)
			}
		}
	}
	checkSnapshots(t, drive, "keep")
	checkSnapshots(t, block)

	err := m.DeleteSnapshot(ctx, other, "drop")
	var failed *vm.Error
	if !errors.As(err, &failed) || failed.VM != "web" || !strings.Contains(err.Error(), "no qcow2 disk") {
		t.Errorf("a disk of another machine: %v", err)
	}
	checkSnapshots(t, other, "drop")
	if err := m.DeleteSnapshot(ctx, filepath.Join(dir, "none"), "drop"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disk that is not there: %v", err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Running {
		t.Errorf("afterwards the machine is %q, %v", state, err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Error(err)
	}
	qemuImg(t, "check", "-q", drive)
	qemuImg(t, "check", "-q", block)
}

// QEMU serves one client at a time and lets two more wait. While somebody is at
// it the state can be told, and all who ask get their turn afterwards.
func TestMonitorIsBusy(t *testing.T) {
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
	defer c.Close()
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	// It cannot be told that it is paused.
	if state, err := m.State(ctx); err != nil || state != vm.Running {
		t.Errorf("while another client is connected the machine is %q, %v", state, err)
	}
	// One that does wait its turn gets to know it, behind more than have a
	// place in the line.
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := m.Shutdown(ctx, time.Minute); !errors.Is(err, vm.ErrPaused) {
				t.Errorf("shutdown: %v", err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // for the line to form; right without it too
	c.Close()
	all.Wait()
	if state, err := m.State(ctx); err != nil || state != vm.Paused {
		t.Errorf("the machine is %q, %v", state, err)
	}
}

// The lock on the pidfile alone keeps a second QEMU from starting, such as one
// whose drydock was killed between its start and that lock.
func TestSecondQEMUGivesUp(t *testing.T) {
	ctx := deadline(t)
	o := options(t.TempDir(), firmware()...)
	m := open(t, o)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := pid(t, o)
	second := exec.CommandContext(ctx, o.Command[0], append(o.Command[1:], "-display", "none",
		"-pidfile", filepath.Join(o.RuntimeDir, "pid"), "-drive", "format=raw,file=/would/be/opened/next")...)
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "lock pid file") {
		t.Errorf("the second QEMU: %v\n%s", err, out)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Running || pid(t, o) != first {
		t.Errorf("the machine is %q, %v", state, err)
	}
}

// A runtime folder may have a name that is too long for a socket's address.
func TestLongRuntimeDir(t *testing.T) {
	ctx := deadline(t)
	o := options(filepath.Join(t.TempDir(), strings.Repeat("long/", 40)), firmware()...)
	m := open(t, o)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if state, err := open(t, o).State(ctx); err != nil || state != vm.Running {
		t.Errorf("the machine is %q, %v", state, err)
	}
	info, err := os.Stat(o.RuntimeDir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the runtime folder is %v, %v", info.Mode(), err)
	}
}

// What is called off before it has begun does nothing.
func TestCalledOff(t *testing.T) {
	ctx := deadline(t)
	m := open(t, options(t.TempDir(), firmware()...))
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	off, cancel := context.WithCancel(ctx)
	cancel()
	if err := m.Kill(off); !errors.Is(err, context.Canceled) {
		t.Errorf("kill: %v", err)
	}
	if err := m.Shutdown(off, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	if state, err := m.State(ctx); err != nil || state != vm.Running {
		t.Errorf("the machine is %q, %v", state, err)
	}
}
