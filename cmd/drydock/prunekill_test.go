package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pruneConfig keeps the last two backups, and prunes only when asked.
const pruneConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {%[2]s, password_file: %[3]s}
retain: {last: 2}
prune: {every: 0s}
verify: {mode: off}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      data: {path: %[1]s/web.raw, format: raw, mount: /}
`

// moment is one in the life of a prune, told by what lies at the server.
type moment struct {
	name string
	// reached compares the number of files in a folder with that before.
	folder  string
	reached func(before, now int) bool
}

var moments = []moment{
	{"restic has locked the repository", "locks", func(before, now int) bool { return now > before }},
	{"a pack is new", "data", func(before, now int) bool { return now > before }},
	{"an index file is new", "index", func(before, now int) bool { return now > before }},
	{"packs are gone", "data", func(before, now int) bool { return now < before }},
}

// TestKillPruneOverTheNetwork kills prunes at servers in the middle: the real restic
// alone, and drydock with it. No lock is in the way of what comes next, which is a round
// and another prune, and all backups restore.
func TestKillPruneOverTheNetwork(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := retainHost(t)
	must(t, os.WriteFile(all.path("key"), []byte("a key of its own\n"), 0o600))
	for kind, p := range places(t, all) {
		t.Run(kind, func(t *testing.T) {
			h := retainHost(t)
			must(t, os.WriteFile(h.config, fmt.Appendf(nil, pruneConfig, h.dir, p.settings, all.path("key")), 0o600))
			n, hits := 2, 0
			for night := range n + 1 {
				h.night(night, 0)
			}
			for i, m := range moments {
				hit := h.killPrune(p.folder, m, i%2 == 0)
				t.Logf("%s: killed: %v", m.name, hit)
				if hit {
					hits++
				}
				n++
				h.night(n, 0) // no lock is in its way
				h.nights(n, n-1)
				if out, err := h.resticIn(p.folder, all.path("key"), "check"); err != nil {
					t.Errorf("%s: restic check: %v\n%s", m.name, err, out)
				}
			}
			if hits < 2 {
				t.Errorf("only %d of %d prunes were killed before they ended", hits, len(moments))
			}
			h.run(0, "backups", "prune")
			h.nights(n, n-1)
			if left := h.locks(p.folder); len(left) > 0 {
				t.Errorf("locks are left: %q", left)
			}
			if out, err := h.resticIn(p.folder, all.path("key"), "check", "--read-data"); err != nil || !strings.Contains(out, "no errors were found") {
				t.Errorf("restic check: %v\n%s", err, out)
			}
		})
	}
}

// nights makes sure that the backups are of these nights, newest first, and can be read.
func (h *host) nights(want ...int) {
	h.t.Helper()
	var got []string
	for _, l := range h.backups() {
		got = append(got, h.nightOf(l))
	}
	if g, w := strings.Join(got, " "), strings.Trim(fmt.Sprint(want), "[]"); g != w {
		h.t.Errorf("the backups are of the nights %s, want %s", g, w)
	}
}

// locks are the locks in a folder that a server has. An upload that died is none: it has
// a longer name, and is swept up a day later.
func (h *host) locks(folder string) []string {
	h.t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, "locks", "*"))
	must(h.t, err)
	return slices.DeleteFunc(all, func(path string) bool { return len(filepath.Base(path)) != 64 })
}

// resticIn runs the real restic on a folder that a server has.
func (h *host) resticIn(folder, key string, args ...string) (string, error) {
	args = append([]string{"--no-cache", "-r", folder, "--password-file", key}, args...)
	out, err := exec.CommandContext(h.t.Context(), "restic", args...).CombinedOutput()
	return string(out), err
}

// killPrune kills a prune at a moment: restic, or restic and drydock. It reports whether
// it came in time.
func (h *host) killPrune(folder string, m moment, both bool) bool {
	h.t.Helper()
	count := func() int {
		pattern := filepath.Join(folder, m.folder, "*")
		if m.folder == "data" {
			pattern = filepath.Join(pattern, "*")
		}
		files, err := filepath.Glob(pattern)
		must(h.t, err)
		return len(files)
	}
	before := count()
	c := h.command(h.t.Context(), "backups", "prune")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(h.t, c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case err := <-ended:
			must(h.t, err) // it was faster
			return false
		case <-time.After(time.Millisecond):
		}
		restic := child(c.Process.Pid)
		if restic == 0 || !m.reached(before, count()) {
			continue
		}
		if both {
			must(h.t, syscall.Kill(-c.Process.Pid, syscall.SIGKILL))
		} else {
			_ = syscall.Kill(restic, syscall.SIGKILL) // it may have ended just now
		}
		return <-ended != nil
	}
}

// child is the process that a process has started, or 0.
func child(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		data, _ := os.ReadFile(file) // gone with its thread
		var n int
		if _, err := fmt.Sscan(string(data), &n); err == nil {
			return n
		}
	}
	return 0
}
