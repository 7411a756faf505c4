//go:build linux

package unit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testsystemd"
	"github.com/drydock-vm/drydock/internal/unit"
	"github.com/drydock-vm/drydock/internal/vm/systemd"
)

// standIn is a program that stands where drydock will: it notes each call, and
// says that a build is due if the file "due" is there.
const standIn = `#!/bin/sh
cd "${0%/*}"
for word; do printf '<%s>' "$word"; done >> calls
echo >> calls
case "$3" in
due) [ -e due ] ;;
run|status) exit 3 ;;
esac
`

// The files mean to a real systemd what they are meant to, whatever characters
// are in the paths.
func TestSystemd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a %n $HOME ;é`)
	write(t, filepath.Join(dir, "drydock"), standIn)
	if err := os.Chmod(filepath.Join(dir, "drydock"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := testsystemd.Start(t, testsystemd.Options{Bind: []string{filepath.Dir(dir)}})
	for _, only := range []bool{false, true} {
		o := options()
		o.Executable, o.ConfigPath, o.OnlyUnits = filepath.Join(dir, "drydock"), filepath.Join(dir, `%i $PATH ${PATH} 'b' "c" \x41; é`), only
		o.Schedule = "*-*-* 02:30:00 Europe/Berlin"
		check(t, s, o, dir)
	}
}

func check(t *testing.T, s *testsystemd.System, o unit.Options, dir string) {
	for _, name := range o.VMUnits {
		s.Write("/etc/systemd/system/"+name, "[Service]\nExecStart=sleep 600\nUser=daemon\n[Install]\nWantedBy=multi-user.target\n")
	}
	before := tree(t, filepath.Join(s.Root, "etc/systemd"))
	if _, err := unit.Install(s.Root, files(t, o)); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(o.VMUnits, unit.Timer, unit.Service, unit.Recover, unit.CheckTimer, unit.Check) {
		if said := s.Run("systemd-analyze", "verify", name); said != "" {
			t.Errorf("systemd-analyze verify %s: %s", name, said)
		}
	}
	conn, err := systemd.At(s.Bus)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := unit.Activate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if timers := s.Run("systemctl", "list-timers", "--no-legend"); !strings.Contains(timers, "drydock.service") || !strings.Contains(timers, "drydock-check.service") {
		t.Errorf("timers: %s", timers)
	}
	if state := s.Run("systemctl", "is-enabled", unit.Timer, unit.Recover, unit.CheckTimer); state != "enabled\nenabled\nenabled\n" {
		t.Errorf("enabled: %s", state)
	}
	if order := s.Run("systemctl", "show", "-P", "After", "web.service"); !strings.Contains(order, unit.Recover) {
		t.Errorf("web.service comes after: %s", order)
	}
	runUnits(t, s, o, dir)

	if _, err := unit.Remove(s.Root); err != nil {
		t.Fatal(err)
	}
	if err := unit.Deactivate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if timers := s.Run("systemctl", "list-timers", "--all", "--no-legend"); strings.Contains(timers, "drydock") {
		t.Errorf("timers after the removal: %s", timers)
	}
	if after := tree(t, filepath.Join(s.Root, "etc/systemd")); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("after the removal there is %q, before the installation was %q", after, before)
	}
}

// runUnits runs what the units run, and looks at what was called.
func runUnits(t *testing.T, s *testsystemd.System, o unit.Options, dir string) {
	t.Helper()
	calls, due := filepath.Join(dir, "calls"), filepath.Join(dir, "due")
	s.Run("systemctl", "start", unit.Service) // it ends with 3, which is no failure
	s.Run("systemctl", "start", unit.Recover)
	// A backup is missing, and that is a failed unit.
	if err := s.Command(t.Context(), "systemctl", "start", unit.Check).Run(); err == nil {
		t.Error("the check ends with 3, and its unit is well")
	}
	if failed := s.Run("systemctl", "list-units", "--failed", "--no-legend", "--plain"); !strings.HasPrefix(failed, unit.Check) {
		t.Errorf("failed units: %s", failed)
	}
	s.Run("systemctl", "reset-failed", unit.Check)
	s.Run("systemctl", "start", o.BuilderUnit)
	if err := s.Command(t.Context(), "systemctl", "is-active", o.BuilderUnit).Run(); err == nil {
		t.Error("the builder runs although no build is due")
	}
	write(t, due, "")
	s.Run("systemctl", "start", o.BuilderUnit)
	s.Run("systemctl", "is-active", o.BuilderUnit)
	s.Run("systemctl", "stop", o.BuilderUnit)

	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, verb := range []string{"<run>", "<recover>", "<status>", "<due><builder>", "<due><builder>", "<build><prepare><builder>"} {
		want += "<--config><" + o.ConfigPath + ">" + verb + "\n"
	}
	if string(got) != want {
		t.Errorf("called:\n%swant:\n%s", got, want)
	}
	for _, path := range []string{calls, due} {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
