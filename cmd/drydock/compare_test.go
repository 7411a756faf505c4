package main_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// pipeTo runs a command whose output a pipe takes, as a backup program would: tar
// does not even read what goes to /dev/null.
func pipeTo(sink io.Writer, name string, args ...string) error {
	c := exec.Command(name, args...)
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{sink}, out, make([]byte, 1<<20)); err != nil {
		return err
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, errs.Bytes())
	}
	return nil
}

// kernelTar has the host's kernel mount a disk, and tar read it.
func kernelTar(t *testing.T, path string) error {
	dir, unmount := testmount.Image(t, path, "ro")
	defer unmount()
	return pipeTo(io.Discard, "tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", ".")
}

func dropCaches() error {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	return nil
}

// TestCompareTar reads everything of a disk of 37,000 files and 1.5 GB through the
// worker, as a tar, against the kernel's loop mount and tar, and against debugfs.
func TestCompareTar(t *testing.T) {
	benchdisk.Wanted(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		path := benchdisk.System(t, fstype)
		contenders := []benchdisk.Contender{
			{Name: "drydock tar", Run: func() error { return pipeTo(io.Discard, drydock, "tar", path) }},
			{Name: "loop mount and tar", Run: func() error { return kernelTar(t, path) }},
		}
		if fstype == "ext4" {
			contenders = append(contenders, benchdisk.Contender{Name: "debugfs rdump", Run: func() error {
				to, err := os.MkdirTemp("/dev/shm", "rdump")
				if err != nil {
					return err
				}
				defer os.RemoveAll(to)
				return exec.Command("debugfs", "-R", "rdump / "+to, path).Run()
			}})
		}
		for _, state := range []string{"warm", "cold"} {
			t.Run(fstype+"/"+state, func(t *testing.T) {
				rounds, before := 5, func() error { return nil }
				if state == "cold" {
					rounds, before = 3, dropCaches
				}
				benchdisk.Compare(t, rounds, before, contenders...)
			})
		}
	}
}

// TestCompareTarGuestmount reads everything of the same disk, as a tar, against guestmount
// and tar, once: that takes minutes. Guestmount's start counts, as drydock's does, but for
// what libguestfs keeps from one start to the next.
func TestCompareTarGuestmount(t *testing.T) {
	benchdisk.Wanted(t)
	path := benchdisk.System(t, "ext4")
	benchdisk.Guestmount(t, path) // libguestfs makes its appliance
	times := benchdisk.Compare(t, 1, nil,
		benchdisk.Contender{Name: "drydock tar", Run: func() error { return pipeTo(io.Discard, drydock, "tar", path) }},
		benchdisk.Contender{Name: "guestmount and tar", Run: func() error {
			dir := benchdisk.Guestmount(t, path)
			return pipeTo(io.Discard, "tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", ".")
		}})
	if times[1] < 30*times[0] {
		t.Errorf("drydock takes %s, and guestmount and tar %s: not 30 times as long", times[0], times[1])
	}
}

// TestCompareMillion reads a million files, and says how much memory the parent
// and the worker took at most together.
func TestCompareMillion(t *testing.T) {
	benchdisk.Wanted(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			path := benchdisk.Million(t, fstype)
			c := exec.Command(drydock, "tar", path)
			c.Stdout = nil // a file, which tar of our own does read for
			sum, took := memory(t, c)
			t.Logf("%s: a million files in %.1f s, at most %d MiB", fstype, took.Seconds(), sum>>20)
			if limit := int64(300e6); sum > limit {
				t.Errorf("%d bytes of memory, more than %d", sum, limit)
			}
		})
	}
}

// memory runs a command to its end. It returns the most memory that it had together with
// the processes that it started, in bytes, and how long it took.
func memory(t *testing.T, c *exec.Cmd) (most int64, took time.Duration) {
	t.Helper()
	must(t, c.Start())
	done, begun := make(chan error, 1), time.Now()
	go func() { done <- c.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%q: %v", c.Args, err)
			}
			return most, time.Since(begun)
		case <-time.After(20 * time.Millisecond):
			most = max(most, treeHighWater(c.Process.Pid))
		}
	}
}

// treeHighWater is the most memory that a process and those below it have had, in bytes. A
// VM that it has started is no part of it, nor is a fork, which is in its memory
// until it runs another program.
func treeHighWater(pid int) int64 {
	own := commandLine(pid)
	if strings.HasPrefix(own, "qemu-system") {
		return 0
	}
	sum := highWater(pid)
	for _, child := range children(pid) {
		if commandLine(child) != own {
			sum += treeHighWater(child)
		}
	}
	return sum
}

// commandLine is that of a process, which may have ended.
func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(text)
}

func children(pid int) (list []int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		more, _ := os.ReadFile(task)
		data = append(append(data, ' '), more...)
	}
	seen := map[int]bool{}
	for _, word := range strings.Fields(string(data)) {
		if n, err := strconv.Atoi(word); err == nil && !seen[n] {
			seen[n] = true
			list = append(list, n)
		}
	}
	return list
}

// highWater returns the most memory that a process has had in use, in bytes.
func highWater(pid int) int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
