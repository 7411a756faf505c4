package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// TestMain lets the test binary be the confined disk reader, and drydock itself, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Verb {
		os.Exit(sandbox.WorkerMain())
	}
	if len(os.Args) > 1 && os.Args[1] == "drydock" {
		os.Exit(Main(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// world is a configuration, and a repository that the real restic writes.
type world struct {
	t                 *testing.T
	config, repo, key string
}

const lookConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repo, password_file: %[1]s/key}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      root: {path: %[1]s/root.raw, format: raw, mount: /, exclude: ["*.tmp"]}
      data: {path: %[1]s/data.raw, format: raw, mount: /var}
`

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, config: filepath.Join(dir, "drydock.yaml"), repo: filepath.Join(dir, "repo"), key: filepath.Join(dir, "key")}
	for path, text := range map[string]string{w.config: fmt.Sprintf(lookConfig, dir), w.key: "secret\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := repository.Create(t.Context(), local.New(w.repo), []byte("secret"),
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) restic(args ...string) string {
	w.t.Helper()
	return w.tool("", "restic", append([]string{"-r", w.repo, "-p", w.key, "--no-cache"}, args...)...)
}

// tool runs a program in a folder.
func (w *world) tool(dir, name string, args ...string) string {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// backup has restic store a folder as drydock would store the VM's tree, at a time
// such as "2026-11-01 03:00:00".
func (w *world) backup(vm, dir, at string) {
	w.t.Helper()
	w.tool(dir, "restic", "-r", w.repo, "-p", w.key, "--no-cache", "backup", "-q", "--host", vm, "--time", at,
		"--tag", "drydock", "--tag", "disk:root=/", "--tag", "disk:data=/var", ".")
}

// run runs drydock, and fails the test unless it ends with code.
func (w *world) run(code int, args ...string) (stdout, stderr string) {
	w.t.Helper()
	stdout, stderr, got := run(w.t, append([]string{"-c", w.config}, args...)...)
	if got != code {
		w.t.Fatalf("drydock %q: exit code %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// backupDisks stores the VM's disks as a round does.
func (w *world) backupDisks() *round.BackupReport {
	w.t.Helper()
	ctx := w.t.Context()
	a := &app{stdout: io.Discard, stderr: io.Discard, configPath: w.config, now: time.Now}
	h, err := a.openHost(ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.close()
	b := &backups{h: h}
	if err := b.Check(ctx); err != nil {
		w.t.Fatal(err)
	}
	var sources []round.Source
	for _, d := range h.vms[0].Disks {
		if !d.Backup {
			continue
		}
		f, err := os.Open(d.Path)
		if err != nil {
			w.t.Fatal(err)
		}
		defer f.Close()
		sources = append(sources, round.Source{Disk: d, File: f, Format: d.Format})
	}
	rep, err := b.Backup(ctx, h.vms[0], "test", sources, func(string) {})
	if err != nil || rep.DamagedTotal > 0 {
		w.t.Fatalf("%v, %+v", err, rep)
	}
	return rep
}

// twoDisks makes the VM's disks: ext4, of a root and of what is at /var.
func (w *world) twoDisks() (root, data string) {
	t := w.t
	dir := t.TempDir()
	for _, name := range []string{"root/etc/passwd", "root/etc/forged", "root/srv/file", "data/lib/db", "data/log/old"} {
		write(t, filepath.Join(dir, name), "content of "+name)
	}
	if err := os.Mkdir(filepath.Join(dir, "root/var"), 0o755); err != nil {
		t.Fatal(err)
	}
	base := filepath.Dir(w.config)
	for _, name := range []string{"root", "data"} {
		w.tool(dir, "mke2fs", "-q", "-t", "ext4", "-d", name, filepath.Join(base, name+".raw"), "16M")
	}
	return filepath.Join(base, "root.raw"), filepath.Join(base, "data.raw")
}

// debugfs runs commands on an ext4 image. It says nothing of those that fail.
func (w *world) debugfs(image string, commands ...string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "commands")
	write(w.t, file, strings.Join(commands, "\n")+"\n")
	w.tool("", "debugfs", "-w", "-f", file, image)
}

// TestInfoOfAVM: a VM that is off is shown with all its disks, as one of them is.
func TestInfoOfAVM(t *testing.T) {
	w := newWorld(t)
	w.twoDisks()
	for target, want := range map[string][]string{"web": {"data", "root"}, "web/data": {"data"}} {
		out, _ := w.run(0, "info", target, "--json")
		var info infoReport
		must(t, json.Unmarshal([]byte(out), &info))
		var disks, volumes []string
		for _, d := range info.Disks {
			disks = append(disks, d.Name)
		}
		for _, v := range info.Volumes {
			volumes = append(volumes, v.Name)
		}
		slices.Sort(disks)
		slices.Sort(volumes)
		if !slices.Equal(disks, want) || !slices.Equal(volumes, want) {
			t.Errorf("%s has the disks %q and the volumes %q, want %q", target, disks, volumes, want)
		}
	}
	if _, errs := w.run(2, "info", "web@latest"); !strings.Contains(errs, "VM/DISK@BACKUP") {
		t.Errorf("%s", errs)
	}
}

// TestDiffWithTheLiveDisks compares a backup with the disks that it is of, which
// have changed meanwhile.
func TestDiffWithTheLiveDisks(t *testing.T) {
	w := newWorld(t)
	root, data := w.twoDisks()
	w.backupDisks()
	if out, _ := w.run(0, "diff", "web@latest", "web"); out != "no differences\n" {
		t.Fatalf("nothing was changed: %s", out)
	}
	extra := filepath.Join(t.TempDir(), "extra")
	write(t, extra, "17 bytes and more")
	forged := filepath.Join(t.TempDir(), "forged")
	write(t, forged, "content of root/etc/FORGED")
	stat := w.tool(t.TempDir(), "debugfs", "-R", "stat /etc/forged", root)
	mtime := regexp.MustCompile(`mtime: 0x([0-9a-f]+)`).FindStringSubmatch(stat)[1]
	w.debugfs(root, "write "+extra+" new.tmp", "write "+extra+" new", "sif /srv/file mode 0100600",
		"cd /etc", "rm forged", "write "+forged+" forged", "sif forged mtime @0x"+mtime, "sif forged mtime_extra 0",
		fmt.Sprintf("sif forged ctime @0x%x", time.Now().Unix()+60), // not in the second in which the first was made
		"cd /var", "write "+extra+" hidden")
	w.debugfs(data, "rm /log/old", "cd /lib", "write "+extra+" more")

	out, _ := w.run(0, "diff", "web@latest", "web")
	for _, want := range []string{"+ /new  17 B\n", "U /srv/file  mode", "U /etc/forged  ctime\n", "- /var/log/old  ", "+ /var/lib/more  17 B\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	for _, bad := range []string{"new.tmp", "hidden", "passwd"} { // excluded, below a mount, unchanged
		if strings.Contains(out, bad) {
			t.Errorf("%s is in\n%s", bad, out)
		}
	}
	if out, _ := w.run(0, "diff", "--content", "web", "web@latest"); !strings.Contains(out, "M /etc/forged  content\n") || !strings.Contains(out, "+ /var/log/old") {
		t.Errorf("with --content, the other way: %s", out)
	}
	for want, args := range map[string][]string{
		"- /var/log/old":                {"web@latest:/var/log", "web:/var/log"},
		"+ /lib/more  17 B\n- /log/old": {"web/data@latest", "web/data"},
		"+ /lib/more":                   {"web/data@latest:/lib", data + ":/lib"},
	} {
		if out, _ := w.run(0, append([]string{"diff"}, args...)...); !strings.Contains(out, want) || strings.Contains(out, "/new") {
			t.Errorf("diff %q: there is no %q in %s", args, want, out)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// twoTrees makes a folder, backs it up, changes it in every way, and backs it up
// again.
func (w *world) twoTrees() (dir string) {
	t := w.t
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"etc/same", "etc/grown", "etc/chmod", "etc/gone", "etc/kind", "gone/a/b", "quiet/x/y", "var/lib/db"} {
		write(t, at(name), "content of "+name)
	}
	w.backup("web", dir, "2026-11-01 03:00:00")
	write(t, at("etc/grown"), "more than there was")
	write(t, at("var/lib/db"), "other rows")
	write(t, at("etc/new\x1b[31m"), "new")
	write(t, at("added/a/b"), "1234567")
	for _, name := range []string{"etc/gone", "gone", "etc/kind"} {
		remove(t, at(name))
	}
	if err := os.Mkdir(at("etc/kind"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at("etc/chmod"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.backup("web", dir, "2026-11-02 03:00:00")
	return dir
}

// TestDiffOfBackups compares with what restic diff says of the same snapshots.
func TestDiffOfBackups(t *testing.T) {
	w := newWorld(t)
	w.twoTrees()
	out, _ := w.run(0, "diff", "web@2026-11-01", "web@latest")
	for _, want := range []string{
		"+ /added/a/b  7 B\n", "- /gone/a/b  19 B\n", "M /etc/grown  content,time (20 B, now 19 B)\n",
		"T /etc/kind  type (19 B, now dir)\n", "U /etc/chmod  mode (0644, now 0600)\n", `+ /etc/new\u{1b}[31m  3 B`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "same") || strings.Contains(out, "quiet") || strings.Contains(out, "\x1b") {
		t.Errorf("too much in\n%s", out)
	}
	var got, want []string
	for line := range strings.Lines(out) {
		if mark, path, ok := strings.Cut(line, " /"); ok {
			path, _, _ = strings.Cut(path, "  ")
			got = append(got, mark+" /"+path)
		}
	}
	for line := range strings.Lines(w.restic("diff", "--metadata", w.snapshot("2026-11-01"), w.snapshot("2026-11-02"))) {
		mark, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		path = strings.TrimSpace(path)
		switch {
		case !ok || !strings.HasPrefix(path, "/"):
			continue
		case mark == "U" && strings.HasSuffix(path, "/"): // folders of which the time changed
			continue
		}
		if mark == "TU" { // of a changed type the attributes differ too
			mark = "T"
		}
		want = append(want, mark+" "+strings.TrimSuffix(strings.ReplaceAll(path, "\x1b", `\u{1b}`), "/"))
	}
	compareSets(t, got, want)

	var report struct {
		Changes []diffLine
		Summary struct {
			Added, Removed, Changed struct{ Files, Dirs, Bytes int64 }
		}
	}
	out, _ = w.run(0, "diff", "--json", "web@2026-11-01", "web@latest")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if s := report.Summary; len(report.Changes) != len(want) || s.Added.Files != 2 || s.Removed.Files != 2 || s.Changed.Files != 3 || s.Added.Bytes != 10 {
		t.Errorf("%d changes, want %d; %+v", len(report.Changes), len(want), report.Summary)
	}
	if out, _ := w.run(0, "diff", "web@latest", "web@2026-11-02"); out != "no differences\n" {
		t.Errorf("a backup and itself: %s", out)
	}
	w.run(1, "diff", "web@latest:/etc", "web@latest:/etcetera")
}

// snapshot returns the ID of the snapshot of a day.
func (w *world) snapshot(day string) string {
	w.t.Helper()
	var all []struct {
		Time, ID string
	}
	if err := json.Unmarshal([]byte(w.restic("snapshots", "--json")), &all); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		if strings.HasPrefix(s.Time, day) {
			return s.ID
		}
	}
	w.t.Fatalf("no snapshot of %s in %+v", day, all)
	return ""
}

func compareSets(t *testing.T, got, want []string) {
	t.Helper()
	in := map[string]int{}
	for _, g := range got {
		in[g]++
	}
	for _, w := range want {
		in[w]--
	}
	for line, n := range in {
		if n != 0 {
			t.Errorf("%q: %+d", line, n)
		}
	}
	if len(want) == 0 {
		t.Error("there is nothing to compare with")
	}
}
