package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/image"
)

const vmConfig = `# the host of the test
state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[2]s/repo, password_file: %[2]s/key}
images: {base: {keep: 5}}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64, -kernel, %[1]s/boot/vmlinuz, -drive, "if=pflash,format=raw,file=%[1]s/web.fd"]
    disks:
      root: {path: %[1]s/disks/root.qcow2, format: qcow2, image: base, backup: off}
      data: {path: %[1]s/disks/data.raw, format: raw, mount: /}
      more: {path: %[1]s/disks/more.qcow2, format: qcow2, mount: /srv}
      store: {path: %[1]s/store.qcow2, format: qcow2, backup: image}
      scratch: {path: %[1]s/scratch.qcow2, format: qcow2, backup: off}
`

// vmWorld is a host with a VM of every kind of disk, that was backed up.
type vmWorld struct {
	*world
	host string // the folder that everything of the host lies in
}

func newVMWorld(t *testing.T) *vmWorld {
	t.Helper()
	w := &vmWorld{world: newWorld(t), host: t.TempDir()}
	outside := filepath.Dir(w.config)
	w.config = filepath.Join(w.host, "etc", "drydock.yaml")
	write(t, w.config, fmt.Sprintf(vmConfig, w.host, outside))
	write(t, filepath.Join(w.host, "boot/vmlinuz"), "a kernel")
	write(t, filepath.Join(w.host, "web.fd"), "UEFI variables")
	tree := t.TempDir()
	for _, name := range []string{"data/etc/passwd", "data/srv/hidden", "more/www/index", "store/db"} {
		write(t, filepath.Join(tree, name), "content of "+name)
	}
	write(t, filepath.Join(tree, "data/disks/store.raw"), "the guest's own")
	raw := filepath.Join(t.TempDir(), "raw")
	make := func(path, format, folder, uuid, label string) {
		w.tool(tree, "mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, "-U", uuid, "-L", label, raw, "16M")
		w.tool("", "qemu-img", "convert", "-f", "raw", "-O", format, raw, filepath.Join(w.host, path))
		w.tool("", "rm", raw)
	}
	must(t, os.Mkdir(filepath.Join(w.host, "disks"), 0o755))
	make("disks/data.raw", "raw", "data", "11111111-2222-3333-4444-555555555555", "the root")
	make("disks/more.qcow2", "qcow2", "more", "21111111-2222-3333-4444-555555555555", "more")
	make("store.qcow2", "qcow2", "store", "31111111-2222-3333-4444-555555555555", "store")
	w.tool("", "truncate", "-s", "+1M", filepath.Join(w.host, "disks/data.raw")) // a disk larger than its filesystem
	w.tool("", "qemu-img", "create", "-q", "-f", "qcow2", filepath.Join(w.host, "scratch.qcow2"), "100M")
	must(t, os.Chown(filepath.Join(w.host, "disks/more.qcow2"), 64055, 108))
	must(t, os.Chmod(filepath.Join(w.host, "disks/more.qcow2"), 0o640))
	w.installRoot()
	w.backupDisks()
	return w
}

// installRoot makes the root disk from a version in the image store.
func (w *vmWorld) installRoot() {
	t := w.t
	t.Helper()
	content := make([]byte, 3<<20+512)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content[:1<<20])
	store := image.New(image.Options{Dir: filepath.Join(w.host, "state", "images")})
	v, err := store.Import(t.Context(), "base", "v7", bytes.NewReader(content), image.Want{}, image.Meta{})
	must(t, err)
	path := filepath.Join(w.host, "disks/root.qcow2")
	must(t, store.Make(t.Context(), v, image.Target{Path: path, Format: "qcow2"}, 8<<20))
	must(t, store.Promote("base", "v7"))
	must(t, store.Commit("web", "root", path, v))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flags are what a bare host knows: the repository and its key.
func (w *vmWorld) flags(more ...string) []string {
	return append([]string{"restore", "vm", "web", "--repository", w.repo, "--password-file", w.key, "--state", filepath.Join(w.host, "state")}, more...)
}

// disks says of each disk below a folder what it holds, and that the format is right.
func (w *vmWorld) disks(root string) string {
	w.t.Helper()
	var out strings.Builder
	raw := filepath.Join(w.t.TempDir(), "raw")
	for _, d := range [][2]string{{"disks/root.qcow2", "qcow2"}, {"store.qcow2", "qcow2"}, {"scratch.qcow2", "qcow2"}} {
		w.tool("", "qemu-img", "convert", "-f", d[1], "-O", "raw", filepath.Join(root, d[0]), raw)
		fmt.Fprintf(&out, "%s %s", d[0], w.tool("", "sh", "-c", `sha256sum <"$0"`, raw))
	}
	for _, d := range [][2]string{{"disks/data.raw", "raw"}, {"disks/more.qcow2", "qcow2"}} {
		path := filepath.Join(root, d[0])
		w.tool("", "qemu-img", "convert", "-f", d[1], "-O", "raw", path, raw)
		w.tool("", "e2fsck", "-f", "-n", raw)
		fmt.Fprintf(&out, "%s %s%s%s", d[0], w.tool("", "stat", "-c", "%s", raw), w.tool("", "stat", "-c", "%a %u %g", path),
			w.tool("", "blkid", "-p", "-o", "value", "-s", "UUID", "-s", "LABEL", raw))
	}
	return out.String()
}

// versions are those in an image store.
func versions(t *testing.T, dir string) string {
	t.Helper()
	store := image.New(image.Options{Dir: dir})
	in, ok, err := store.Installed("web", "root")
	must(t, err)
	v, err := store.Current("base")
	must(t, err)
	return fmt.Sprint(ok, in.Version, in.SHA256, v.ID, v.SHA256)
}

// TestRestoreVM takes everything of a host away, and brings it back from the
// repository and its key: below a folder, and then to its own place.
func TestRestoreVM(t *testing.T) {
	w := newVMWorld(t)
	wantDisks, wantImages := w.disks(w.host), versions(t, filepath.Join(w.host, "state/images"))
	before := filepath.Join(t.TempDir(), "host")
	w.tool("", "cp", "-a", w.host, before)

	// Below a folder, on the host that it is of.
	to := filepath.Join(t.TempDir(), "to")
	w.run(0, "restore", "vm", "web", "--to", to)
	if got := w.disks(to + w.host); got != wantDisks {
		t.Errorf("below a folder:\n%s\nwant\n%s", got, wantDisks)
	}
	if got := versions(t, filepath.Join(to, w.host, "state/images")); got != wantImages {
		t.Errorf("images: %s, want %s", got, wantImages)
	}

	// On a host that has nothing.
	must(t, os.RemoveAll(w.host))
	w.world.config = filepath.Join(w.host, "etc", "drydock.yaml")
	out, _ := w.run(0, w.flags("--dry-run", "--allow", w.host)...)
	for _, want := range []string{"disk root", "version", "base v7", "disk scratch", "empty", "firmware", "a new one, with this VM alone"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the plan:\n%s", want, out)
		}
	}
	if _, err := os.Lstat(w.host); !os.IsNotExist(err) {
		t.Fatalf("the plan has made something: %v", err)
	}
	w.run(0, w.flags("--allow", w.host)...)
	if got := w.disks(w.host); got != wantDisks {
		t.Errorf("%s\nwant\n%s", got, wantDisks)
	}
	for _, name := range []string{"boot/vmlinuz", "web.fd"} {
		w.tool("", "cmp", filepath.Join(w.host, name), filepath.Join(before, name))
	}
	for _, pair := range [][2]string{{"disks/data.raw", "disks/data.raw"}, {"disks/more.qcow2", "disks/more.qcow2"}} {
		if out, _ := w.run(0, "diff", "--content", filepath.Join(before, pair[0]), filepath.Join(w.host, pair[1])); !strings.Contains(out, "added:   0 files of 0 B, 0 folders") && out != "no differences\n" {
			t.Errorf("%s: %s", pair[0], out)
		}
	}
	if out, _ := w.run(0, "cat", filepath.Join(w.host, "disks/data.raw")+":/etc/passwd"); out != "content of data/etc/passwd" {
		t.Errorf("/etc/passwd is %q", out)
	}
	left, err := filepath.Glob(filepath.Join(w.host, "*", "*.drydock*"))
	if err != nil || left != nil {
		t.Errorf("something is left behind: %q, %v", left, err)
	}

	// The new configuration is good, and the next backup takes the version over.
	w.run(0, "config", "check")
	if got := versions(t, filepath.Join(w.host, "state/images")); got != wantImages {
		t.Errorf("images: %s, want %s", got, wantImages)
	}
	w.backupDisks()
	if s := w.shown("web@latest"); s.Definition.Disk("root").Release == nil || !slices.Contains(s.Tags, "version:root=v7") {
		t.Errorf("the backup of the VM that was restored: %+v", s)
	}
}

// TestRestoreVMAgain: a restore that was cut off is gone on with, what is there is not
// touched, and with --overwrite it is kept.
func TestRestoreVMAgain(t *testing.T) {
	w := newVMWorld(t)
	want := w.disks(w.host)
	data, more := filepath.Join(w.host, "disks/data.raw"), filepath.Join(w.host, "disks/more.qcow2")

	_, errs := w.run(1, w.flags("--allow", w.host)...)
	for _, there := range []string{data, more, filepath.Join(w.host, "scratch.qcow2")} {
		if !strings.Contains(errs, there) {
			t.Errorf("%s is not named: %s", there, errs)
		}
	}
	if strings.Contains(errs, "vmlinuz") || strings.Count(errs, "\n") != 1 {
		t.Errorf("a file that is as it should be is named, or it is more than one line: %s", errs)
	}
	// Something is in the way of the last file: all disks are restored, and not done
	// again.
	write(t, data, "another disk")
	must(t, os.Remove(filepath.Join(w.host, "web.fd")))
	must(t, os.Mkdir(filepath.Join(w.host, "web.fd.drydock-new"), 0o755))
	write(t, filepath.Join(w.host, "web.fd.drydock-new/x"), "")
	w.run(1, w.flags("--allow", w.host, "--overwrite")...)
	made, err := os.Stat(data)
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(w.host, "web.fd.drydock-new")))
	out, _ := w.run(0, w.flags("--allow", w.host)...)
	if strings.Count(out, "  there  ") < 6 {
		t.Errorf("%s", out)
	}
	if now, err := os.Stat(data); err != nil || !os.SameFile(made, now) {
		t.Errorf("the disk was made again: %v", err)
	}
	if text, err := os.ReadFile(data + ".previous"); err != nil || string(text) != "another disk" {
		t.Errorf("the disk that was there is %q, %v", text, err)
	}
	if got := w.disks(w.host); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	text, err := os.ReadFile(w.config)
	if err != nil || !strings.HasPrefix(string(text), "# the host of the test\n") {
		t.Errorf("the configuration was touched: %s, %v", text, err)
	}
}

// TestRestoreVMRefuses: each is one clear error, and nothing is written.
func TestRestoreVMRefuses(t *testing.T) {
	w := newVMWorld(t)
	outside, link := t.TempDir(), filepath.Join(t.TempDir(), "base")
	must(t, os.Mkdir(link, 0o755))
	must(t, os.MkdirAll(filepath.Join(link, filepath.Dir(w.host)), 0o755))
	must(t, os.Symlink(outside, filepath.Join(link, w.host)))
	empty := filepath.Join(t.TempDir(), "no.yaml")
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{2, []string{"restore", "vm", "web"}, "--to is missing"},
		{2, []string{"restore", "vm", "web", "--to", "/x", "--allow", "/y"}, "give one of them"},
		{2, []string{"restore", "vm", "web", "--repository", w.repo, "--to", "/x"}, "go together"},
		{2, []string{"restore", "vm", "web/data", "--to", "/x"}, "not VM@BACKUP"},
		{2, []string{"restore", "vm", "web", "--to", "/x", "-c", empty}, "no configuration at"},
		{1, []string{"restore", "vm", "other", "--to", outside}, "this VM has none"},
		{1, []string{"restore", "vm", "web", "--to", outside, "--without", "nothing"}, `no disk "nothing"`},
		{1, []string{"restore", "vm", "web", "--allow", filepath.Join(w.host, "disks"), "--overwrite"}, "--allow " + w.host},
		{1, []string{"restore", "vm", "web", "--to", link}, "leads out of " + link + " is not followed"},
	} {
		_, errs := w.run(c.code, c.args...)
		if !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: %q, want one line with %q", c.args, errs, c.want)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("something was written outside: %v, %v", left, err)
	}
	var plan struct {
		Items []struct{ What, Action string }
	}
	out, _ := w.run(0, "restore", "vm", "web", "--to", filepath.Join(outside, "x"), "--dry-run", "--without", "data", "--json")
	if err := json.Unmarshal([]byte(out), &plan); err != nil || len(plan.Items) != 8 || plan.Items[0].Action != "left out" && plan.Items[0].What == "disk data" {
		t.Errorf("%s, %v", out, err)
	}
}
