package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/round"
)

const retainConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
retain: {last: 1, daily: 3}
max_age: 36h
prune: {every: 48h}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      data: {path: %[1]s/web.raw, format: raw, mount: /}
`

// retainHost is a host with a VM that is off. Its disk is written anew each night.
func retainHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, retainConfig, h.dir), 0o600))
	must(t, os.Mkdir(h.path("tree"), 0o755))
	return h
}

// night writes the VM's disk, sets the clock to that night, and runs a round.
func (h *host) night(n, code int) *round.Report {
	h.t.Helper()
	must(h.t, os.WriteFile(h.path("tree", "night"), fmt.Appendln(nil, n), 0o644))
	must(h.t, os.WriteFile(h.path("tree", "data"), []byte(strings.Repeat(fmt.Sprintf("night %d\n", n), 1000*(n+5))), 0o644))
	tool(h.t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", h.path("tree"), h.path("web.raw"), "16M")
	h.clock(24 * n)
	var report round.Report
	h.json(&report, code, "run")
	return &report
}

func (h *host) clock(hours int) { h.env = []string{fmt.Sprintf("DRYDOCK_CLOCK=%dh", hours)} }

// listed is one line of drydock backups list.
type listed struct {
	ID     string
	Pinned bool
	Note   string
}

// backups are those of the VM, newest first.
func (h *host) backups() []listed {
	h.t.Helper()
	var list []listed
	h.json(&list, 0, "backups", "list", "web")
	return list
}

// nightOf is the night that a backup is of, from its content.
func (h *host) nightOf(l listed) string {
	h.t.Helper()
	return strings.TrimSpace(h.run(0, "cat", "web@"+l.ID+":/night").stdout)
}

// A week of nights: the policy keeps what it says, prunes come when they are due,
// what is pinned stays, and restic finds all of it whole.
func TestNightsOfRetention(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	h.run(3, "status") // there is no backup, and max_age wants one
	for _, want := range []string{"then verify: sample: there was no proof yet\n", "then restic prune: there was no prune yet\n"} {
		if out := h.run(0, "plan").stdout; !strings.Contains(out, want) {
			t.Errorf("the plan has no %q: %s", want, out)
		}
	}
	var pruned []int
	for n := range 7 {
		report := h.night(n, 0)
		if report.Prune != nil {
			pruned = append(pruned, n)
		}
		goes := map[int]int{3: 1, 5: 1, 6: 1} // in night 4 it would be the pinned one's turn
		if r := report.VMs[0].Retain; r == nil || r.Policy != "keep-last 1, keep-daily 3" || len(r.Removed) != goes[n] {
			t.Errorf("night %d: retain %+v", n, r)
		}
		if n == 1 {
			h.run(0, "backups", "pin", "web@latest", "before", "the upgrade")
		}
	}
	if out := h.run(0, "plan").stdout; strings.Contains(out, "then") {
		t.Errorf("nothing is due, and the plan says: %s", out)
	}
	h.clock(24*7 + 1)
	var plan round.Plan
	if h.json(&plan, 0, "plan"); !plan.Verify.Due || !strings.Contains(plan.Verify.Reason, "the last proof is 25 hours old") || plan.Prune.Due {
		t.Errorf("a night later: %+v, %+v", plan.Verify, plan.Prune)
	}
	if got := fmt.Sprint(pruned); got != "[0 2 4 6]" {
		t.Errorf("pruned in the nights %s, want every second", got)
	}
	var nights []string
	for _, l := range h.backups() {
		nights = append(nights, h.nightOf(l))
		if l.Pinned != (l.Note == "before the upgrade") {
			t.Errorf("a backup is %+v", l)
		}
	}
	if got := strings.Join(nights, " "); got != "6 5 4 1" {
		t.Errorf("the backups left are of the nights %s", got)
	}
	h.judged()

	var status struct {
		VMs        []struct{ Alarm string }
		Repository struct {
			Backups, Pinned int
			FullInDays      *int  `json:"full_in_days"`
			PerDay          int64 `json:"per_day"`
		}
	}
	h.json(&status, 0, "status")
	if r := status.Repository; r.Backups != 4 || r.Pinned != 1 || r.PerDay <= 0 {
		t.Errorf("status of the repository: %+v", r)
	}
	h.clock(24*6 + 40) // two days in which drydock did not run
	h.json(&status, 3, "status")
	if a := status.VMs[0].Alarm; !strings.Contains(a, "missing") {
		t.Errorf("the alarm is %q", a)
	}
	h.backInTime()
}

// backInTime is a round after the clock went backwards: no policy removes what is
// from the future then.
func (h *host) backInTime() {
	h.t.Helper()
	before := len(h.backups())
	report := h.night(-3, 3)
	if r := report.VMs[0].Retain; len(r.FromFuture) != before || len(r.Removed) != 0 {
		h.t.Errorf("in the past: %+v", r)
	}
	if p := strings.Join(report.Problems(), "\n"); !strings.Contains(p, "clock was set back") {
		h.t.Errorf("in the past: %s", p)
	}
	if after := len(h.backups()); after != before+1 {
		h.t.Errorf("%d backups were there, and are %d", before, after)
	}
}

func TestRemoveBackups(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	for n := range 3 {
		h.night(n, 0)
	}
	all := h.backups()
	newest, middle, oldest := "web@"+all[0].ID, "web@"+all[1].ID, "web@"+all[2].ID
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{1, "last good backup", []string{oldest, newest}},
		{1, "no such backup", []string{oldest, "web@00000000"}},
		{2, "VM@BACKUP", []string{oldest, "web"}},
	} {
		if r := h.run(c.code, append([]string{"backups", "rm"}, c.args...)...); !strings.Contains(r.stderr, c.want) {
			t.Errorf("rm %q: %s", c.args, r.stderr)
		}
	}
	h.run(0, "backups", "pin", middle)
	if n := len(h.backups()); n != 3 {
		t.Fatalf("%d backups are left of 3", n)
	}
	middle = "web@" + h.backups()[1].ID // it has another ID now
	if r := h.run(1, "backups", "rm", middle); !strings.Contains(r.stderr, "pinned") {
		t.Errorf("rm of a pinned one: %s", r.stderr)
	}
	h.run(2, "backups", "note", middle, "two\nlines")
	h.run(0, "backups", "note", middle, "a note")
	if r := h.run(0, "backups", "show", "web@"+h.backups()[1].ID); !strings.Contains(r.stdout, "pinned: a note") {
		t.Errorf("show: %s", r.stdout)
	}
	h.run(0, "backups", "unpin", "web@"+h.backups()[1].ID)
	middle = "web@" + h.backups()[1].ID
	h.heldBackup(oldest)

	// What the plan says would go, and be freed, does and is.
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, strings.Replace(retainConfig, ", daily: 3", "", 1), h.dir), 0o600))
	var plan struct {
		VMs   []struct{ Backups []struct{ Keep []string } }
		Freed *int64
	}
	h.json(&plan, 0, "backups", "plan")
	if b := plan.VMs[0].Backups; len(b) != 3 || len(b[0].Keep) == 0 || len(b[1].Keep) != 0 || len(b[2].Keep) != 0 || plan.Freed == nil || *plan.Freed <= 0 {
		t.Errorf("the plan is %+v", plan)
	}
	h.run(0, "backups", "rm", oldest, middle, oldest)
	h.run(0, "backups", "retain")
	var prune round.PruneReport
	h.json(&prune, 0, "backups", "prune")
	if prune.After >= prune.Before || prune.After == 0 {
		t.Errorf("pruned: %+v", prune)
	}
	h.run(0, "backups", "rm", "--force", newest)
	h.judged()

	must(t, os.WriteFile(h.path("state", "repository.key"), []byte("another\n"), 0o600))
	if r := h.run(3, "status"); !strings.Contains(r.stderr, "wrong password") || strings.Contains(r.stdout, "missing") {
		t.Errorf("status with a wrong key: %s%s", r.stdout, r.stderr)
	}
}

// heldBackup is a VM whose disks lie on its oldest backup: until they are filled in,
// nobody takes that away, nor gives it another ID.
func (h *host) heldBackup(oldest string) {
	h.t.Helper()
	before := h.backups()
	folder := h.path("state", "from-backup", "web")
	must(h.t, os.MkdirAll(folder, 0o700))
	must(h.t, os.WriteFile(filepath.Join(folder, "record.json"), fmt.Appendf(nil, `{"vm": "web", "backup": %q}`, before[2].ID), 0o600))
	for _, args := range [][]string{{"rm", oldest}, {"rm", "--force", "web@" + before[1].ID, oldest}, {"pin", oldest}, {"note", oldest, "a note"}} {
		if r := h.run(1, append([]string{"backups"}, args...)...); !strings.Contains(r.stderr, "drydock start-from-backup web") {
			h.t.Errorf("%q: %s", args, r.stderr)
		}
	}
	config, err := os.ReadFile(h.config)
	must(h.t, err)
	must(h.t, os.WriteFile(h.config, fmt.Appendf(nil, strings.Replace(retainConfig, ", daily: 3", "", 1), h.dir), 0o600))
	if out := h.run(0, "backups", "plan").stdout; !strings.Contains(out, "its VM hangs on a backup") || !strings.Contains(out, "0 would be removed") {
		h.t.Errorf("the plan: %s", out)
	}
	for _, args := range [][]string{{"retain"}, {"retain", "web"}} {
		if r := h.run(3, append([]string{"backups"}, args...)...); !strings.Contains(r.stderr, "drydock start-from-backup web") {
			h.t.Errorf("%q: %s", args, r.stderr)
		}
	}
	// Nobody knows what a record says that cannot be read.
	must(h.t, os.WriteFile(filepath.Join(folder, "record.json"), []byte("{"), 0o600))
	h.run(1, "backups", "rm", oldest)
	h.run(3, "backups", "retain")
	if after := h.backups(); !slices.Equal(before, after) {
		h.t.Errorf("%v became %v", before, after)
	}
	must(h.t, os.RemoveAll(folder))
	must(h.t, os.WriteFile(h.config, config, 0o600))
}
