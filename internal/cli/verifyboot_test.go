package cli

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bootWorld is a world with a backup of files, whose VM is a QEMU in which nothing
// executes. extra is put behind the configuration.
func bootWorld(t *testing.T, extra string) *world {
	t.Helper()
	w := newWorld(t)
	root, data := w.twoDisks()
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	command := "[qemu-system-x86_64, -accel, tcg, -nodefaults, -m, '16', -hda, " + root + ", -hdb, " + data + "]"
	write(t, w.config, strings.Replace(string(text), "[qemu-system-x86_64]", command, 1)+extra)
	w.backupDisks()
	return w
}

// boot verifies that backups boot.
func (w *world) boot(code int, names ...string) (r bootsReport) {
	w.t.Helper()
	out, _ := w.run(code, append([]string{"verify", "--mode", "boot", "--json"}, names...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return r
}

// TestOneThatCannotBeTried: it keeps no other VM from being tried.
func TestOneThatCannotBeTried(t *testing.T) {
	w := bootWorld(t, "  z: {driver: qemu, command: [qemu-system-x86_64], disks: {root: {path: /srv/z.raw, format: raw, mount: /}}}\n")
	r := w.boot(1, "z", "web")
	if r.Good || len(r.Boots) != 1 || !r.Boots[0].good() || len(r.NotTried) != 1 || r.NotTried[0].VM != "z" || !strings.Contains(r.NotTried[0].Error, "no such backup") {
		t.Errorf("%+v", r)
	}
	if out, errs := w.run(1, "verify", "--mode", "boot"); !strings.Contains(out, "healthy in") || !strings.Contains(errs, "proven to boot: backup \"latest\" of z: no such backup") {
		t.Errorf("%s%s", out, errs)
	}
	w.run(2, "verify", "--mode", "boot", "web", "b")
	w.run(2, "verify", "--mode", "boot", "--percent", "5")
}

// TestFaultOfTheHost: what keeps a backup from being tried says nothing of it.
func TestFaultOfTheHost(t *testing.T) {
	w := bootWorld(t, "")
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(text), "-nodefaults", "-nodefaults, -cpu, none-such", 1))
	if r := w.boot(1, "web"); len(r.Boots) != 0 || len(r.NotTried) != 1 || !strings.Contains(r.NotTried[0].Error, "none-such") {
		t.Errorf("%+v", r)
	}
	if out, _ := w.run(0, "status"); strings.Contains(out, "BOOT") {
		t.Errorf("%s", out)
	}
}

// TestBootWithoutDamagedFiles: a machine that gets by without files that are lost is no
// proof of its backup.
func TestBootWithoutDamagedFiles(t *testing.T) {
	w := bootWorld(t, "")
	before := w.packs()
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // has no error
	bad := filepath.Join(t.TempDir(), "bad")
	write(t, bad, string(noise))
	w.debugfs(filepath.Join(filepath.Dir(w.config), "data.raw"), "write "+bad+" bad")
	w.backupDisks()
	var errs []error
	for path := range w.packs() {
		if st, err := os.Stat(path); err == nil && !before[path] && st.Size() >= int64(len(noise)) {
			errs = append(errs, os.Remove(path))
		}
	}
	if len(errs) != 1 || errors.Join(errs...) != nil {
		t.Fatal(errs)
	}
	w.restic("rebuild-index")
	r := w.boot(1, "web")
	if len(r.Boots) != 1 || !strings.Contains(r.Boots[0].Error, "1 are damaged") || r.Boots[0].Healthy == 0 {
		t.Errorf("%+v, %+v", r, r.Boots)
	}
}
