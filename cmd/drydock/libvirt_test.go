package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlibvirt"
)

// TestLibvirt takes a VM of a real libvirt through a round that refits it, boots it from
// its backup, and loses it: the domain, its disks and drydock's configuration. All of it
// comes back, libvirt knows it, and the guest boots.
func TestLibvirt(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	disks, config, key := filepath.Join(dir, "disks"), filepath.Join(dir, "drydock.yaml"), filepath.Join(dir, "key")
	must(t, os.Mkdir(disks, 0o755))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v0", Dir: disks})
	l := testlibvirt.Start(t)
	l.Define(testlibvirt.PassThrough("web", g.Command))
	must(t, os.WriteFile(config, managedConfig(g, dir, "images: {web: {}}", "    driver: libvirt\n    domain: web", ", image: web"), 0o600))
	run := func(args ...string) string {
		t.Helper()
		out, err := l.Command(t.Context(), drydock, append([]string{"--config", config}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("drydock %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	l.Virsh("start", "web")
	healthy(t, g)
	must(t, g.Put(t.Context(), "/var/letter", []byte("of a domain")))
	image := filepath.Join(dir, "v1.raw")
	tool(t, "cp", testguest.RootImage(t, "v1", false), image)
	run("images", "import", "web", image, "--version", "v1")
	run("run")
	if v := healthy(t, g); v != "v1" || l.Virsh("domstate", "web") != "running" {
		t.Errorf("the guest runs %s", v)
	}
	const xml = "/etc/libvirt/qemu/web.xml"
	if out := run("backups", "show", "web@latest"); !strings.Contains(out, xml) || strings.Contains(out, "missing") {
		t.Errorf("%s", out)
	}
	if out := run("verify", "--mode", "boot", "web"); !strings.Contains(out, "healthy in") {
		t.Errorf("%s", out)
	}

	uuid := l.Virsh("domuuid", "web")
	l.Virsh("destroy", "web")
	l.Virsh("undefine", "web")
	tool(t, "cp", filepath.Join(dir, "state", "repository.key"), key)
	for _, lost := range []string{disks, config, filepath.Join(dir, "state"), filepath.Join(dir, "run")} {
		must(t, os.RemoveAll(lost))
	}
	restore := []string{"restore", "vm", "web", "--repository", filepath.Join(dir, "repository"), "--password-file", key, "--state", filepath.Join(dir, "state"),
		"--allow", disks, "--allow", "/etc/libvirt/qemu", "--allow", testguest.KernelFolder(t)}
	if out := run(restore...); !strings.Contains(out, "virsh define "+xml) {
		t.Errorf("%s", out)
	}
	run(append(restore, "--start")...)

	if v := healthy(t, g); v != "v1" {
		t.Errorf("the guest runs %s, want v1", v)
	}
	if letter, err := g.Get(t.Context(), "/var/letter"); err != nil || string(letter) != "of a domain" {
		t.Errorf("the letter is %q, %v", letter, err)
	}
	if got := l.Virsh("domuuid", "web"); got != uuid || l.Virsh("domstate", "web") != "running" {
		t.Errorf("the domain has the UUID %s, want %s", got, uuid)
	}
	if out := run("status", "web"); !strings.Contains(out, "running") {
		t.Errorf("%s", out)
	}
}
