package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testserver"
)

// trouble is something that is wrong with a place at a server.
type trouble struct {
	name  string
	begin func(*testing.T, place)
	end   func(*testing.T, place)
	want  []string // what the one error has in it, the way out among it
}

// troubles are what a person does to the key and to the place.
func troubles(key string) []trouble {
	back := func(t *testing.T, path string) { t.Helper(); must(t, os.Rename(path+".kept", path)) }
	keep := func(t *testing.T, path string) { t.Helper(); must(t, os.Rename(path, path+".kept")) }
	return []trouble{
		{
			"the key is lost",
			func(t *testing.T, _ place) { keep(t, key) },
			func(t *testing.T, _ place) { back(t, key) },
			[]string{key, "must name the file that the repository was made with"},
		},
		{
			"the key is another",
			func(t *testing.T, _ place) { keep(t, key); must(t, os.WriteFile(key, []byte("another key\n"), 0o600)) },
			func(t *testing.T, _ place) { back(t, key) },
			[]string{"wrong password", "password_file is " + key + ": is it the one of this repository?"},
		},
		{
			"the format is newer",
			func(t *testing.T, p place) { keep(t, p.path("config")); newerFormat(t, p, key) },
			func(t *testing.T, p place) { back(t, p.path("config")) },
			[]string{"unknown repository format: version 3", "a newer drydock may know this one"},
		},
		{
			"it is gone",
			func(t *testing.T, p place) { keep(t, p.path("config")); p.server.Restart() }, // rclone remembers files
			func(t *testing.T, p place) { back(t, p.path("config")) },
			[]string{"it is gone", "is its disk mounted?", "init)"},
		},
		{
			"nobody answers",
			func(_ *testing.T, p place) { p.server.Stop() },
			func(_ *testing.T, p place) { p.server.Restart() },
			[]string{"is the server up"},
		},
		{
			"the answer never comes",
			func(_ *testing.T, p place) { p.server.Pause() },
			func(_ *testing.T, p place) { p.server.Restart() },
			[]string{" 4s", "overloaded"},
		},
	}
}

// newerFormat writes what a later program may: a config file of version 3.
func newerFormat(t *testing.T, p place, keyFile string) {
	t.Helper()
	password, err := os.ReadFile(keyFile)
	must(t, err)
	files, err := filepath.Glob(p.path("keys", "*"))
	must(t, err)
	var kf struct {
		N, R, P    int
		Salt, Data []byte
	}
	var key crypto.Key
	text, err := os.ReadFile(files[0])
	must(t, err)
	must(t, json.Unmarshal(text, &kf))
	user, err := crypto.Derive(crypto.Params{N: kf.N, R: kf.R, P: kf.P}, kf.Salt, []byte(strings.TrimSpace(string(password))))
	must(t, err)
	plain, err := user.Open(kf.Data)
	must(t, err)
	must(t, json.Unmarshal(plain, &key))
	sealed, err := os.ReadFile(p.path("config.kept"))
	must(t, err)
	plain, err = key.Open(sealed)
	must(t, err)
	newer := strings.Replace(string(plain), `"version":2`, `"version":3`, 1)
	must(t, os.WriteFile(p.path("config"), key.Seal(nil, []byte(newer)), 0o600))
}

// path is where the server has a file of the repository.
func (p place) path(elements ...string) string {
	return filepath.Join(append([]string{p.folder}, elements...)...)
}

// whole makes sure that a trouble has left no lock, and harmed nothing.
func (h *host) whole(p place, key string, nights ...int) {
	h.t.Helper()
	if left := h.locks(p.folder); len(left) > 0 {
		h.t.Errorf("locks are left: %q", left)
	}
	h.nights(nights...)
	if out, err := h.resticIn(p.folder, key, "check", "--read-data"); err != nil || !strings.Contains(out, "no errors were found") {
		h.t.Errorf("restic check: %v\n%s", err, out)
	}
}

// TestTroubleAtTheRepository: whatever is wrong with a repository at a server, the round
// does not begin, one error says what it is and what to do, and when it is over all goes
// on.
func TestTroubleAtTheRepository(t *testing.T) {
	t.Parallel() // most of it is waiting
	for kind, p := range places(t, retainHost(t)) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			h := retainHost(t)
			key := h.path("key")
			config := fmt.Sprintf(pruneConfig, h.dir, p.settings+", timeout: 4s", key)
			must(t, os.WriteFile(h.config, []byte(config), 0o600))
			h.night(0, 0)
			for _, trouble := range troubles(key) {
				trouble.begin(t, p)
				h.clock(24)
				r := h.run(1, "run")
				trouble.end(t, p)
				last := lastLine(r.stderr)
				for _, want := range append(trouble.want, "no VM was touched") {
					if !strings.Contains(last, want) {
						t.Errorf("%s: no %q in %q", trouble.name, want, last)
					}
				}
				if left := h.locks(p.folder); len(left) > 0 {
					t.Errorf("%s: locks are left: %q", trouble.name, left)
				}
			}
			h.whole(p, key, 0)
			// The clock went backwards: the round says so, and what it makes is whole.
			report := h.night(-3, 3)
			if text := strings.Join(report.Problems(), "\n"); !strings.Contains(text, "the clock was set back") {
				t.Errorf("in the past: %s", text)
			}
			h.night(1, 0)
			h.whole(p, key, 1, 0)
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// TestTroubleAtACopy: the round itself is as good as ever, one warning names the place,
// what is wrong and what to do, and the next round brings what is missing.
func TestTroubleAtACopy(t *testing.T) {
	t.Parallel() // most of it is waiting
	for kind, p := range places(t, retainHost(t)) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			h := retainHost(t)
			key := h.path("key")
			config := fmt.Sprintf(pruneConfig, h.dir, "path: "+h.path("repository"), h.path("own.key")) +
				fmt.Sprintf("copies: [{%s, password_file: %s, timeout: 4s}]\n", p.settings, key)
			must(t, os.WriteFile(h.config, []byte(config), 0o600))
			h.night(0, 0)
			n := 0
			for _, trouble := range troubles(key) {
				n++
				trouble.begin(t, p)
				report := h.night(n, 3)
				trouble.end(t, p)
				problems := report.Problems()
				if len(problems) != 1 || report.VMs[0].Outcome != state.Done {
					t.Errorf("%s: %q", trouble.name, problems)
				}
				for _, want := range append(trouble.want, "copy to ", "the next round tries again") {
					if !strings.Contains(problems[0], want) {
						t.Errorf("%s: no %q in %q", trouble.name, want, problems[0])
					}
				}
				if left := h.locks(p.folder); len(left) > 0 {
					t.Errorf("%s: locks are left: %q", trouble.name, left)
				}
			}
			if report := h.night(n+1, 0); report.Copies[0].Copied != 2 {
				t.Errorf("afterwards: %+v", report.Copies[0])
			}
			h.whole(p, key, n+1, n)
		})
	}
}

// TestFullServer: a disk that is full at a server is named, harms no backup, leaves no
// lock, and when there is room the next round goes on.
func TestFullServer(t *testing.T) {
	t.Parallel() // most of it is waiting
	said := map[string]string{"SFTP": "the server's disk has", "S3": "the server is full", "REST": "is its disk full?"}
	for kind, p := range placesIn(t, retainHost(t), smallDisk(4)) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			h := retainHost(t)
			key := h.path("key")
			must(t, os.WriteFile(h.config, fmt.Appendf(nil, pruneConfig, h.dir, p.settings, key), 0o600))
			h.night(0, 0)
			must(t, os.WriteFile(h.path("tree", "large"), incompressible(6<<20), 0o600))
			report := h.night(1, 1)
			if problems := report.Problems(); len(problems) != 1 || !strings.Contains(problems[0], said[kind]) || !strings.Contains(problems[0], "nothing that was stored before is harmed") {
				t.Errorf("the disk is full: %q", problems)
			}
			h.whole(p, key, 0)
			must(t, os.Remove(h.path("tree", "large")))
			h.night(2, 0)
			h.whole(p, key, 2, 0)
			h.run(0, "restore", "web@latest", "--to", h.path("back"))
			tool(t, "diff", "-r", "-x", "lost+found", "-x", ".drydock", h.path("tree"), h.path("back"))
		})
	}
}

// TestFullServerUnderAGuest: a guest whose backup finds no room at the server runs as
// before, with all that it has written.
func TestFullServerUnderAGuest(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	p := placesIn(t, h, smallDisk(16))["S3"]
	g := testguest.New(t, testguest.Options{Name: "web"})
	h.vm(g)
	h.write()
	text, err := os.ReadFile(h.config)
	must(t, err)
	here := "path: " + h.path("repository")
	must(t, os.WriteFile(h.config, []byte(strings.Replace(string(text), here, p.settings, 1)), 0o600))
	ctx := t.Context()
	h.run(0, "start")
	must(t, g.Put(ctx, "/var/letter", []byte("a letter\n")))
	rounds(t, h, 0)
	must(t, g.Fill(ctx, "/var/much", 7, 100, 200000))
	r := h.run(1, "run")
	if last := lastLine(r.stderr); !strings.Contains(last, "web: backup:") || !strings.Contains(last, "the server is full") {
		t.Errorf("the disk is full: %q", last)
	}
	healthy(t, g)
	if data, err := g.Get(ctx, "/var/letter"); err != nil || string(data) != "a letter\n" {
		t.Errorf("the guest had written a letter, and has %q, %v", data, err)
	}
	h.run(0, "verify", "--mode", "full")
	must(t, g.Delete(ctx, "/var/much"))
	must(t, g.Put(ctx, "/var/letter", []byte("another letter\n")))
	rounds(t, h, 0)
	healthy(t, g)
	if out := h.run(0, "cat", "web@latest:/var/letter").stdout; out != "another letter\n" {
		t.Errorf("the letter in the backup is %q", out)
	}
}

func smallDisk(mib int) func(testing.TB) string {
	return func(t testing.TB) string { t.Helper(); return testserver.SmallDisk(t, mib) }
}

// incompressible is content that takes its size in any repository.
func incompressible(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // never fails
	return data
}
