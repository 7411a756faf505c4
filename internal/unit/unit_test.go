//go:build linux

package unit_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/unit"
)

func options() unit.Options {
	return unit.Options{
		Executable: "/usr/bin/drydock", ConfigPath: "/etc/drydock/drydock.yaml", Schedule: "*-*-* 02:30:00",
		VMUnits: []string{"web.service", "builder.service"}, BuilderUnit: "builder.service", BuilderVM: "builder",
	}
}

func files(t *testing.T, o unit.Options) []unit.File {
	t.Helper()
	files, err := unit.Files(o)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFiles(t *testing.T) {
	text := unit.Format(files(t, options()))
	for _, want := range []string{
		"# /etc/systemd/system/builder.service.d/10-drydock.conf\n# Written by drydock",
		"ExecCondition=+\"/usr/bin/drydock\" --config \"/etc/drydock/drydock.yaml\" due builder\n",
		"ExecStartPre=+\"/usr/bin/drydock\" --config \"/etc/drydock/drydock.yaml\" build prepare builder\n",
		"# /etc/systemd/system/drydock-recover.service\n",
		"Before=builder.service web.service\n",
		"ExecStart=\"/usr/bin/drydock\" --config \"/etc/drydock/drydock.yaml\" recover\n",
		"# /etc/systemd/system/drydock.service\n",
		"ExecStart=\"/usr/bin/drydock\" --config \"/etc/drydock/drydock.yaml\" run\nSuccessExitStatus=3\n",
		"# /etc/systemd/system/drydock.timer\n",
		"OnCalendar=*-*-* 02:30:00\nRandomizedDelaySec=10min\nPersistent=true\n",
		"# /etc/systemd/system/timers.target.wants/drydock.timer -> ../drydock.timer\n",
		"# /etc/systemd/system/drydock-check.service\n",
		"ExecStart=\"/usr/bin/drydock\" --config \"/etc/drydock/drydock.yaml\" status\nKillMode=mixed\n",
		"# /etc/systemd/system/drydock-check.timer\n",
		"OnCalendar=*-*-* 09:00:00\n",
		"# /etc/systemd/system/timers.target.wants/drydock-check.timer -> ../drydock-check.timer\n",
	} {
		// Comments stand between settings, and are not part of what is tested.
		if !strings.Contains(withoutComments(text), withoutComments(want)) || !strings.Contains(text, strings.SplitAfter(want, "\n")[0]) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Count(text, "KillMode=process\n") != 2 || strings.Count(text, "NoNewPrivileges") != 1 { // that of the check
		t.Errorf("the machines that drydock starts would be killed or confined:\n%s", text)
	}

	o := options()
	o.OnlyUnits, o.BuilderUnit, o.BuilderVM, o.VMUnits = true, "", "", nil
	text = unit.Format(files(t, o))
	if strings.Contains(text, "KillMode=process") || strings.Count(text, "NoNewPrivileges=yes\n") != 3 {
		t.Errorf("drydock is not confined:\n%s", text)
	}
	if strings.Contains(text, "Before=") || strings.Contains(text, "ExecCondition=") {
		t.Errorf("there is something of a builder or of VMs:\n%s", text)
	}
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestRefused(t *testing.T) {
	for name, spoil := range map[string]func(*unit.Options){
		"relative executable": func(o *unit.Options) { o.Executable = "drydock" },
		"quoted executable":   func(o *unit.Options) { o.Executable = `/usr/bin/dry"dock` },
		"line break":          func(o *unit.Options) { o.ConfigPath = "/etc/a\nExecStart=/bin/sh" },
		"not UTF-8":           func(o *unit.Options) { o.ConfigPath = "/etc/\xff" },
		"not clean":           func(o *unit.Options) { o.ConfigPath = "/etc/../a" },
		"no schedule":         func(o *unit.Options) { o.Schedule = " " },
		"schedule of lines":   func(o *unit.Options) { o.Schedule = "daily\nOnCalendar=minutely" },
		"schedule goes on":    func(o *unit.Options) { o.Schedule = `daily\` },
		"unit of a path":      func(o *unit.Options) { o.VMUnits = []string{"../web.service"} },
		"unit with a space":   func(o *unit.Options) { o.VMUnits = []string{"a b.service"} },
		"unit of a specifier": func(o *unit.Options) { o.VMUnits = []string{"%n.service"} },
		"unit of no service":  func(o *unit.Options) { o.BuilderUnit = "builder.timer" },
		"builder of no unit":  func(o *unit.Options) { o.BuilderUnit = "" },
		"builder's name":      func(o *unit.Options) { o.BuilderVM = "a; b" },
	} {
		o := options()
		spoil(&o)
		if files, err := unit.Files(o); err == nil {
			t.Errorf("%s was taken:\n%s", name, unit.Format(files))
		}
	}
}

// tree lists what is below root, folders with a slash.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if e != nil && e.IsDir() {
			rel += "/"
		}
		list = append(list, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestInstallAndRemove(t *testing.T) {
	root := t.TempDir()
	system := filepath.Join(root, "etc/systemd/system")
	theirs := filepath.Join(system, "web.service.d", "10-drydock.conf")
	write(t, theirs, "[Service]\nNice=5\n")
	write(t, filepath.Join(system, "web.service"), "[Service]\n")
	before := tree(t, root)

	first := files(t, options())
	changed, err := unit.Install(root, first)
	if err != nil || len(changed) != len(first) {
		t.Fatalf("install: %q, %v", changed, err)
	}
	if changed, err = unit.Install(root, first); err != nil || len(changed) != 0 {
		t.Errorf("install again: %q, %v", changed, err)
	}
	if to, err := os.ReadFile(filepath.Join(system, "timers.target.wants/drydock.timer")); err != nil || !strings.Contains(string(to), "OnCalendar=") {
		t.Errorf("the link leads to %q, %v", to, err)
	}

	// Another builder and schedule: what has changed is written, what is no
	// longer meant is removed.
	o := options()
	o.Schedule, o.BuilderUnit, o.VMUnits = "daily", "smith.service", []string{"web.service", "smith.service", "builder.service"}
	changed, err = unit.Install(root, files(t, o))
	slices.Sort(changed)
	want := []string{
		system + "/builder.service.d/10-drydock.conf", system + "/drydock-recover.service", system + "/drydock.timer",
		system + "/smith.service.d/10-drydock.conf",
	}
	if err != nil || !slices.Equal(changed, want) {
		t.Errorf("install of something else: %q, %v", changed, err)
	}

	// A file of somebody else's is left alone, and with it all.
	o.BuilderUnit = "web.service"
	var foreign *unit.ForeignError
	if changed, err = unit.Install(root, files(t, o)); !errors.As(err, &foreign) || foreign.Path != theirs || len(changed) != 0 {
		t.Errorf("install over another's file: %q, %v", changed, err)
	}

	if _, err := unit.Remove(root); err != nil {
		t.Errorf("remove: %v", err)
	}
	if after := tree(t, root); !slices.Equal(after, before) {
		t.Errorf("after the removal there is %q, before the installation was %q", after, before)
	}
	if removed, err := unit.Remove(root); err != nil || len(removed) != 0 {
		t.Errorf("remove again: %q, %v", removed, err)
	}
	if removed, err := unit.Remove(t.TempDir()); err != nil || len(removed) != 0 {
		t.Errorf("remove from nothing: %q, %v", removed, err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whatever stands where drydock would write is not followed and not replaced.
func TestForeign(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("/dev/null", path) }, // systemctl mask
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"empty":  func(path string) error { return os.WriteFile(path, nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "etc/systemd/system/drydock.timer")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before := tree(t, root)
			var foreign *unit.ForeignError
			if _, err := unit.Install(root, files(t, options())); !errors.As(err, &foreign) {
				t.Errorf("install: %v", err)
			}
			if removed, err := unit.Remove(root); err != nil || len(removed) != 0 {
				t.Errorf("remove: %q, %v", removed, err)
			}
			if after := tree(t, root); !slices.Equal(after, before) {
				t.Errorf("%q has become %q", before, after)
			}
		})
	}
}
