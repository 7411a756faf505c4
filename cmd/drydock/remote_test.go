package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testserver"
)

// TestRemoteRepository is two nights over an append-only REST server, and one on
// which the server is gone.
func TestRemoteRepository(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	s := testserver.REST(t, h.path("server"), "--append-only")
	h.where = "rest:http://" + s.Address + "/"
	g := testguest.New(t, testguest.Options{Name: "web"})
	h.vm(g)
	h.write()
	ctx := t.Context()
	h.run(0, "start")
	letter := []byte("a letter that will be lost\n")
	must(t, g.Put(ctx, "/var/letter", letter))
	must(t, g.Put(ctx, "/var/kept", []byte("unchanged")))

	if b := rounds(t, h, 0).VMs[0].Backup; b == nil || b.FilesNew == 0 {
		t.Fatalf("first night: %+v", b)
	}
	s.Stop()
	boots, err := g.Boots(ctx)
	must(t, err)
	r := h.run(1, "run")
	if !strings.Contains(r.stderr, "no VM was touched") || !strings.Contains(r.stderr, "is the server up") || !strings.Contains(r.stderr, "trying again in") {
		t.Errorf("without the server: %q", r.stderr)
	}
	if again, err := g.Boots(ctx); err != nil || len(again) != len(boots) {
		t.Errorf("the guest was restarted though no backup was possible: %v, %v", again, err)
	}
	s.Restart()
	must(t, g.Delete(ctx, "/var/letter"))
	if b := rounds(t, h, 0).VMs[0].Backup; b == nil || b.FilesUnchanged == 0 {
		t.Errorf("second night: %+v", b)
	}
	h.judged()

	var backups []struct{ ID string }
	h.json(&backups, 0, "backups", "list")
	if len(backups) != 2 {
		t.Fatalf("%d backups, want 2", len(backups))
	}
	oldest := "web@" + backups[1].ID[:8]
	h.run(0, "restore", oldest+":/var/letter", "--to", h.path("back"))
	if data, err := os.ReadFile(h.path("back", "var", "letter")); err != nil || string(data) != string(letter) {
		t.Errorf("the letter came back as %q, %v", data, err)
	}
	// A copy at a second place, with a key of its own.
	text, err := os.ReadFile(h.config)
	must(t, err)
	copies := fmt.Sprintf("copies: [{path: %s, password_file: %s}]\n", h.path("copy"), h.path("copy.key"))
	must(t, os.WriteFile(h.config, append(text, copies...), 0o600))
	for _, want := range []struct{ copied, present int }{{2, 0}, {0, 2}} {
		var lines []struct{ Copied, Present int }
		h.json(&lines, 0, "backups", "copy", "web")
		if len(lines) != 1 || lines[0].Copied != want.copied || lines[0].Present != want.present {
			t.Errorf("backups copy: %+v, want %+v", lines, want)
		}
	}
	out, err := exec.Command("restic", "--no-cache", "-r", h.path("copy"), "--password-file", h.path("copy.key"), "check", "--read-data").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no errors were found") {
		t.Errorf("restic check of the copy: %v\n%s", err, out)
	}
	// Who has this host cannot delete.
	if r := h.run(1, "backups", "rm", oldest); !strings.Contains(r.stderr, "append-only") {
		t.Errorf("backups rm: %q", r.stderr)
	}
	h.judged()
}
