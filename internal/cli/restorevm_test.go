package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
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
		args := []string{"convert", "-f", "raw", "-O", format, raw, filepath.Join(w.host, path)}
		if format == "qcow2" {
			args = append(args, "-o", "cluster_size=128k")
		}
		w.tool("", "qemu-img", args...)
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
	for _, name := range []string{"disks/more.qcow2", "store.qcow2"} {
		if out := w.tool("", "qemu-img", "info", filepath.Join(w.host, name)); !strings.Contains(out, "cluster_size: 131072") {
			t.Errorf("%s: %s", name, out)
		}
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
	// A disk that was written to since is not one that was just restored.
	must(t, os.Chtimes(data, time.Time{}, made.ModTime().Add(time.Second)))
	if _, errs := w.run(1, w.flags("--allow", w.host)...); !strings.Contains(errs, data) || strings.Contains(errs, more) {
		t.Errorf("%s", errs)
	}
	must(t, os.Chtimes(data, time.Time{}, made.ModTime()))
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

	// Once more, when all is done and the VM has run: the disk that was there first is
	// not lost to it.
	must(t, os.Chtimes(data, time.Time{}, made.ModTime().Add(time.Second)))
	_, errs = w.run(1, w.flags("--allow", w.host, "--overwrite")...)
	if !strings.Contains(errs, "data.raw.previous, and a file of that name is there already") {
		t.Errorf("%s", errs)
	}
	if text, err := os.ReadFile(data + ".previous"); err != nil || string(text) != "another disk" {
		t.Errorf("the disk that was there is %q, %v", text, err)
	}
	// A disk that cannot get its place leaves nothing of itself.
	must(t, os.Remove(data))
	record := filepath.Join(w.host, "state/restored/web.json")
	must(t, os.Remove(record))
	must(t, os.MkdirAll(record+"/x", 0o755))
	w.run(1, w.flags("--allow", w.host, "--overwrite", "--without", "scratch", "--without", "store", "--without", "more", "--without", "root")...)
	if left, err := filepath.Glob(data + ".drydock-new*"); err != nil || left != nil {
		t.Errorf("it has left %q, %v", left, err)
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

const layoutConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[2]s/repo, password_file: %[2]s/key}
vms:
  web:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      boot: {path: %[1]s/boot.qcow2, format: qcow2, mount: /, partition: 2}
      pool: {path: %[1]s/pool.raw, format: raw, mount: /srv, volume: store/data}
`

// TestRestoreVMLayout: disks with partitions, a boot loader, an ESP and LVM, of which
// the files of one filesystem are backed up. All that is around it comes back too, and
// of a filesystem that is not backed up as files what it uses.
func TestRestoreVMLayout(t *testing.T) {
	w := &vmWorld{world: newWorld(t), host: t.TempDir()}
	outside := filepath.Dir(w.config)
	w.config = filepath.Join(w.host, "etc", "drydock.yaml")
	write(t, w.config, fmt.Sprintf(layoutConfig, w.host, outside))
	boot, pool := w.bootDisk(), w.poolDisk()
	secret := []byte("the content of a file that was deleted before the backup")
	w.tool("", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", boot, filepath.Join(w.host, "boot.qcow2"))
	w.tool("", "cp", "--sparse=always", pool, filepath.Join(w.host, "pool.raw"))
	w.backupDisks()
	w.backupDisks() // a second night finds what the first has stored

	s := w.shown("web@latest")
	if !slices.Contains(s.Tags, "layout:boot") || !slices.Contains(s.Tags, "layout:pool") || len(s.Definition.Missing) > 0 {
		t.Fatalf("%+v", s)
	}
	if n := len(s.Definition.Disk("pool").Pieces); n != 2 {
		t.Errorf("the logical volume lies in %d pieces, and it was made in two", n)
	}
	// The files are stored once, as files.
	stored := w.restic("dump", "latest", "/disks/boot.raw") + w.restic("dump", "latest", "/disks/pool.raw")
	if strings.Contains(stored, "content of root/etc/passwd") || strings.Contains(stored, "content of data/db") || strings.Contains(stored, string(secret)) {
		t.Error("the layouts have content of the files that are backed up, or of a deleted one")
	}
	if !strings.Contains(stored, "content of home/letter") {
		t.Error("a filesystem that is not backed up as files is not in the layout")
	}

	must(t, os.RemoveAll(w.host))
	w.run(0, w.flags("--allow", w.host)...)
	raw := filepath.Join(t.TempDir(), "boot.raw")
	w.tool("", "qemu-img", "convert", "-f", "qcow2", "-O", "raw", filepath.Join(w.host, "boot.qcow2"), raw)
	for _, pair := range [][2]string{{boot, raw}, {pool, filepath.Join(w.host, "pool.raw")}} {
		w.sameAround(pair[0], pair[1])
	}
	listed := func(disk, volume string) string {
		out, _ := w.run(0, "tar", disk, "--volume", volume)
		return out
	}
	if listed(boot, "3") != listed(raw, "3") {
		t.Error("the files of the filesystem that is not backed up as files came back different")
	}
	// It gets no folder for the other disk, since it had none.
	root := t.TempDir()
	for i, disk := range []string{boot, raw} {
		w.tool("", "dd", "if="+disk, fmt.Sprintf("of=%s/%d.raw", root, i), "bs=1M", "skip=9", "count=20", "status=none")
	}
	if out, _ := w.run(0, "diff", "--content", root+"/0.raw", root+"/1.raw"); out != "no differences\n" {
		t.Errorf("the root came back different: %s", out)
	}
	w.tool("", "e2fsck", "-f", "-n", root+"/1.raw")
	was, _ := w.run(0, "tar", pool, "--volume", "store/data")
	now, _ := w.run(0, "tar", filepath.Join(w.host, "pool.raw"), "--volume", "store/data")
	if was != now || !strings.Contains(now, "content of data/db") {
		t.Error("the files in the logical volume came back different")
	}
	for _, disk := range []string{raw, filepath.Join(w.host, "pool.raw")} {
		if data, err := os.ReadFile(disk); err != nil || bytes.Contains(data, secret) {
			t.Errorf("%s has what was deleted, %v", disk, err)
		}
	}
	w.sameWithoutRestore(map[string]string{"boot": raw, "pool": filepath.Join(w.host, "pool.raw")})
	left, err := filepath.Glob(filepath.Join(w.host, "*.drydock*"))
	if err != nil || left != nil {
		t.Errorf("something is left behind: %q, %v", left, err)
	}
}

// sameWithoutRestore compares disks that are read from the backup with the same that
// restore vm has made: what is around their filesystems, and their files as the kernel
// sees them.
func (w *vmWorld) sameWithoutRestore(restored map[string]string) {
	w.t.Helper()
	for name, was := range restored {
		out, _ := w.run(0, "cat", "--raw", "web/"+name+"@latest")
		now := filepath.Join(w.t.TempDir(), name+".raw")
		write(w.t, now, out)
		w.sameAround(was, now)
		if name == "boot" && w.tool("", "sfdisk", "-d", was) != strings.ReplaceAll(w.tool("", "sfdisk", "-d", now), now, was) {
			w.t.Errorf("%s has another partition table", name)
		}
		volume := map[string]string{"boot": "2", "pool": "store/data"}[name]
		a, b := w.mountVolume(was, volume), w.mountVolume(now, volume)
		w.tool("", "diff", "-r", "--no-dereference", a, b)
		const all = `cd "$0" && find . -path ./lost+found -prune -o -printf '%P %y %m %U %G %n %s %T@ %l\n' | sort`
		if x, y := w.tool("", "sh", "-c", all, a), w.tool("", "sh", "-c", all, b); x != y || strings.Count(x, "\n") < 2 {
			w.t.Errorf("%s has\n%s\nand restored\n%s", name, y, x)
		}
	}
}

// mountVolume checks the ext4 in a volume of a disk, and mounts it.
func (w *vmWorld) mountVolume(disk, volume string) string {
	w.t.Helper()
	out, _ := w.run(0, "cat", "--raw", disk, "--volume", volume)
	raw := filepath.Join(w.t.TempDir(), "volume.raw")
	write(w.t, raw, out)
	w.tool("", "e2fsck", "-f", "-n", raw)
	dir, _ := testmount.Image(w.t, raw, "ro")
	return dir
}

// bootDisk makes a disk with a boot loader in front of the first partition, an ESP, a
// root with a boot sector, and a home.
func (w *vmWorld) bootDisk() string {
	t, dir := w.t, w.t.TempDir()
	raw := filepath.Join(dir, "boot.raw")
	for _, name := range []string{"root/etc/passwd", "root/boot/vmlinuz", "home/letter"} {
		write(t, filepath.Join(dir, name), "content of "+name)
	}
	w.tool("", "truncate", "-s", "64M", raw)
	w.tool("", "sgdisk", "-n", "1:2048:+8M", "-t", "1:ef00", "-n", "2:18432:+20M", "-n", "3:59392:+16M", "-n", "4:92160:+8M", "-t", "4:8200", raw)
	w.tool("", "mkfs.fat", "-n", "EFI", "--offset", "2048", raw, "8192")
	for _, p := range [][3]string{{"root", "20M", "18432"}, {"home", "16M", "59392"}} {
		img := filepath.Join(dir, p[0]+".img")
		w.tool(dir, "mke2fs", "-q", "-t", "ext4", "-L", p[0], "-d", p[0], img, p[1])
		w.tool("", "sh", "-c", `printf 'the content of a file that was deleted before the backup' >"$0.x" && debugfs -w -R "write $0.x gone" "$0" && debugfs -w -R "rm gone" "$0"`, img)
		w.tool("", "dd", "if="+img, "of="+raw, "bs=512", "seek="+p[2], "conv=notrunc", "status=none")
	}
	for _, at := range []int64{0, 40 * 512, 18432 * 512} { // MBR, gap, boot sector
		f, err := os.OpenFile(raw, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("a boot loader"), at)
		must(t, errors.Join(err, f.Close()))
	}
	return raw
}

// poolDisk makes a physical volume with a logical volume in two pieces.
func (w *vmWorld) poolDisk() string {
	t, dir := w.t, w.t.TempDir()
	raw, img := filepath.Join(dir, "pool.raw"), filepath.Join(dir, "data.img")
	write(t, filepath.Join(dir, "data/db"), "content of data/db")
	w.tool("", "truncate", "-s", "96M", raw)
	loop := testmount.Loop(t, raw, 0, 0)
	lvm := testlvm.New(t, loop)
	lvm.Run("pvcreate", "-y", loop)
	lvm.Run("vgcreate", "store", loop)
	lvm.Create("-n", "data", "-L", "16M", "store")
	lvm.Create("-n", "between", "-L", "8M", "store")
	lvm.Run("lvextend", "-L", "32M", "store/data")
	start := lvm.Number("pvs", "pe_start", loop)
	testmount.Detach(t, loop)
	w.tool(dir, "mke2fs", "-q", "-t", "ext4", "-L", "data", "-d", "data", img, "32M")
	for _, piece := range [][3]int64{{0, 0, 16}, {16, 24, 16}} { // MiB: in the volume, behind start, how many
		w.tool("", "dd", "if="+img, "of="+raw, "bs=1M", fmt.Sprintf("skip=%d", piece[0]), fmt.Sprintf("count=%d", piece[2]),
			"oflag=seek_bytes", fmt.Sprintf("seek=%d", start+piece[1]<<20), "conv=notrunc", "status=none")
	}
	return raw
}

// sameAround compares two disks but for the inside of their filesystems: tables, boot
// loaders, the ESP, LVM's metadata, and which filesystems there are.
func (w *vmWorld) sameAround(was, now string) {
	w.t.Helper()
	a, err := os.ReadFile(was)
	must(w.t, err)
	b, err := os.ReadFile(now)
	must(w.t, err)
	const front = 1 << 20 // MBR, GPT, gap; LVM's metadata
	if len(a) != len(b) || !bytes.Equal(a[:front], b[:front]) || !bytes.Equal(a[len(a)-34*512:], b[len(b)-34*512:]) {
		w.t.Errorf("%s: the front or the end differs", now)
	}
	if strings.Contains(was, "boot") {
		if !bytes.Equal(a[front:18432*512+1024], b[front:18432*512+1024]) {
			w.t.Errorf("%s: the ESP or the boot sector of the root differs", now)
		}
	}
	if x, y := w.volumes(was), w.volumes(now); x != y {
		w.t.Errorf("%s has\n%s\nand had\n%s", now, y, x)
	}
}

// volumes are the volumes on a disk, with UUIDs and labels.
func (w *vmWorld) volumes(path string) string {
	w.t.Helper()
	var info struct {
		Volumes []struct {
			Name, Kind, Content, UUID, Label, PartUUID string
			Offset, Size                               int64
		}
	}
	out, _ := w.run(0, "info", path, "--json")
	must(w.t, json.Unmarshal([]byte(out), &info))
	text := ""
	for _, v := range info.Volumes {
		text += fmt.Sprintf("%+v\n", v)
	}
	if len(info.Volumes) < 3 {
		w.t.Errorf("%s: %s", path, out)
	}
	return text
}

// forge stores a backup of a VM as nobody but a stranger would make one.
func (w *vmWorld) forge(d definition.Definition, part string, tags ...string) {
	w.t.Helper()
	ctx := w.t.Context()
	repo, err := repository.Open(ctx, local.New(w.repo), []byte("secret"), repository.Options{})
	must(w.t, err)
	_, err = backup.Run(ctx, repo, nil, backup.Options{VM: d.VM, Time: time.Now(), Objects: func(ctx context.Context, _ *repository.Snapshot) ([]backup.Object, error) {
		list, err := definition.Save(ctx, repo, nil, &d, nil, []byte(part), time.Now())
		list[0].Tags = append(list[0].Tags, tags...)
		return list, err
	}})
	must(w.t, err)
}

// TestRestoreVMOfAStranger: a repository that somebody forged makes nothing outside of
// where it may, and each lie is an error in one line.
func TestRestoreVMOfAStranger(t *testing.T) {
	w := &vmWorld{world: newWorld(t), host: t.TempDir()}
	allowed := filepath.Join(w.host, "allowed")
	must(t, os.Mkdir(allowed, 0o755))
	w.config = filepath.Join(allowed, "etc/drydock.yaml")
	good := func() definition.Definition {
		return definition.Definition{VM: "web", Driver: "qemu", Disks: []definition.Disk{{Name: "a", Path: allowed + "/a.raw", Format: "raw", Size: 1 << 20, Backup: "off"}}}
	}
	part := "vms: {web: {driver: qemu, command: [qemu-system-x86_64], disks: {a: {path: " + allowed + "/a.raw, format: raw, backup: off}}}}\n"
	lie := func(change func(*definition.Disk)) definition.Definition {
		d := good()
		change(&d.Disks[0])
		return d
	}
	files := []string{"disk:a=/", "fs:a=ext4:00000000000000000000000000000001:1048576:x", "layout:a"}
	for name, c := range map[string]struct {
		d    definition.Definition
		part string
		tags []string
		want string
	}{
		"a path elsewhere":         {lie(func(k *definition.Disk) { k.Path = w.host + "/elsewhere.raw" }), part, nil, "--allow " + w.host},
		"a path upwards":           {lie(func(k *definition.Disk) { k.Path = allowed + "/../elsewhere.raw" }), part, nil, "not valid"},
		"drydock's configuration":  {lie(func(k *definition.Disk) { k.Path = w.config }), part, nil, "drydock's own configuration"},
		"a disk that is not shown": {good(), strings.Replace(part, allowed+"/a.raw", "/etc/shadow", 1), nil, "it has disk a at /etc/shadow"},
		"another VM's part":        {good(), strings.Replace(part, "web:", "other:", 1), nil, "not the part of web alone"},
		"a part that is none":      {good(), "\x1b[31m", nil, "configuration is not valid"},
		"pieces behind the disk":   {lie(func(k *definition.Disk) { k.Pieces = []definition.Piece{{At: 1 << 20, Length: 1}} }), part, nil, "cannot lie there"},
		"pieces that do not fit": {lie(func(k *definition.Disk) {
			k.Backup, k.Partition, k.Pieces = "files", 1, []definition.Piece{{Length: 4096}}
		}), part, files, "does not fit"},
		"pieces in one place": {lie(func(k *definition.Disk) {
			k.Pieces = []definition.Piece{{At: 4096, Length: 4096}, {Offset: 4096, At: 8191, Length: 4096}}
		}), part, nil, "two pieces of its filesystem have the byte at 8191"},
		"a layout that is not there": {lie(func(k *definition.Disk) {
			k.Backup, k.Partition, k.Pieces = "files", 1, []definition.Piece{{Length: 1 << 20}}
		}), part, files, "does not exist"},
		"a filesystem of 15 TiB": {lie(func(k *definition.Disk) { k.Backup, k.Size = "files", 15<<40 }), part,
			[]string{"disk:a=/", "fs:a=zfs:00000000000000000000000000000001:16492674416640:x"}, "cannot be made"},
	} {
		w.forge(c.d, c.part, c.tags...)
		_, errs, code := run(t, append([]string{"-c", w.config}, w.flags("--allow", allowed)...)...)
		if code != 1 || !strings.Contains(errs, c.want) || strings.ContainsRune(errs, 0x1b) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want one line with %q", name, code, errs, c.want)
		}
		left := w.tool(w.host, "find", ".", "-type", "f", "-not", "-path", "./state/*")
		if left != "" {
			t.Errorf("%s: something was written: %s", name, left)
		}
	}
	w.forge(good(), part)
	w.run(0, w.flags("--allow", allowed)...)
}

// TestRestoreVMWithoutConfig: a part of the configuration that this drydock does not
// understand is named, and the VM comes back without it. What it says lies beside the
// configuration.
func TestRestoreVMWithoutConfig(t *testing.T) {
	w := &vmWorld{world: newWorld(t), host: t.TempDir()}
	w.config = filepath.Join(w.host, "etc/drydock.yaml")
	disk, beside := filepath.Join(w.host, "a.raw"), w.config+".web"
	d := definition.Definition{VM: "web", Driver: "qemu", Disks: []definition.Disk{{Name: "a", Path: disk, Format: "raw", Size: 1 << 20, Backup: "off"}}}
	part := "vms: {web: {driver: qemu, command: [qemu-system-x86_64], frobnicate: 7, disks: {a: {path: " + disk + ", format: raw, backup: off}}}}\n"
	w.forge(d, part)
	_, errs, _ := run(t, append([]string{"-c", w.config}, w.flags("--allow", w.host)...)...)
	for _, want := range []string{`vms.web: unknown key "frobnicate"`, "--without-config", beside} {
		if !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q is not in %q", want, errs)
		}
	}
	if _, err := os.Lstat(disk); err == nil {
		t.Error("the disk was restored")
	}
	w.run(2, w.flags("--allow", w.host, "--without-config", "--start")...)
	for range 2 { // the second time all is there
		out, _ := w.run(0, w.flags("--allow", w.host, "--without-config")...)
		if !strings.Contains(out, "by hand") {
			t.Errorf("%s", out)
		}
	}
	if got, err := os.ReadFile(beside); err != nil || string(got) != part {
		t.Errorf("%s has %q, %v", beside, got, err)
	}
	if info, err := os.Stat(disk); err != nil || info.Size() != 1<<20 {
		t.Errorf("the disk: %v, %v", info, err)
	}
	if _, err := os.Lstat(w.config); err == nil {
		t.Error("there is a configuration")
	}
	write(t, beside, "notes of somebody's")
	if _, errs := w.run(1, w.flags("--allow", w.host, "--without-config")...); !strings.Contains(errs, "another file is there already") {
		t.Errorf("%s", errs)
	}
	d.Disks[0].Path = w.config
	w.forge(d, part)
	if _, errs := w.run(1, w.flags("--allow", w.host, "--without-config")...); !strings.Contains(errs, "drydock's own configuration") {
		t.Errorf("%s", errs)
	}
}

// TestDiskOfAStranger: pieces that somebody forged make no disk without a restore either,
// and one of which nobody knows what was around its filesystem is not started from.
func TestDiskOfAStranger(t *testing.T) {
	w := &vmWorld{world: newWorld(t), host: t.TempDir()}
	write(t, w.config, fmt.Sprintf(`state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[2]s, password_file: %[3]s}
vms: {web: {driver: qemu, command: [qemu-system-x86_64], disks: {a: {path: %[1]s/a.raw, format: raw, mount: /, partition: 1}}}}
`, w.host, w.repo, w.key))
	forge := func(pieces []definition.Piece, tags ...string) {
		w.forge(definition.Definition{VM: "web", Driver: "qemu", Disks: []definition.Disk{{
			Name: "a", Path: w.host + "/a.raw", Format: "raw", Size: 1 << 20, Backup: "files", Mount: "/", Partition: 1, Pieces: pieces,
		}}}, "", append(tags, "disk:a=/", "fs:a=ext4:00000000000000000000000000000001:524288:x")...)
	}
	for want, pieces := range map[string][]definition.Piece{
		"does not fit":   {{At: 4096, Length: 4096}},
		"cannot lie":     {{At: 1 << 20, Length: 512 << 10}},
		"two pieces":     {{At: 0, Length: 256 << 10}, {Offset: 256 << 10, At: 255 << 10, Length: 256 << 10}},
		"does not exist": {{At: 4096, Length: 512 << 10}},
	} {
		forge(pieces, "layout:a")
		out, errs := w.run(1, "cat", "--raw", "web/a@latest")
		if out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%d bytes, %q; want one line with %q", len(out), errs, want)
		}
	}
	forge(nil)
	if r := w.boot(1, "web"); len(r.Boots) != 0 || len(r.NotTried) != 1 || !strings.Contains(r.NotTried[0].Error, "disk a: put disk a together: the backup has the files of a partition or volume, and not what is around it") {
		t.Errorf("%+v", r)
	}
}

// TestKilledRestoreVM: whenever a restore is killed, the next one goes on, and all is
// there in the end.
func TestKilledRestoreVM(t *testing.T) {
	w := newVMWorld(t)
	want := w.disks(w.host)
	must(t, os.RemoveAll(w.host))
	args := append([]string{"drydock", "-c", w.config}, w.flags("--allow", w.host)...)
	killed := 0
	for after := 50 * time.Millisecond; ; after += after / 2 {
		c := exec.Command("/proc/self/exe", args...)
		var errs bytes.Buffer
		c.Stderr = &errs
		must(t, c.Start())
		timer := time.AfterFunc(after, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			break
		}
		if c.ProcessState.Exited() {
			t.Fatalf("after %d kills: %v: %s", killed, err, errs.String())
		}
		killed++
	}
	t.Logf("%d were killed", killed)
	if got := w.disks(w.host); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if killed < 3 {
		t.Errorf("only %d were killed", killed)
	}
	if left := w.tool(w.host, "find", ".", "-name", "*.drydock*"); left != "" {
		t.Errorf("something is left behind: %s", left)
	}
}
