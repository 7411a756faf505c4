package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// report is what the tests look at in drydock run --json.
type report struct {
	Outcome string
	VMs     []struct {
		VM       string
		Left     string
		Downtime time.Duration
		Image    *struct{ Before, After, RolledBack string }
		Backup   *struct {
			FilesNew       int64           `json:"files_new"`
			FilesUnchanged int64           `json:"files_unchanged"`
			BytesStored    int64           `json:"bytes_stored"`
			LeftOut        []round.LeftOut `json:"left_out"`
			Images         []struct {
				Disk        string
				BytesStored int64 `json:"bytes_stored"`
			}
		}
		Errors []string
	}
}

func rounds(t *testing.T, h *host, code int, args ...string) report {
	t.Helper()
	var r report
	h.json(&r, code, append([]string{"run"}, args...)...)
	return r
}

// TestThreeNights is the main job on a real guest: a first backup, an
// incremental one, an update, an update that is rolled back, and a file that
// comes back after the guest deleted it.
func TestThreeNights(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	h.vm(g)
	h.write()
	ctx := t.Context()
	h.run(0, "start")
	letter := []byte("a letter that will be lost\n")
	must(t, g.Put(ctx, "/var/letter", letter))
	must(t, g.Fill(ctx, "/var/many", 1, 200, 20000))

	first := rounds(t, h, 0)
	b := first.VMs[0].Backup
	if first.Outcome != "done" || b == nil || b.FilesNew < 200 || first.VMs[0].Downtime == 0 || h.state("web") != "running" {
		t.Fatalf("first night: %+v", first)
	}

	must(t, g.Delete(ctx, "/var/letter"))
	must(t, g.Put(ctx, "/var/kept", []byte("written after the first night")))
	h.run(0, "images", "import", "web", testguest.RootImage(t, "v2", false), "--version", "v2")
	second := rounds(t, h, 0)
	b2 := second.VMs[0].Backup
	// The new root disk is stored with the first backup that has it.
	if b2 == nil || b2.FilesUnchanged < 200 || len(b2.Images) != 1 || b2.Images[0].Disk != "root" ||
		b2.BytesStored-b2.Images[0].BytesStored > b.BytesStored/4 {
		t.Errorf("second night: %+v, after %+v", b2, b)
	}
	if img := second.VMs[0].Image; img == nil || img.After != "v2" {
		t.Errorf("second night: image %+v", img)
	}
	if v := healthy(t, g); v != "v2" {
		t.Errorf("the guest runs %s after the second night, want v2", v)
	}

	h.config = strings.Replace(h.config, "drydock.yaml", "hasty.yaml", 1)
	text := strings.ReplaceAll(h.machine.String(), "health: {timeout: 5m", "health: {timeout: 90s")
	h.machine.Reset()
	h.machine.WriteString(text)
	h.write()
	h.run(0, "images", "import", "web", testguest.RootImage(t, "broken", true), "--version", "broken")
	r := h.run(3, "run")
	if !strings.Contains(r.stderr, "rolled back and marked bad") || strings.Count(strings.TrimSpace(r.stderr), "\n") != 0 {
		t.Errorf("the third night does not say what happened in one line: %q", r.stderr)
	}
	if v := healthy(t, g); v != "v2" {
		t.Errorf("the guest runs %s after the third night, want v2", v)
	}
	if data, err := g.Get(ctx, "/var/kept"); err != nil || string(data) != "written after the first night" {
		t.Errorf("/var/kept is %q, %v", data, err)
	}
	if boots, err := g.Boots(ctx); err != nil || len(boots) < 4 {
		t.Errorf("boots %q, %v", boots, err)
	}
	h.run(0, "plan")

	var backups []struct{ ID string }
	h.json(&backups, 0, "backups", "list", "web")
	if len(backups) != 3 {
		t.Fatalf("%d backups, want 3", len(backups))
	}
	oldest := backups[2].ID[:8]
	h.run(0, "restore", "web@"+oldest+":/var/letter", "--to", h.path("back"))
	if data, err := os.ReadFile(h.path("back", "var", "letter")); err != nil || string(data) != string(letter) {
		t.Errorf("the letter came back as %q, %v", data, err)
	}
	if ls := h.run(0, "ls", "web@latest:/var").stdout; !strings.Contains(ls, " kept\n") || strings.Contains(ls, " letter\n") {
		t.Errorf("ls of the newest backup: %s", ls)
	}
	if ls := h.run(0, "ls", "web/data@latest:/").stdout; !strings.Contains(ls, " kept\n") {
		t.Errorf("ls of its data disk: %s", ls)
	}
	if v := h.run(0, "verify", "--mode", "full", "web").stdout; strings.Count(v, "  good\n") != 3 {
		t.Errorf("verify: %s", v)
	}
	if s := h.run(0, "status").stdout; !strings.Contains(s, "(full)") {
		t.Errorf("status: %s", s)
	}
	h.judged()
	if ls := h.restic("ls", "latest", "--host", "web"); !strings.Contains(ls, "/var/kept") {
		t.Errorf("restic ls: %s", ls)
	}
	h.run(0, "history")
	h.run(0, "history", "web")
}

// TestKillAnywhere kills drydock at random moments of rounds that update the
// guest. The run after it leaves the guest running and healthy, and every byte
// that the guest wrote is there.
func TestKillAnywhere(t *testing.T) {
	t.Parallel() // most of it is waiting
	if testing.Short() {
		t.Skip("boots a guest many times")
	}
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v0"})
	h.vm(g)
	h.write()
	ctx := t.Context()
	h.run(0, "start")
	versions := []string{testguest.RootImage(t, "v1", false), testguest.RootImage(t, "v2", false)}
	// A whole round takes some seconds: that is where the moments are.
	begin := time.Now()
	h.run(0, "run")
	whole := time.Since(begin)
	cut := 0
	for i := range 4 {
		h.run(0, "images", "import", "web", versions[i%2])
		note := []byte(time.Now().String())
		must(t, g.Put(ctx, "/var/note", note))
		// The first of them comes early, since a round may take less than that one did.
		after := time.Duration(rand.Int64N(int64(whole) * int64(i+1) / 4))
		t.Logf("killing the round after %v of some %v", after, whole)
		if h.killed(after) {
			cut++
		}
		h.run(0, "run")
		if s := h.state("web"); s != "running" {
			t.Fatalf("the guest is %s", s)
		}
		healthy(t, g)
		if data, err := g.Get(ctx, "/var/note"); err != nil || string(data) != string(note) {
			t.Fatalf("the guest had written %q, and has %q, %v", note, data, err)
		}
	}
	if cut == 0 {
		t.Error("no round was cut off")
	}
	h.judged()
	var all []struct{ Outcome string }
	h.json(&all, 0, "history")
	interrupted := 0
	for _, r := range all {
		if r.Outcome == "interrupted" {
			interrupted++
		}
	}
	t.Logf("%d kills hit a round, %d rounds are in the history as interrupted", cut, interrupted)
}

// TestDeafGuest is skipped, left running, and does not keep the round from the
// next one; two rounds at a time are refused.
func TestDeafGuest(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	deaf := testguest.New(t, testguest.Options{Name: "deaf", IgnoreButton: true})
	web := testguest.New(t, testguest.Options{Name: "web"})
	h.vm(deaf, "order: -1")
	text := strings.Replace(h.machine.String(), "shutdown_timeout: 60s", "shutdown_timeout: 20s", 1)
	h.machine.Reset()
	h.machine.WriteString(text)
	h.vm(web)
	h.write()
	h.run(0, "start")

	c := h.command(t.Context(), "run")
	must(t, c.Start())
	within(t, "the round begins", func() bool {
		holder, err := os.ReadFile(h.path("state", "lock"))
		return err == nil && strings.HasPrefix(string(holder), "drydock run,")
	})
	if r := h.try("run"); r.code != 4 || !strings.Contains(r.stderr, "another drydock is at work") {
		t.Errorf("a second round: exit code %d, %q", r.code, r.stderr)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 3 {
		t.Errorf("the round ended with exit code %d, want 3", code)
	}
	var reports []struct{ Warnings []string }
	h.json(&reports, 0, "history", "deaf")
	if len(reports) != 1 || len(reports[0].Warnings) != 1 || !strings.Contains(reports[0].Warnings[0], "deaf: stop:") {
		t.Errorf("history of deaf: %+v", reports)
	}
	for _, g := range []*testguest.Guest{deaf, web} {
		healthy(t, g)
	}
	var backups []struct{ VM string }
	h.json(&backups, 0, "backups", "list")
	if len(backups) != 1 || backups[0].VM != "web" {
		t.Errorf("backups %+v, want one of web", backups)
	}
}

// TestStopPaused: a VM that is paused hears nothing, and goes off if its power is to be
// taken away.
func TestStopPaused(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	must(t, os.WriteFile(h.config, fmt.Appendf(nil, `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
vms: {web: {driver: qemu, command: [qemu-system-x86_64, -accel, tcg, -nodefaults], shutdown_timeout: 1s, disks: {root: {path: %[1]s/web.raw, format: raw, mount: /}}}}
`, h.dir), 0o600))
	tool(t, "truncate", "-s", "1M", h.path("web.raw"))
	h.run(0, "start")
	monitor, err := qmp.Dial(t.Context(), h.path("run", "vm", "web", "qmp.sock"))
	must(t, err)
	must(t, errors.Join(monitor.Execute(t.Context(), "stop", nil, nil), monitor.Close()))
	within(t, "it is seen that it is paused", func() bool { return h.state("web") == "paused" }) // not while another has the monitor

	for _, verb := range []string{"start", "stop"} {
		if r := h.run(1, verb); !strings.Contains(r.stderr, "the machine is paused (resume it, or power it off)") {
			t.Errorf("%s: %s", verb, r.stderr)
		}
		if state := h.state("web"); state != "paused" {
			t.Errorf("after %s it is %s", verb, state)
		}
	}
	h.run(0, "stop", "--kill")
	if state := h.state("web"); state != "off" {
		t.Errorf("it is %s", state)
	}
}

// TestBadInput: each is one clear error, the guest runs, nothing is half done.
func TestBadInput(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	g := testguest.New(t, testguest.Options{Name: "web"})
	gone := testguest.New(t, testguest.Options{Name: "gone"})
	h.vm(gone)
	h.vm(g)
	h.write()
	h.run(0, "start", "web")
	must(t, os.Rename(gone.DataPath, gone.DataPath+".away"))

	t.Run("a disk that is not there", func(t *testing.T) {
		r := h.run(3, "run")
		for _, want := range []string{"gone: stop:", "disk data", gone.DataPath, "correct the path"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%q is not in %q", want, r.stderr)
			}
		}
		healthy(t, g)
	})
	must(t, os.Rename(gone.DataPath+".away", gone.DataPath))

	t.Run("a disk that somebody uses", func(t *testing.T) {
		socket := h.path("qmp")
		c := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-S", "-drive",
			"file="+gone.DataPath+",format=qcow2,if=virtio", "-qmp", "unix:"+socket+",server=on,wait=off")
		must(t, c.Start())
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
		within(t, "QEMU answers, and has the disk", func() bool {
			_, err := qmp.State(t.Context(), socket)
			return err == nil
		})
		r := h.run(1, "run", "gone")
		if !strings.Contains(r.stderr, "gone:") || !strings.Contains(r.stderr, "in use") {
			t.Errorf("stderr %q", r.stderr)
		}
		if r := h.try("ls", "gone/data:/"); r.code != 1 || !strings.Contains(r.stderr, "in use") {
			t.Errorf("ls: exit code %d, %q", r.code, r.stderr)
		}
	})
	t.Run("the wrong key", func(t *testing.T) {
		key := h.path("state", "repository.key")
		good, err := os.ReadFile(key)
		must(t, err)
		must(t, os.WriteFile(key, []byte("not the key\n"), 0o600))
		defer func() { must(t, os.WriteFile(key, good, 0o600)) }()
		before, err := g.Boots(t.Context())
		must(t, err)
		r := h.run(1, "run", "web")
		if !strings.Contains(r.stderr, "no VM was touched") || !strings.Contains(r.stderr, "password_file") {
			t.Errorf("stderr %q", r.stderr)
		}
		r = h.run(1, "plan", "web")
		if !strings.Contains(r.stderr, "a round would not begin") || !strings.Contains(r.stderr, "password_file") || !strings.Contains(r.stdout, "backup") {
			t.Errorf("plan: %q, %q", r.stdout, r.stderr)
		}
		after, err := g.Boots(t.Context())
		must(t, err)
		if len(after) != len(before) {
			t.Error("the guest was restarted though no backup was possible")
		}
	})
	t.Run("an image with another digest", func(t *testing.T) {
		img := testguest.RootImage(t, "v9", false)
		r := h.run(1, "images", "import", "web", img, "--sha256", strings.Repeat("0", 64))
		if !strings.Contains(r.stderr, "digest") {
			t.Errorf("stderr %q", r.stderr)
		}
		h.run(0, "images", "import", "web", img, "--version", "v9")
		disk := h.path("state", "images", "web", "v9", "disk.raw")
		must(t, os.Chmod(disk, 0o600))
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{0xff}, 2048)
		must(t, err)
		must(t, f.Close())
		r = h.run(3, "run", "web")
		if !strings.Contains(r.stderr, "web: update:") || !strings.Contains(r.stderr, "v9") {
			t.Errorf("stderr %q", r.stderr)
		}
		if v := healthy(t, g); v == "v9" {
			t.Error("the damaged image was installed")
		}
		h.run(0, "images", "bad", "web", "v9")
	})
	t.Run("a repository that is full", func(t *testing.T) {
		img := h.path("small.img")
		tool(t, "mke2fs", "-q", "-t", "ext4", img, "4M")
		small, unmount := testmount.Image(t, img, "")
		defer unmount()
		must(t, g.Fill(t.Context(), "/var/much", 7, 100, 200000))
		text, err := os.ReadFile(h.config)
		must(t, err)
		config := h.config
		defer func() { h.config = config }()
		h.config = h.path("full.yaml")
		must(t, os.WriteFile(h.config, []byte(strings.Replace(string(text), h.path("repository"), filepath.Join(small, "r"), 1)), 0o600))
		r := h.run(1, "run", "web")
		if !strings.Contains(r.stderr, "web: backup:") || !strings.Contains(r.stderr, "no space left") {
			t.Errorf("stderr %q", r.stderr)
		}
		healthy(t, g)
	})
	h.judged()
}

// TestLookInside looks into disks with no configuration and no VM, and sends
// them to other software.
func TestLookInside(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	must(t, os.MkdirAll(filepath.Join(src, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "etc", "motd"), []byte("hello\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(src, "evil\x1b[31m"), nil, 0o644))
	raw, qcow2 := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	for _, args := range [][]string{
		{"mke2fs", "-q", "-t", "ext4", "-d", src, raw, "16M"},
		{"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	h := newHost(t)
	if got := h.run(0, "cat", qcow2+":/etc/motd").stdout; got != "hello\n" {
		t.Errorf("cat: %q", got)
	}
	ls := h.run(0, "ls", "-R", qcow2).stdout
	if !strings.Contains(ls, "etc/motd\n") || strings.Contains(ls, "\x1b") || !strings.Contains(ls, "evil") {
		t.Errorf("ls: %q", ls)
	}
	var files []struct{ Name, Type string }
	if err := json.Unmarshal([]byte(h.run(0, "ls", "--json", raw+":/etc").stdout), &files); err != nil || len(files) != 1 || files[0].Name != "motd" {
		t.Errorf("ls --json: %+v, %v", files, err)
	}
	want, err := os.ReadFile(raw)
	must(t, err)
	sum := sha256.Sum256(want)
	c := exec.Command("sh", "-c", `"$0" cat --raw "$1" | sha256sum`, drydock, qcow2)
	out, err := c.Output()
	must(t, err)
	if got := strings.Fields(string(out))[0]; got != hex.EncodeToString(sum[:]) {
		t.Errorf("cat --raw gives other bytes than the disk has")
	}
	c = exec.Command("sh", "-c", `mkdir "$2" && "$0" tar "$1" | tar -x -C "$2"`, drydock, qcow2, filepath.Join(dir, "out"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "out", "etc", "motd")); err != nil || string(data) != "hello\n" {
		t.Errorf("out of the tar: %q, %v", data, err)
	}
	repo := filepath.Join(dir, "repo")
	c = exec.Command("sh", "-c", `export RESTIC_PASSWORD=x RESTIC_REPOSITORY="$2"; restic -q --no-cache init && "$0" cat --raw "$1" | restic -q --no-cache backup --stdin --stdin-filename disk && restic -q --no-cache dump latest disk | sha256sum`,
		drydock, qcow2, repo)
	out, err = c.Output()
	must(t, err)
	if got := strings.Fields(string(out))[0]; got != hex.EncodeToString(sum[:]) {
		t.Errorf("through restic --stdin the disk has other bytes")
	}
	for args, want := range map[string]string{
		"cat " + qcow2 + ":/no/such":      "does not exist",
		"cat " + qcow2 + ":/etc":          "not a regular file",
		"ls " + dir + "/none.qcow2":       "no such file",
		"ls " + qcow2 + "#nothing":        "nothing",
		"cat --raw " + qcow2 + ":/x":      "is no disk",
		"restore " + qcow2 + " --to /tmp": "names no backup",
	} {
		r := h.try(strings.Fields(args)...)
		if r.code == 0 || !strings.Contains(r.stderr, want) || strings.Count(strings.TrimSpace(r.stderr), "\n") > 0 {
			t.Errorf("drydock %s: exit code %d, %q; want one line with %q", args, r.code, r.stderr, want)
		}
	}
}
