package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/state"
)

// withCopy is [backedUp] with a copy that has the settings, and the folder of the copy.
func withCopy(t *testing.T, settings string) (config, there string) {
	t.Helper()
	config, _ = backedUp(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "copies: [{path: copy"+settings+"}]\n"...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	return config, filepath.Join(filepath.Dir(config), "copy")
}

// largest is the largest pack of a repository: that with the content of the letter.
func largest(t *testing.T, repo string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(repo, "data", "*", "*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("packs in %s: %v", repo, err)
	}
	path, size := "", int64(0)
	for _, name := range all {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			path, size = name, info.Size()
		}
	}
	return path
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[30] ^= 4
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A copy is looked at as the repository is, and what was found there is told apart from
// what was found in the repository.
func TestVerifyCopy(t *testing.T) {
	config, there := withCopy(t, ", name: nas")
	if out, errs, code := run(t, "-c", config, "verify", "--mode", "full", "--copy", "nas"); code != 0 || strings.Count(out, "  good\n") != 1 {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	out, _, _ := run(t, "-c", config, "status")
	if _, copies, _ := strings.Cut(out, "COPY  VM   BACKUP    PROVEN\n"); copies != "nas   web  just now  just now (full)\n" || !strings.Contains(out, "  never   -\n") {
		t.Errorf("status: %s", out)
	}
	flip(t, largest(t, there))
	for _, name := range []string{"nas", there} {
		if out, errs, code := run(t, "-c", config, "verify", "--mode", "full", "--copy", name); code != 1 || !strings.Contains(out, "DAMAGED: 1 files") {
			t.Errorf("exit code %d, %q, %q", code, out, errs)
		}
	}
	if _, errs, code := run(t, "-c", config, "verify", "--mode", "full"); code != 0 {
		t.Errorf("the repository: exit code %d, %q", code, errs)
	}
	var status hostStatus
	out, _, _ = run(t, "-c", config, "status", "--json")
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.VMs[0].Proven.Damaged != 0 || status.Copies[0].VMs[0].Proven.Damaged != 1 || status.Copies[0].Backups != 1 {
		t.Errorf("status: %v, %s", err, out)
	}
	for want, args := range map[string][]string{
		`no copy "nsa"`: {"--copy", "nsa"}, "--copy does not go with --mode boot": {"--copy", "nas", "--mode", "boot"},
	} {
		if _, errs, code := run(t, append([]string{"-c", config, "verify"}, args...)...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, %q", args, code, errs)
		}
	}
}

// Packs that lay at a copy before it had ecc get their parity when it is verified, and
// are repaired with it.
func TestParityOfOldCopy(t *testing.T) {
	config, there := withCopy(t, "")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("{path: copy}"), []byte("{path: copy, name: nas, ecc: 5}"), 1)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := run(t, "-c", config, "verify", "--mode", "full", "--copy", "nas"); code != 0 {
		t.Fatalf("exit code %d, %q", code, errs)
	}
	flip(t, largest(t, there))
	if out, _, code := run(t, "-c", config, "verify", "--mode", "full", "--copy", "nas"); code != 1 || !strings.Contains(out, "it can be repaired: drydock verify --copy nas --repair") {
		t.Errorf("exit code %d, %q", code, out)
	}
	if out, errs, code := run(t, "-c", config, "verify", "--copy", "nas", "--repair"); code != 0 || !strings.Contains(out, "repaired: pack") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

// A copy that falls behind is an alarm, as old as the VM or the copy allows, and one
// that cannot be looked at is another.
func TestStatusOfCopies(t *testing.T) {
	config, there := withCopy(t, ", name: nas, max_age: 36h")
	a := &app{configPath: config, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	status := func(late time.Duration) (string, error) {
		out := new(bytes.Buffer)
		a.stdout, a.now = out, func() time.Time { return time.Now().Add(late) }
		err := a.status(t.Context(), nil)
		return out.String(), err
	}
	if out, err := status(35 * time.Hour); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	var exit *exitError
	out, err := status(50 * time.Hour)
	if !errors.As(err, &exit) || exit.code != exitWarnings || !strings.Contains(err.Error(), "web: at the copy nas a backup is missing: the newest good one is") || !strings.Contains(out, "2 days ago (!)  never\n") {
		t.Errorf("%s, %v", out, err)
	}
	if err := errors.Join(os.Rename(there, there+".away"), os.WriteFile(there, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := status(0); !errors.As(err, &exit) || exit.code != exitWarnings || !strings.Contains(out, "! the copy nas cannot be looked at as a whole: ") {
		t.Errorf("%s, %v", out, err)
	}
}

// Each place has a schedule of its own.
func TestCopiesAreProvenInRounds(t *testing.T) {
	config, _ := withCopy(t, ", verify: {mode: quick, every: 48h}")
	now := time.Now()
	a := &app{configPath: config, now: func() time.Time { return now }, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	h, err := a.openHost(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	c := copies{h: h}
	place := c.Places()[0]
	p, err := c.Proofs(place)
	if err != nil {
		t.Fatal(err)
	}
	for _, night := range []struct {
		hours int
		due   bool
	}{{0, true}, {24, false}, {48, true}} {
		if rep, err := h.proofs().Prove(t.Context(), func(string) {}); err != nil || rep == nil || rep.Mode != "sample" {
			t.Errorf("the repository, %d hours later: %+v, %v", night.hours, rep, err)
		}
		rep, err := p.Prove(t.Context(), func(string) {})
		if err != nil || (rep != nil) != night.due || rep != nil && (rep.Mode != "quick" || rep.Backups != 1) {
			t.Errorf("%d hours later: %+v, %v", night.hours, rep, err)
		}
		now = now.Add(24 * time.Hour)
	}
	var last *state.Proof
	if last, err = h.db.LastProof(t.Context(), place, "web"); err != nil || last == nil || last.Mode != "quick" {
		t.Errorf("the state has %+v, %v", last, err)
	}
}

// What the repository has lost comes back from its copy, and what a copy has lost from
// the repository: by hand when that is asked for, and in rounds at copies.
func TestHealFromTheOtherPlace(t *testing.T) {
	config, there := withCopy(t, ", name: nas")
	here := filepath.Join(filepath.Dir(config), "repo")
	for _, c := range []struct {
		repo string
		args []string
	}{{there, []string{"--copy", "nas"}}, {here, nil}} {
		pack := largest(t, c.repo)
		flip(t, pack)
		args := append([]string{"-c", config, "verify", "--mode", "full"}, c.args...)
		if out, _, code := run(t, args...); code != 1 || strings.Contains(out, "replaced") {
			t.Errorf("%v: exit code %d, %q", args, code, out)
		}
		if out, errs, code := run(t, append(args, "--repair")...); code != 0 || !strings.Contains(out, "replaced: pack "+filepath.Base(pack)[:8]) {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out, errs)
		}
		var report verifyReport
		out, _, code := run(t, append(args, "--json")...)
		if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || report.Damage == nil || report.Spare != 0 {
			t.Errorf("%v: exit code %d, %v, %s", args, code, err, out)
		}
		if _, err := os.Stat(pack); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the damaged pack is there still: %v", err)
		}
	}
}

// In a round a copy is healed without anybody asking, and the round says so.
func TestRoundHealsCopies(t *testing.T) {
	config, there := withCopy(t, ", name: nas, verify: {mode: full}")
	a := &app{configPath: config, now: time.Now, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	h, err := a.openHost(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	flip(t, largest(t, there))
	c := copies{h: h, b: &backups{h: h}}
	p, err := c.Proofs(c.Places()[0])
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := p.Prove(t.Context(), func(string) {}); err != nil || rep.Mended != 1 || rep.DamageTotal != 0 || rep.Damaged != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	// What a writer has left that was cut off was not damaged.
	if err := os.RemoveAll(filepath.Join(there, "index")); err != nil {
		t.Fatal(err)
	}
	now := p.(*proofs)
	if r, err := now.run(t.Context(), func(string) {}); err != nil || now.report(r).Mended != 0 || now.report(r).Indexed == 0 || now.report(r).DamageTotal != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	// And on the way, what is plainly gone.
	if err := os.Remove(largest(t, there)); err != nil {
		t.Fatal(err)
	}
	if rep, err := c.Copy(t.Context(), c.Places()[0]); err != nil || !strings.Contains(rep.Mended, "1 packs were gone") || rep.Present != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := os.RemoveAll(filepath.Join(there, "index")); err != nil {
		t.Fatal(err)
	}
	if rep, err := c.Copy(t.Context(), c.Places()[0]); err != nil || rep.Mended != "1 backups were in no index file; all of it is there again" || rep.Present != 1 || rep.Blobs > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if out, errs, code := run(t, "-c", config, "verify", "--mode", "full", "--copy", "nas"); code != 0 {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

// A backup whose own file cannot be read comes back from the other place, and its file
// goes; one of which nobody knows what it was is said, and stays.
func TestUnreadableBackups(t *testing.T) {
	config, there := withCopy(t, ", name: nas")
	here := filepath.Join(filepath.Dir(config), "repo")
	snapshot := func(repo string) string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(repo, "snapshots", "*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("%q, %v", all, err)
		}
		return all[0]
	}
	// At the copy: copying does it.
	bad := snapshot(there)
	flip(t, bad)
	if out, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 || !strings.Contains(out, "1 backups copied, 0 there already") || !strings.Contains(out, "1 backups could not be read; all of it is there again") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	if snapshot(there) == bad {
		t.Error("the file that cannot be read is there still")
	}
	// And so does a repair, at either place.
	for _, c := range []struct {
		repo string
		args []string
	}{{there, []string{"--copy", "nas"}}, {here, nil}} {
		bad := snapshot(c.repo)
		flip(t, bad)
		args := append([]string{"-c", config, "verify"}, c.args...)
		if out, _, code := run(t, args...); code != 1 || !strings.Contains(out, filepath.Base(bad)) {
			t.Errorf("%v: exit code %d, %q", args, code, out)
		}
		if out, errs, code := run(t, append(args, "--repair")...); code != 0 || !strings.Contains(out, "brought back: backup "+filepath.Base(bad)[:8]) || strings.Count(out, "  good\n") != 1 {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out, errs)
		}
		if snapshot(c.repo) == bad {
			t.Error("the file that cannot be read is there still")
		}
	}
	if out, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 || !strings.Contains(out, "0 backups copied, 1 there already") {
		t.Errorf("afterwards: exit code %d, %q, %q", code, out, errs)
	}
	for _, repo := range []string{here, there} {
		key := filepath.Join(filepath.Dir(config), "state", "repository.key")
		out, err := exec.Command("restic", "--no-cache", "-r", repo, "--password-file", key, "check", "--read-data").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "no errors were found") {
			t.Errorf("restic check: %v\n%s", err, out)
		}
	}
	// Somebody else's, which never was at the repository.
	strange := filepath.Join(there, "snapshots", strings.Repeat("ab", 32))
	if err := os.WriteFile(strange, []byte("no snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := run(t, "-c", config, "backups", "copy"); code != 1 || !strings.Contains(out, "0 backups copied, 1 there already") || !strings.Contains(errs, filepath.Base(strange)) {
		t.Errorf("of somebody else: exit code %d, %q, %q", code, out, errs)
	}
	if _, err := os.Stat(strange); err != nil {
		t.Error(err)
	}
	if out, errs, code := run(t, "-c", config, "backups", "rm", "--copy", "nas", "--unreadable", "abababab"); code != 0 || out != "removed abababab, which could not be read\n" {
		t.Errorf("given up: exit code %d, %q, %q", code, out, errs)
	}
	if out, errs, code := run(t, "-c", config, "backups", "copy"); code != 0 {
		t.Errorf("given up: exit code %d, %q, %q", code, out, errs)
	}
}

// An empty file in the place of a backup is one that cannot be read, as it is for restic:
// it is said, keeps no other, and goes when it is named, and nothing else does.
func TestEmptyBackup(t *testing.T) {
	config, _ := withCopy(t, ", name: nas")
	here := filepath.Join(filepath.Dir(config), "repo", "snapshots")
	good, err := filepath.Glob(filepath.Join(here, "*"))
	if err != nil || len(good) != 1 {
		t.Fatalf("%q, %v", good, err)
	}
	id := filepath.Base(good[0])
	var empty []string
	for _, digits := range []string{"a0", "b0"} {
		path := filepath.Join(here, strings.Repeat(digits, 32))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		empty = append(empty, path)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"backups", "list"}, 3, "drydock backups rm --unreadable a0a0a0a0 takes its file away"},
		{[]string{"verify"}, 1, "drydock backups rm --unreadable a0a0a0a0 takes its file away"},
		{[]string{"verify", "--repair"}, 1, "a0a0a0a0"}, // nobody has it
		{[]string{"backups", "prune"}, 1, "put off: damaged: backups that cannot be read: 2, the first is a0a0a0a0"},
		{[]string{"backups", "rm", "--copy", "nas", "web@latest"}, 2, "--copy goes with --unreadable"},
		{[]string{"backups", "rm", "--unreadable", "a0a0", id}, 2, "can be read: drydock backups rm web@" + id[:8] + " removes it; nothing was removed"},
		{[]string{"backups", "rm", "--unreadable", "c0c0"}, 2, "(there are: a0a0a0a0, b0b0b0b0); nothing was removed"},
		{[]string{"backups", "rm", "--unreadable", ""}, 2, "nothing was removed"},
		{[]string{"backups", "rm", "--copy", "nas", "--unreadable", "a0a0"}, 2, "all backups can be read"},
	} {
		out, errs, code := run(t, append([]string{"-c", config}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit code %d, %q, %q", c.args, code, out, errs)
		}
	}
	for _, path := range append(empty, good...) {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := run(t, "-c", config, "backups", "rm", "--json", "--unreadable", "a0a0", "b0b0b0b0"); code != 0 || !strings.Contains(out, strings.Repeat("a0", 32)) {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	if out, errs, code := run(t, "-c", config, "verify", "--mode", "full"); code != 0 || strings.Count(out, "  good\n") != 1 {
		t.Errorf("afterwards: exit code %d, %q, %q", code, out, errs)
	}
}

// A backup that a VM is being filled in from stays when it cannot be read, and is found when
// another place has given it back, under another ID.
func TestUnreadableHeldBackup(t *testing.T) {
	config, _ := withCopy(t, "")
	here := filepath.Join(filepath.Dir(config), "repo", "snapshots")
	snapshot := func() string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(here, "*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("%q, %v", all, err)
		}
		return all[0]
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, errs, code := run(t, append([]string{"-c", config, "backups", "rm"}, args...)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d, %q, %q", args, code, out, errs)
		}
	}
	h, err := (&app{configPath: config, now: time.Now, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}).openHost(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	bad := snapshot()
	id := filepath.Base(bad)
	if err := os.MkdirAll(h.fromFolder("web"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.writeFromBackup(&fromBackup{VM: "web", Backup: id, First: id}); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(filepath.Dir(h.fromFolder("web")), "a note")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flip(t, bad)
	refused("web is being filled in from it", "--unreadable", id[:8])
	if snapshot() != bad {
		t.Fatal("it is gone")
	}
	if out, errs, code := run(t, "-c", config, "verify", "--repair"); code != 0 || snapshot() == bad {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	refused("it is being filled in from backup", "--force", "web@latest")
	r, err := h.fromBackup("web")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := h.openRepository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.find(t.Context(), repo); err != nil || s.ID.String() != filepath.Base(snapshot()) || r.Backup != s.ID.String() {
		t.Errorf("%+v, %v", r, err)
	}
}

// The doctor tries the repository and each copy, with the key.
func TestDoctorOfCopies(t *testing.T) {
	config, _ := withCopy(t, ", name: nas, password_file: copy.key")
	out, _, _ := run(t, "-c", config, "doctor", "--json")
	find := func(what string) (f finding) {
		t.Helper()
		var all []finding
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for _, one := range all {
			if one.What == what {
				return one
			}
		}
		t.Errorf("there is no %s: %s", what, out)
		return f
	}
	if f := find("copy nas"); !f.OK || f.Needed {
		t.Errorf("%+v", f)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(config), "copy.key"), []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, _ = run(t, "-c", config, "doctor", "--json")
	if f := find("copy nas"); f.OK || !strings.Contains(f.Detail, "wrong password") {
		t.Errorf("%+v", f)
	}
	if f := find("repository"); !f.OK {
		t.Errorf("%+v", f)
	}
}

// A backup that another host has made since this one opened the repository is copied.
func TestCopyWhatCameMeanwhile(t *testing.T) {
	config, _ := withCopy(t, ", name: nas")
	a := &app{configPath: config, now: time.Now, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	h, err := a.openHost(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	var repos [2]*repository.Repository
	for i := range repos {
		if repos[i], err = h.openRepository(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	other := repos[1]
	blob, _, err := other.SaveBlob(t.Context(), repository.DataBlob, []byte("of another host"))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := repository.EncodeTree([]repository.Node{{Name: "f", Type: repository.NodeFile, Size: 15, Content: []repository.ID{blob}}})
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := other.SaveTree(t.Context(), tree)
	if err == nil {
		err = other.Flush(t.Context())
	}
	if err == nil {
		_, err = other.SaveSnapshot(t.Context(), &repository.Snapshot{Time: time.Now(), Tree: root, Hostname: "web", Paths: []string{"/"}, Tags: []string{backup.TagProgram}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, rep, err := h.copyTo(t.Context(), repos[0], h.config.Copies[0], nil); err != nil || rep.Copied != 1 || rep.Present != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}
