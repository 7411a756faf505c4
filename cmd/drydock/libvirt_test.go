package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlibvirt"
)

// atLibvirt returns what makes a drydock where a libvirt is, and what runs one that must
// succeed.
func atLibvirt(t *testing.T, l *testlibvirt.Libvirt, config string) (command func(args ...string) *exec.Cmd, run func(args ...string) string) {
	command = func(args ...string) *exec.Cmd {
		return l.Command(t.Context(), drydock, append([]string{"--config", config}, args...)...)
	}
	return command, func(args ...string) string {
		t.Helper()
		out, err := command(args...).CombinedOutput()
		if err != nil {
			t.Fatalf("drydock %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

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
	_, run := atLibvirt(t, l, config)
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

// TestLibvirtFromBackup: a domain with a disk of libvirt's own runs from its backup. When
// the drydock dies that serves it, the guest waits for the next one, and in the end libvirt
// and the image know of nothing below the disk.
func TestLibvirtFromBackup(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir := t.TempDir()
	config := filepath.Join(dir, "drydock.yaml")
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", Dir: dir, DataSize: 256 << 20})
	l := testlibvirt.Start(t)
	l.Define(testlibvirt.PassThrough("web", g.Command, testlibvirt.Disk{ID: "data", Path: g.DataPath}))
	text := managedConfig(g, dir, "", "    driver: libvirt\n    domain: web", "")
	must(t, os.WriteFile(config, text, 0o600))
	command, run := atLibvirt(t, l, config)
	l.Virsh("start", "web")
	healthy(t, g)
	must(t, g.Put(t.Context(), "/var/letter", []byte("of a domain")))
	must(t, g.Fill(t.Context(), "/var/much", 1, 300, 500_000))
	sum, err := g.Sum(t.Context(), "/var/letter")
	must(t, err)
	run("run")
	run("stop")
	must(t, os.Remove(g.DataPath))

	kill := func(c *exec.Cmd) {
		t.Helper()
		tool(t, "pkill", "-KILL", "-P", fmt.Sprint(c.Process.Pid)) // it is the child of what goes into its namespaces
		_ = c.Wait()                                               // killed
	}
	// One dies before the guest would execute, and it does not.
	resumes, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	socket := l.Relay(func(procedure uint32) bool {
		const domainResume = 28
		if procedure == domainResume {
			close(resumes)
			<-never
		}
		return true
	})
	must(t, os.WriteFile(config, bytes.Replace(text, []byte("domain: web"), []byte("domain: web\n    socket: "+socket), 1), 0o600))
	dies := command("start-from-backup", "web")
	must(t, dies.Start())
	select {
	case <-resumes:
	case <-time.After(patience):
		t.Errorf("the guest would not execute within %v", patience)
	}
	kill(dies)
	must(t, os.WriteFile(config, text, 0o600))
	if state := l.Virsh("domstate", "web"); state != "paused" {
		t.Errorf("the domain is %s", state)
	}

	// The next one dies as soon as the guest executes, which boots without it.
	first := command("start-from-backup", "web")
	must(t, first.Start())
	nodes := func() string {
		return l.Virsh("qemu-monitor-command", "web", `{"execute": "query-named-block-nodes"}`)
	}
	within(t, "the domain runs", func() bool { return l.Virsh("domstate", "web") == "running" })
	if !strings.Contains(nodes(), `"drydock-`) {
		t.Error("QEMU does not wait")
	}
	kill(first)
	if out := run("status", "web"); !strings.Contains(out, "being filled in from ") {
		t.Errorf("%s", out)
	}
	out := run("start-from-backup", "web")
	if !strings.Contains(out, "web stands on its own") {
		t.Errorf("%s", out)
	}
	if got, err := g.Sum(t.Context(), "/var/letter"); err != nil || got != sum {
		t.Errorf("the letter has the sum %s, %v, want %s", got, err, sum)
	}
	if xml := l.Virsh("dumpxml", "web"); strings.Contains(xml, "nbd") {
		t.Errorf("libvirt still knows of a server: %s", xml)
	}
	if nodes := nodes(); strings.Contains(nodes, "nbd") {
		t.Errorf("QEMU still has a server: %s", nodes)
	}
	boots, err := g.Boots(t.Context())
	if err != nil || len(boots) != 2 {
		t.Errorf("the guest has booted %d times: %v", len(boots), err)
	}
	run("run") // the next night
	if info := tool(t, "qemu-img", "info", "-U", g.DataPath); strings.Contains(info, "backing") {
		t.Errorf("%s", info)
	}
}
