package config_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/config"
)

const partSource = `
repository: {path: /srv/backup}
disk_folders: [/srv/base]
images: {web: {keep: 7}, db: {}}
vms:
  db: {driver: systemd, unit: db.service, disks: {root: {path: /srv/db.raw, format: raw, mount: /}}}
  web:
    driver: qemu
    command: [qemu-system-x86_64, -append, "a: b # c", "-x\ny"]
    sinks: {other: {command: [cat], input: raw}}
    health: {probes: [{console: "ready\\b"}]}
    disks:
      root: {path: /srv/web.raw, format: raw, image: web, backup: off}
      data: {path: /srv/data.qcow2, format: qcow2, mount: /var, exclude: ["*.tmp", "!/keep"], backing: {path: /srv/base/b.raw, format: raw}}
`

// part is the part of web, through its text.
func part(t *testing.T) (*config.Part, *config.VM) {
	t.Helper()
	c, err := config.Parse("source.yaml", []byte(partSource))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.ShowVM("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"repository", "db", "backing"} {
		if strings.Contains(string(text), never) {
			t.Errorf("%q is in the part:\n%s", never, text)
		}
	}
	p, err := config.ParsePart("part", "web", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	want := *c.VMs["web"]
	data := *want.Disks["data"]
	data.Backing = nil
	want.Disks = map[string]*config.Disk{"root": want.Disks["root"], "data": &data}
	return p, &want
}

// TestMerge adds a VM to configurations as people write them, and nothing else
// changes.
func TestMerge(t *testing.T) {
	p, want := part(t)
	const db = "{driver: systemd, unit: db.service, disks: {root: {path: /srv/db.raw, format: raw, mount: /}}}"
	for name, text := range map[string]string{
		"plain":           "repository: {path: /b}\nvms:\n  db: " + db + "\n",
		"deep":            "vms:   # all of them\n      # the first\n      db: " + db + "\n# the end\nrepository: {path: /b}",
		"images":          "repository: {path: /b}\nimages:\n    other: {}\nvms:\n  db: " + db + "\n",
		"images are set":  "repository: {path: /b}\nimages: {web: {keep: 2}}\nvms:\n  db: " + db + "\n",
		"Windows' lines":  "repository: {path: /b}\r\nvms:\r\n  db: " + db + "\r\n",
		"a document mark": "---\nrepository: {path: /b}\nvms:\n  db: " + db + "\n",
	} {
		out, added, err := p.Merge("drydock.yaml", []byte(text))
		if err != nil || !added {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err := config.Parse("drydock.yaml", out)
		if err != nil {
			t.Errorf("%s: %v in\n%s", name, err, out)
			continue
		}
		if !reflect.DeepEqual(c.VMs["web"], want) || len(c.VMs) != 2 || c.Images["web"] == nil {
			t.Errorf("%s:\n%s", name, out)
		}
		if keep := c.Images["web"].Keep; keep != 7 && name != "images are set" {
			t.Errorf("%s: keep is %d", name, keep)
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(string(out), strings.TrimRight(line, "\r\n")) {
				t.Errorf("%s: the line %q is gone:\n%s", name, line, out)
			}
		}
		if again, added, err := p.Merge("drydock.yaml", out); err != nil || added || string(again) != string(out) {
			t.Errorf("%s: a second time: %v, %v", name, added, err)
		}
	}
	for name, text := range map[string]string{
		"flow style":       "repository: {path: /b}\nvms: {db: " + db + "}\n",
		"flow style above": "{repository: {path: /b}, vms: {db: " + db + "}}\n",
		"a disk twice":     "repository: {path: /b}\nvms:\n  db: {driver: systemd, unit: db.service, disks: {root: {path: /srv/web.raw, format: raw, mount: /}}}\n",
	} {
		if _, _, err := p.Merge("drydock.yaml", []byte(text)); !errors.Is(err, config.ErrMerge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := p.Merge("drydock.yaml", []byte("vms:\n  db: "+db+"\n")); err == nil || errors.Is(err, config.ErrMerge) {
		t.Errorf("a configuration that is wrong: %v", err)
	}
}

// TestNewFile makes a configuration where there is none.
func TestNewFile(t *testing.T) {
	p, want := part(t)
	r, err := config.NewRepository("/mnt/backup", "/root/key", "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.File("/srv/state", r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("drydock.yaml", text)
	if err != nil || !reflect.DeepEqual(c.VMs, map[string]*config.VM{"web": want}) || c.Repository.Path != "/mnt/backup" || c.Repository.PasswordFile != "/root/key" || c.Repository.Connections != 5 || c.State != "/srv/state" {
		t.Errorf("%v:\n%s", err, text)
	}
	for _, bad := range []string{"rest:https://me:secret@host/", "s3:"} {
		if _, err := config.NewRepository(bad, "/key", ""); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestNewRepositoryHere: what the user has named from where he stands is named from
// anywhere.
func TestNewRepositoryHere(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	r, err := config.NewRepository("backup/repo", "key", "login")
	if err != nil || r.Path != here+"/backup/repo" || r.PasswordFile != here+"/key" || r.CredentialsFile != here+"/login" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = config.NewRepository("sftp:me@nas:backup", "/key", ""); err != nil || r.Path != "sftp:me@nas:backup" || r.CredentialsFile != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestPart refuses what is not one VM's part. Text that is nested a hundred thousand
// times is refused before it takes gigabytes.
func TestPart(t *testing.T) {
	for name, text := range map[string]string{
		"lists in lists":    "vms:\n  " + strings.Repeat("- ", 100_000),
		"keys in keys":      "vms:\n  " + strings.Repeat("? ", 100_000),
		"lists in brackets": "vms: " + strings.Repeat("[", 100_000),
		"maps in braces":    "vms: " + strings.Repeat("{a: ", 100_000),
		"nothing":           "",
		"another VM":        "vms: {db: {driver: systemd, unit: db.service, disks: {root: {path: /srv/db.raw, format: raw, mount: /}}}}",
		"an extra key":      "state: /etc\nvms: {}",
		"no YAML":           "\x00",
	} {
		if _, err := config.ParsePart("part", "web", []byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
