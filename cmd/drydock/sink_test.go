package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// TestSinks has a round hand the disks of a running guest to borg and to programs
// that take a tar and a raw disk, beside one that fails.
func TestSinks(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := newHost(t)
	h.env = append(h.env, "HOME="+h.path("home"))
	borg := func(args ...string) string {
		t.Helper()
		return tool(t, "env", append([]string{"HOME=" + h.path("home"), "borg"}, args...)...)
	}
	borg("init", "-e", "none", h.path("borg"))
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	must(t, os.Mkdir(h.path("tar"), 0o700))
	h.vm(g, "sinks:",
		"  borg: {borg: {repository: "+h.path("borg")+"}}",
		"  broken: {command: [sh, -c, echo out of tapes; exit 3], input: tar}",
		"  disk: {command: [dd, status=none, bs=1M, iflag=fullblock, \"of="+h.path("{vm}-{disk}.raw")+"\"], input: raw}",
		"  tar: {command: [tar, -xC, "+h.path("tar")+"], input: tar}")
	h.write()
	if plan := h.run(0, "plan").stdout; !strings.Contains(plan, "borg gets the disks") {
		t.Errorf("the plan says nothing of it:\n%s", plan)
	}
	h.run(0, "start")
	healthy(t, g)
	r := rounds(t, h, 1)
	problems := strings.Join(r.VMs[0].Errors, "\n")
	if r.VMs[0].Backup == nil || len(r.VMs[0].Errors) != 1 || !strings.Contains(problems, "program broken, disk data: exit status 3: out of tapes") {
		t.Fatalf("%+v", r.VMs[0])
	}
	h.judged()
	h.run(0, "stop")
	want := h.path("want")
	h.restic("restore", "latest", "--host", "web", "--target", want)
	want = filepath.Join(want, "var")
	extracted := h.path("extracted")
	must(t, os.Mkdir(extracted, 0o700))
	archive := strings.Fields(borg("list", "--short", h.path("borg")))
	if len(archive) != 1 || !strings.HasPrefix(archive[0], "web-") {
		t.Fatalf("borg has %q", archive)
	}
	tool(t, "sh", "-c", "cd "+extracted+" && HOME="+h.path("home")+" borg extract "+h.path("borg")+"::"+archive[0])
	for name, dir := range map[string]string{"borg": filepath.Join(extracted, "data"), "tar": h.path("tar")} {
		if got := treeText(t, dir); got != treeText(t, want) {
			t.Errorf("%s has other files than the backup:\n%s", name, got)
		}
	}
	if ls := h.run(0, "ls", h.path("web-data.raw")+":/").stdout; !strings.Contains(ls, " boots\n") {
		t.Errorf("the raw disk: %s", ls)
	}
}
