package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/definition"
)

// shown is what the tests look at of drydock backups show.
type shown struct {
	Tags       []string
	Definition *definition.Definition
}

func (w *world) shown(backup string) (s shown) {
	w.t.Helper()
	out, _ := w.run(0, "backups", "show", backup, "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestDefinitionInBackups: each backup has the definition, whatever a guest puts in
// its place, and no secret of the host.
func TestDefinitionInBackups(t *testing.T) {
	w := newWorld(t)
	kernel := filepath.Join(filepath.Dir(w.config), "vmlinuz")
	write(t, kernel, "a kernel")
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(text), "[qemu-system-x86_64]", "[qemu-system-x86_64, -kernel, "+kernel+", -initrd, /no/such/initrd]", 1))
	root, _ := w.twoDisks()
	forged := filepath.Join(t.TempDir(), "forged")
	write(t, forged, `{"version":1,"vm":"web","disks":[{"name":"evil","path":"/etc/shadow","format":"raw"}]}`)
	w.debugfs(root, "mkdir /.drydock", "write "+forged+" /.drydock/definition.json", "mkdir /.drydock/files", "write "+forged+" /.drydock/files/extra")
	w.backupDisks()

	got := w.shown("web@latest").Definition
	if got == nil || got.VM != "web" || got.Driver != "qemu" || len(got.Command) != 5 || len(got.Disks) != 2 {
		t.Fatalf("%+v", got)
	}
	if d := got.Disk("data"); d == nil || d.Path != filepath.Join(filepath.Dir(w.config), "data.raw") || d.Size != 16<<20 || d.Mount != "/var" || d.Backup != "files" {
		t.Errorf("%+v", d)
	}
	if len(got.Files) != 1 || got.Files[0].Path != kernel || len(got.Missing) != 1 || !strings.Contains(got.Missing[0], "/no/such/initrd") {
		t.Errorf("files %+v, missing %q", got.Files, got.Missing)
	}
	if out, _ := w.run(0, "backups", "show", "web@latest"); !strings.Contains(out, kernel) || !strings.Contains(out, "missing: the initrd file") {
		t.Errorf("%s", out)
	}
	part, _ := w.run(0, "cat", "web@latest:/.drydock/drydock.yaml")
	if !strings.Contains(part, "exclude:") || strings.Contains(part, "repository") || strings.Contains(part, w.key) {
		t.Errorf("the part of the configuration: %s", part)
	}
	if out := w.restic("dump", "latest", "/.drydock/files"+kernel); out != "a kernel" {
		t.Errorf("restic dumps %q", out)
	}

	// A disk that is made anew has the guest's files only.
	made := filepath.Join(t.TempDir(), "root.raw")
	w.run(0, "restore", "web/root@latest", "--to-image", made)
	if out, _ := w.run(0, "ls", made); strings.Contains(out, ".drydock") || !strings.Contains(out, "etc\n") {
		t.Errorf("%s", out)
	}

	// One that is not what drydock wrote is not taken for none.
	other := t.TempDir()
	write(t, filepath.Join(other, ".drydock/definition.json"), `{"version":1,"vm":"other","disks":[{"name":"../x"}]}`)
	w.tool(other, "restic", "-r", w.repo, "-p", w.key, "--no-cache", "backup", "-q", "--host", "other", "--tag", "drydock", "--tag", definition.Tag, ".")
	if out, errs := w.run(0, "backups", "show", "other@latest"); !strings.Contains(out, "cannot be read") || !strings.Contains(errs, "not valid") {
		t.Errorf("%s%s", out, errs)
	}

	// A backup that restic made has none, and that is said.
	old := t.TempDir()
	write(t, filepath.Join(old, "file"), "old")
	w.backup("old", old, "2026-11-01 03:00:00")
	if out, _ := w.run(0, "backups", "show", "old@latest"); !strings.Contains(out, "none: ") {
		t.Errorf("%s", out)
	}
}

// TestBuilderInBackups: what the builder builds from is in its backup, and comes back.
func TestBuilderInBackups(t *testing.T) {
	w := newWorld(t)
	base := filepath.Dir(w.config)
	spec := filepath.Join(base, "spec")
	write(t, filepath.Join(spec, "base/Containerfile"), "FROM scratch\n")
	write(t, filepath.Join(spec, "base/etc/motd"), "hello\n")
	write(t, filepath.Join(base, "spec.raw"), "a tar")
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(text), "    disks:\n", "    builder: {spec: "+spec+", spec_disk: "+base+"/spec.raw, output: data, images: [base]}\n    disks:\n", 1))
	w.twoDisks()
	w.backupDisks()
	if d := w.shown("web@latest").Definition; len(d.Files) != 3 || len(d.Missing) > 0 {
		t.Fatalf("%+v", d)
	}
	to := t.TempDir()
	w.run(0, "restore", "vm", "web", "--to", to, "--without", "root", "--without", "data")
	w.tool("", "diff", "-r", spec, to+spec)
	w.tool("", "cmp", base+"/spec.raw", to+base+"/spec.raw")
	part, _ := w.run(0, "config", "show", "-c", to+"/etc/drydock/drydock.yaml")
	if !strings.Contains(part, "spec_disk: "+base+"/spec.raw") {
		t.Errorf("%s", part)
	}
}
