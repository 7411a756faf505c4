package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/round"
)

// resticAt runs restic on the copy in a folder of the host.
func (h *host) resticAt(name string, args ...string) string {
	h.t.Helper()
	c := exec.CommandContext(h.t.Context(), "restic", append([]string{
		"--no-cache", "-r", h.path(name), "--password-file", h.path(name + ".key"),
	}, args...)...)
	out, err := c.CombinedOutput()
	if err != nil {
		h.t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestNightsOfCopies: each round brings its backups to the other places, each with its
// own policy. One that is not there for some nights is a warning, and gets what it
// missed; restic finds all of them whole.
func TestNightsOfCopies(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	config := retainConfig + `copies:
  - {path: %[1]s/away/near, password_file: %[1]s/away/near.key, retain: {last: 2}}
  - {path: %[1]s/away/all, password_file: %[1]s/away/all.key, retain: {}}
`
	must(t, os.Mkdir(h.path("away"), 0o700))
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))
	if out := h.run(0, "plan").stdout; !strings.Contains(out, "then to "+h.path("away", "near")+": what is missing there\n") {
		t.Errorf("the plan: %s", out)
	}
	type counts struct{ copied, present, unwanted, removed int }
	of := func(c *round.CopyReport) counts { return counts{c.Copied, c.Present, c.Unwanted, len(c.Removed)} }
	for n, want := range []struct{ near, all counts }{
		{counts{1, 0, 0, 0}, counts{1, 0, 0, 0}},
		{counts{1, 1, 0, 0}, counts{1, 1, 0, 0}},
		{counts{1, 2, 0, 1}, counts{1, 2, 0, 0}},
	} {
		report := h.night(n, 0)
		if len(report.Copies) != 2 {
			t.Fatalf("night %d: %+v", n, report.Copies)
		}
		if near, all := of(report.Copies[0]), of(report.Copies[1]); near != want.near || all != want.all {
			t.Errorf("night %d: %+v and %+v, want %+v", n, near, all, want)
		}
		if p := report.Copies[0].Prune; (p != nil) != (n != 1) { // every second night
			t.Errorf("night %d: pruned %+v", n, p)
		}
		if p := report.Copies[1].Prune; p != nil {
			t.Errorf("night %d: pruned where all is kept: %+v", n, p)
		}
	}
	// The places are gone for two nights; a file is where they were.
	must(t, os.Rename(h.path("away"), h.path("home")))
	must(t, os.WriteFile(h.path("away"), nil, 0o600))
	for n := 3; n < 5; n++ {
		report := h.night(n, 3)
		if p := report.Problems(); len(p) != 2 || !strings.Contains(p[0], "copy to "+h.path("away", "near")) || report.VMs[0].Backup == nil {
			t.Errorf("without the places: %q", p)
		}
	}
	must(t, os.Remove(h.path("away")))
	must(t, os.Rename(h.path("home"), h.path("away")))
	// The repository has the nights 3 to 5 now, the copies up to night 2.
	report := h.night(5, 0)
	if near, all := of(report.Copies[0]), of(report.Copies[1]); near.copied != 2 || near.removed != 2 || all.copied != 3 || all.removed != 0 {
		t.Errorf("the night after: %+v and %+v", near, all)
	}
	h.judged()
	for name, want := range map[string]int{"near": 2, "all": 6} {
		at := filepath.Join("away", name)
		if out := h.resticAt(at, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
			t.Errorf("%s: %s", name, out)
		}
		if out := h.resticAt(at, "snapshots", "--compact", "-q"); strings.Count(out, " web ") != want {
			t.Errorf("%s has not %d snapshots: %s", name, want, out)
		}
		out := h.resticAt(at, "dump", "latest", "/night")
		if !strings.HasSuffix(out, "5\n") {
			t.Errorf("the latest in %s is of night %s", name, out)
		}
	}
	var lines []struct{ Copied, Present, Unwanted int }
	h.json(&lines, 0, "backups", "copy")
	if len(lines) != 2 || lines[0].Copied != 0 || lines[0].Unwanted == 0 || lines[1].Copied != 0 {
		t.Errorf("backups copy: %+v", lines)
	}
	// What the policy of the place does not keep is in no plan of a copy, however
	// often it is tried, and the report tells it for people too.
	if out := h.run(0, "run").stdout; !strings.Contains(out, "copy: "+h.path("away", "near")+": ") {
		t.Errorf("the report: %s", out)
	}
}

// TestCopyDamaged: a snapshot that cannot be read is an error, and does not keep the
// others. A VM that nobody knows is none that has been copied.
func TestCopyDamaged(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	for n := range 3 {
		h.night(n, 0)
	}
	config := retainConfig + "copies: [{path: %[1]s/all, password_file: %[1]s/all.key, retain: {}}]\n"
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, config, h.dir), 0o600))
	if r := h.run(2, "backups", "copy", "wbe"); !strings.Contains(r.stderr, `"wbe"`) {
		t.Errorf("a VM that is not there: %s", r.stderr)
	}
	bad := h.backups()[1].ID
	path := h.path("repository", "snapshots", bad)
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, []byte("no snapshot"), 0o600))
	for _, want := range []string{": 2 backups copied, 0 there already", ": 0 backups copied, 2 there already"} {
		if r := h.run(1, "backups", "copy"); !strings.Contains(r.stdout, want) || !strings.Contains(r.stderr, bad[:8]) {
			t.Errorf("want %q: %s%s", want, r.stdout, r.stderr)
		}
	}
	h.resticAt("all", "check", "--read-data")
}

// TestEmptyBackup: a round beside a backup whose file is empty, as a server that crashed
// may leave it, does its work, and says so once. Restic finds all whole when it was
// taken away.
func TestEmptyBackup(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := retainHost(t)
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, pruneConfig, h.dir, "path: "+h.path("repository"), h.path("state", "repository.key")), 0o600))
	h.night(0, 0)
	must(t, os.WriteFile(h.path("repository", "snapshots", strings.Repeat("a0", 32)), nil, 0o600))
	problems := h.night(1, 3).Problems()
	if len(problems) != 1 || strings.Count(problems[0], "load snapshot") != 1 || !strings.Contains(problems[0], "drydock backups rm --unreadable a0a0a0a0") {
		t.Errorf("the round says: %q", problems)
	}
	h.run(0, "backups", "rm", "--unreadable", "a0a0a0a0")
	h.night(2, 0)
	h.nights(2, 1)
	h.judged()
}
