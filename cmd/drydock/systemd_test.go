package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/build"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testsystemd"
)

// week is a host whose VMs are units of a real systemd. The days pass by moving
// drydock's clock; nothing else is faked.
type week struct {
	t       *testing.T
	sys     *testsystemd.System
	dir     string
	config  string
	web     *testguest.Guest
	builder *testguest.Guest
}

// unit is the unit of a guest: QEMU, with a QMP socket that the power button is
// pressed through.
func unit(g *testguest.Guest, dir string) string {
	var words []string
	for _, w := range append(g.Command, "-qmp", "unix:"+filepath.Join(dir, g.Name+".qmp")+",server=on,wait=off",
		"-serial", "file:"+filepath.Join(dir, g.Name+".console")) {
		words = append(words, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(w)+`"`)
	}
	return "[Unit]\nDescription=The VM " + g.Name + "\n\n[Service]\nType=exec\nExecStart=" + strings.Join(words, " ") + "\n"
}

// managedConfig is the configuration of a host in dir with one VM, web. head stands above
// it; manager are the lines that say who runs it, and root is what else its root disk has.
func managedConfig(g *testguest.Guest, dir, head, manager, root string) []byte {
	return fmt.Appendf(nil, `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repository}
%[2]s
vms:
  web:
%[3]s
    shutdown_timeout: 60s
    health: {timeout: 5m, interval: 200ms, probes: [{http: %[4]q}]}
    disks:
      root: {path: %[5]s, format: raw, mount: /, backup: off%[6]s}
      data: {path: %[7]s, format: qcow2, backup: image}
`, dir, head, manager, g.URL()+"/healthz", g.RootPath, root, g.DataPath)
}

func newWeek(t *testing.T) *week {
	t.Helper()
	dir := t.TempDir()
	w := &week{t: t, dir: dir, config: filepath.Join(dir, "drydock.yaml")}
	for _, d := range []string{"web", "builder"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	w.web = testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", Dir: filepath.Join(dir, "web")})
	w.builder = testguest.New(t, testguest.Options{Name: "builder", Dir: filepath.Join(dir, "builder"), DataSize: 256 << 20})
	must(t, os.MkdirAll(filepath.Join(dir, "spec", "web"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "spec", "web", "Containerfile"), []byte("FROM scratch\n"), 0o600))
	w.sys = testsystemd.Start(t, testsystemd.Options{
		Bind: []string{dir, filepath.Dir(drydock), testguest.KernelFolder(t)}, HostNetwork: true,
	})
	for _, g := range []*testguest.Guest{w.web, w.builder} {
		w.sys.Write("/etc/systemd/system/"+g.Name+".service", unit(g, dir))
	}
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("state: %s/state\nruntime: %s/run\nrepository: {path: %s/repository}\nschedule: '*-*-* *:*:*'\nvms:", dir, dir, dir)
	for _, g := range []*testguest.Guest{w.web, w.builder} {
		p("  %s:\n    driver: systemd\n    unit: %s.service\n    qmp: %s/%s.qmp\n    shutdown_timeout: 60s", g.Name, g.Name, dir, g.Name)
		p("    health: {timeout: 5m, interval: 200ms, probes: [{http: %q}]}", g.URL()+"/healthz")
		if g == w.builder {
			p("    builder: {spec: %s/spec, spec_disk: %s/spec.raw, output: data, images: [web]}", dir, dir)
		}
		p("    disks:")
		if g == w.web {
			p("      root: {path: %s, format: raw, mount: /, image: web, backup: off}", g.RootPath)
		}
		p("      data: {path: %s, format: %s, mount: /var}", g.DataPath, g.DataFormat)
	}
	must(t, os.WriteFile(w.config, []byte(b.String()), 0o600))
	return w
}

// drydock runs drydock inside the container, where its systemd is.
func (w *week) drydock(args ...string) string {
	w.t.Helper()
	return w.sys.Run(drydock, append([]string{"--config", w.config}, args...)...)
}

// day moves the clock to that many days after the beginning.
func (w *week) day(n int) {
	w.t.Helper()
	w.t.Logf("day %d", n)
	w.sys.Run("systemctl", "set-environment", fmt.Sprintf("DRYDOCK_CLOCK=%dh", 24*n))
}

func (w *week) state(unit string) string {
	w.t.Helper()
	return strings.TrimSpace(w.sys.Run("systemctl", "show", "--property=ActiveState", "--value", unit))
}

func (w *week) active(unit string) bool { return w.state(unit) == "active" }

func (w *week) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s\n%s", what, w.sys.Run("journalctl", "--no-pager", "-n", "60"))
		}
	}
}

// last is the newest round.
func (w *week) last() (id, outcome string, text string) {
	w.t.Helper()
	out := w.drydock("history", "--number", "1", "--json")
	var all []struct {
		Round   string
		Outcome string
		Report  json.RawMessage
	}
	must(w.t, json.Unmarshal([]byte(out), &all))
	if len(all) == 0 {
		return "", "", ""
	}
	return all[0].Round, all[0].Outcome, string(all[0].Report)
}

// round runs the service that the timer runs.
func (w *week) round() string {
	w.t.Helper()
	before, _, _ := w.last()
	w.sys.Run("systemctl", "start", "drydock.service")
	id, outcome, text := w.last()
	if id == before || outcome != "done" {
		w.t.Fatalf("round %s: %s\n%s\n%s", id, outcome, text, w.sys.Run("journalctl", "--no-pager", "-n", "60"))
	}
	return text
}

// build does inside the builder what drydock build run does there: the tiny
// guest has no buildah, and this test is about when there is a build at all.
func (w *week) build() {
	w.t.Helper()
	t, ctx := w.t, w.t.Context()
	healthy(t, w.builder)
	f, err := os.Open(filepath.Join(w.dir, "spec.raw"))
	must(t, err)
	defer f.Close()
	spec, err := build.ReadSpec(f)
	must(t, err)
	img, err := os.ReadFile(testguest.RootImage(t, "v2", false))
	must(t, err)
	sum := sha256.Sum256(img)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	m := build.Manifest{
		Version: build.FormatVersion, BuildID: spec.BuildID, SpecDigest: spec.SpecDigest,
		FinishedAt: time.Now().UTC().Truncate(time.Second), Log: "log/" + spec.BuildID + ".txt",
		Images: []build.Image{{
			Name: "web", Version: "v2", File: "web/v2.raw", Format: build.FormatRaw, Size: int64(len(img)),
			SHA256: hex.EncodeToString(sum[:]), OCIDigest: digest, InputDigest: digest,
		}},
	}
	text, err := m.Marshal()
	must(t, err)
	must(t, w.builder.Put(ctx, "/var/web/v2.raw", img))
	must(t, w.builder.Put(ctx, "/var/manifest.json", text))
}

// TestWeek lets a timer of a real systemd start rounds over VMs that are units:
// the builder's unit is skipped on six days, and runs on the seventh.
func TestWeek(t *testing.T) {
	t.Parallel() // most of it is waiting
	if testing.Short() {
		t.Skip("boots systemd and guests")
	}
	w := newWeek(t)
	w.drydock("systemd", "install")
	// The timer is meant to spread over ten minutes; here it must come at once.
	w.sys.Write("/etc/systemd/system/drydock.timer.d/now.conf", "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n")
	w.sys.Run("systemctl", "daemon-reload")
	w.sys.Run("systemctl", "start", "web.service")
	healthy(t, w.web)

	w.sys.Run("systemctl", "restart", "drydock.timer")
	w.until("the timer starts a round", func() bool { return w.state("drydock.service") == "activating" })
	w.sys.Run("systemctl", "stop", "drydock.timer") // it comes each second here
	w.until("the round ends", func() bool { return w.state("drydock.service") == "inactive" })
	if !w.active("web.service") || !w.active("builder.service") {
		t.Fatalf("after the first night web and builder should run\n%s", w.sys.Run("journalctl", "--no-pager", "-n", "60"))
	}
	w.build()

	w.day(1)
	text := w.round()
	if !strings.Contains(text, `"harvest"`) || !strings.Contains(text, "not due") || w.active("builder.service") {
		t.Errorf("day 1: the builder's image was not harvested, or it was started again\n%s", text)
	}
	if v := healthy(t, w.web); v != "v2" {
		t.Errorf("day 1: web runs %s, want what was built", v)
	}
	for n := 2; n <= 6; n++ {
		w.day(n)
		if n == 2 || n == 6 { // every night is the same to drydock; two of them are run whole
			w.round()
		}
		w.sys.Run("systemctl", "start", "builder.service")
		if w.active("builder.service") {
			t.Fatalf("day %d: the builder was started", n)
		}
		if out := w.sys.Run("systemctl", "show", "--property=Result", "--value", "builder.service"); strings.TrimSpace(out) != "exec-condition" {
			t.Errorf("day %d: the builder's unit has the result %q, want exec-condition", n, strings.TrimSpace(out))
		}
	}
	w.day(7)
	if text := w.round(); !w.active("builder.service") {
		t.Errorf("day 7: the builder was not started\n%s", text)
	}
	if !w.active("web.service") {
		t.Error("web is down after the week")
	}
	w.sys.Run("systemctl", "start", "drydock-check.service") // with all its confinement: no backup is missing
	out := w.drydock("systemd", "remove")
	if !strings.Contains(out, "drydock.timer") {
		t.Errorf("systemd remove: %s", out)
	}
	left, err := filepath.Glob(filepath.Join(w.sys.Root, "etc/systemd/system/*drydock*"))
	must(t, err)
	for _, l := range left {
		if !strings.HasSuffix(l, "drydock.timer.d") { // this test's own
			t.Errorf("%s was left", l)
		}
	}
}
