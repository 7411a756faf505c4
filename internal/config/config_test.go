package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drydock-vm/drydock/internal/config"
)

// name is what the samples are called when they are parsed: relative paths in
// them start at /etc/drydock.
const name = "/etc/drydock/drydock.yaml"

// schemaAccepts is the first line of an invalid sample whose error is beyond a
// schema.
const schemaAccepts = "# schema: accepts"

// samples returns the files in testdata/DIR by name, and fails without any.
func samples(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples in testdata/%s: %v", dir, err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(path), ".yaml")] = data
	}
	return files
}

func parse(t *testing.T, data []byte) *config.Config {
	t.Helper()
	c, err := config.Parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each valid sample is valid for the schema as well, and what Show makes of it
// is the same configuration.
func TestValid(t *testing.T) {
	files := samples(t, "valid")
	files["the sample of config init"] = config.Sample()
	for file, data := range files {
		t.Run(file, func(t *testing.T) {
			c := parse(t, data)
			shown, err := c.Show()
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.Parse("/elsewhere/shown.yaml", shown)
			if err != nil {
				t.Fatalf("what Show wrote is refused: %v\n%s", err, shown)
			}
			if diff := cmp.Diff(c, again); diff != "" {
				t.Errorf("what Show wrote is another configuration:\n%s", diff)
			}
			for _, text := range [][]byte{data, shown} {
				if err := validate(t, text); err != nil {
					t.Errorf("the schema refuses it: %v\n%s", err, text)
				}
			}
		})
	}
}

// Each invalid sample gets exactly the errors in the file beside it.
func TestInvalid(t *testing.T) {
	for file, data := range samples(t, "invalid") {
		t.Run(file, func(t *testing.T) {
			c, err := config.Parse(name, data)
			if err == nil {
				t.Fatalf("it was taken: %+v", c)
			}
			expected := filepath.Join("testdata", "invalid", file+".txt")
			got := strings.ReplaceAll(err.Error(), name, "drydock.yaml") + "\n"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(expected)
			if readErr != nil || got != string(want) {
				t.Errorf("%v\ngot:\n%s\nwant:\n%s", readErr, got, want)
			}
			var first *config.Error
			if !errors.As(err, &first) || first.Line < 1 || first.Column < 1 {
				t.Errorf("the error has no place: %v", err)
			}
			accepts := bytes.HasPrefix(data, []byte(schemaAccepts+"\n"))
			if err := validate(t, data); (err == nil) != accepts {
				t.Errorf("the schema says %v; the file's first line is %q: %v", err, schemaAccepts, accepts)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c := parse(t, samples(t, "valid")["minimal"])
	want := &config.Config{
		State:       "/var/lib/drydock",
		Runtime:     "/run/drydock",
		Repository:  config.Repository{Path: "/srv/backup", PasswordFile: "/var/lib/drydock/repository.key", Connections: 5, Timeout: config.Duration(2 * time.Minute), Compression: "fastest"},
		Schedule:    "*-*-* 02:30:00",
		Verify:      config.Verify{Mode: "sample", Every: config.Duration(24 * time.Hour), Percent: 4},
		Sandbox:     config.Sandbox{AllowWithout: []config.Layer{}, Memory: 256 << 20},
		Writer:      config.Writer{Accelerator: "auto"},
		Images:      map[string]*config.Image{},
		DiskFolders: []string{},
		VMs: map[string]*config.VM{"web": {
			Name: "web", Driver: "qemu", Command: []string{"qemu-system-x86_64"},
			ShutdownTimeout:   config.Duration(2 * time.Minute),
			OnShutdownTimeout: "skip", Snapshot: "auto",
			Health: config.Health{
				Timeout: config.Duration(2 * time.Minute), Interval: config.Duration(time.Second),
				Probes: []config.Probe{{Active: true}},
			},
			Disks: map[string]*config.Disk{"root": {
				Name: "root", Path: "/etc/drydock/root.qcow2", Format: "qcow2", Mount: "/", Backup: "files",
			}},
		}},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestOrders(t *testing.T) {
	c := parse(t, samples(t, "valid")["full"])
	var vms, disks []string
	for _, vm := range c.SortedVMs() {
		vms = append(vms, vm.Name)
	}
	for _, d := range c.VMs["web"].SortedDisks() {
		disks = append(disks, d.Name)
	}
	if got := strings.Join(vms, " "); got != "mail builder db web" {
		t.Errorf("the VMs are in the order %s", got)
	}
	if got := strings.Join(disks, " "); got != "swap root data log" {
		t.Errorf("the disks are in the order %s", got)
	}
	if b := c.BuilderVM(); b == nil || b.Name != "builder" || b.Builder.Every != config.Duration(168*time.Hour) {
		t.Errorf("the builder is %+v", b)
	}
	if keep := c.Images["web"].Keep; keep != 5 {
		t.Errorf("web keeps %d versions", keep)
	}
	if image := c.Images["db"]; image == nil || image.Keep != 3 {
		t.Errorf("an image that only the builder names: %+v", image)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "drydock.yaml")
	if _, err := config.Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, samples(t, "valid")["minimal"], 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	c, err := config.Load("drydock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "root.qcow2"); c.VMs["web"].Disks["root"].Path != want {
		t.Errorf("the disk is %s, want %s", c.VMs["web"].Disks["root"].Path, want)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "1073741824 bytes") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestScalars(t *testing.T) {
	for text, want := range map[string]string{
		"2m": "2m", "120s": "2m", "1h0m0s": "1h", "90m": "1h30m", "1h30s": "1h0m30s", "1.5s": "1.5s", "0s": "0s",
	} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("the duration %q is %q, %v; want %q", text, d, err, want)
		}
	}
	for text, want := range map[string]string{
		"0B": "0B", "1024B": "1KiB", "256MiB": "256MiB", "1536 MiB": "1536MiB", "4TiB": "4TiB", "1025B": "1025B",
	} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("the size %q is %q, %v; want %q", text, s, err, want)
		}
	}
	for _, text := range []string{"", "1", "-1B", "1MB", "0x10B", "9223372036854775808B", "9999999TiB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, s)
		}
	}
}

// Whatever the bytes, Parse returns; and what it takes, Show writes so that it
// is taken as the same again.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"valid", "invalid"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds in testdata/%s: %v", dir, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(name, data)
		if err != nil {
			return
		}
		shown, err := c.Show()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse(name, shown)
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Error(diff)
		}
	})
}
