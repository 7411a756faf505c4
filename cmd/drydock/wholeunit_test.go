package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testsystemd"
)

// TestWholeUnit loses a VM that is a unit of a real systemd: the unit, its drop-in, its
// disks and drydock's configuration. All of it comes back, systemd knows it, and the
// guest boots.
func TestWholeUnit(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	disks, config, key := filepath.Join(dir, "disks"), filepath.Join(dir, "drydock.yaml"), filepath.Join(dir, "key")
	must(t, os.Mkdir(disks, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v0", Dir: disks})
	sys := testsystemd.Start(t, testsystemd.Options{Bind: []string{dir, filepath.Dir(drydock), testguest.KernelFolder(t)}, HostNetwork: true})
	const name = "/etc/systemd/system/web.service"
	sys.Write(name, unit(g, dir))
	sys.Write(name+".d/10-more.conf", "[Service]\nEnvironment=\"WORD=of the drop-in\"\n")
	sys.Run("chmod", "640", name)
	must(t, os.WriteFile(config, managedConfig(g, dir, "images: {web: {}}", fmt.Sprintf("    driver: systemd\n    unit: web.service\n    qmp: %s/web.qmp", dir), ", image: web"), 0o600))
	run := func(args ...string) string {
		t.Helper()
		return sys.Run(drydock, append([]string{"--config", config}, args...)...)
	}
	sys.Run("systemctl", "daemon-reload")
	sys.Run("systemctl", "start", "web.service")
	healthy(t, g)
	must(t, g.Put(t.Context(), "/var/letter", []byte("of a VM that is a unit")))
	image := filepath.Join(dir, "v1.raw")
	tool(t, "cp", testguest.RootImage(t, "v1", false), image)
	run("images", "import", "web", image, "--version", "v1")
	run("run")
	if out := run("backups", "show", "web@latest"); !strings.Contains(out, name+".d/10-more.conf") || strings.Contains(out, "missing") {
		t.Errorf("%s", out)
	}

	sys.Run("systemctl", "stop", "web.service")
	want, err := os.ReadFile(filepath.Join(sys.Root, name))
	must(t, err)
	sys.Run("rm", "-r", name, name+".d")
	sys.Run("systemctl", "daemon-reload")
	tool(t, "cp", filepath.Join(dir, "state", "repository.key"), key)
	for _, lost := range []string{disks, config, filepath.Join(dir, "state"), filepath.Join(dir, "run")} {
		must(t, os.RemoveAll(lost))
	}
	run("restore", "vm", "web", "--repository", filepath.Join(dir, "repository"), "--password-file", key, "--state", filepath.Join(dir, "state"),
		"--allow", disks, "--allow", "/etc/systemd/system", "--allow", testguest.KernelFolder(t), "--start")

	if v := healthy(t, g); v != "v1" {
		t.Errorf("the guest runs %s, want v1", v)
	}
	if letter, err := g.Get(t.Context(), "/var/letter"); err != nil || string(letter) != "of a VM that is a unit" {
		t.Errorf("the letter is %q, %v", letter, err)
	}
	if got, err := os.ReadFile(filepath.Join(sys.Root, name)); err != nil || string(got) != string(want) {
		t.Errorf("the unit is\n%s\n%v", got, err)
	}
	if out := sys.Run("stat", "-c", "%a", name); out != "640\n" {
		t.Errorf("the unit's permissions are %s", out)
	}
	if out := sys.Run("systemctl", "show", "--property=Environment,ActiveState", "web.service"); !strings.Contains(out, "WORD=of the drop-in") || !strings.Contains(out, "ActiveState=active") {
		t.Errorf("systemd says %s", out)
	}
	if out := run("status", "web"); !strings.Contains(out, "running") {
		t.Errorf("%s", out)
	}
}
