package main_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// bootReport is what the tests look at of drydock verify --mode boot --json.
type bootReport struct {
	Good  bool
	Boots []struct {
		VM, Backup, Error string
		Healthy           int64
		Read              int64
		Notes             []string
	}
}

// bootHost is a host with a guest that is backed up, with its data disk as disk says,
// and its root disk whole, in a format. Then the guest is off, and its disks are gone.
func bootHost(t *testing.T, disk, format string) (*host, *testguest.Guest) {
	t.Helper()
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	return bootHostOf(t, g, disk, format, "backup: image")
}

// bootHostOf is a bootHost with a guest whose root disk is raw still, and backed up as
// root says.
func bootHostOf(t *testing.T, g *testguest.Guest, disk, format, root string) (*host, *testguest.Guest) {
	t.Helper()
	h := newHost(t)
	if format != "raw" {
		converted := g.RootPath + ".converted"
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, g.RootPath, converted)
		must(t, os.Rename(converted, g.RootPath))
		for i, arg := range g.Command {
			g.Command[i] = strings.Replace(arg, "id=root,format=raw", "id=root,format="+format, 1)
		}
	}
	h.vm(g)
	text := strings.Replace(h.machine.String(), "format: raw, mount: /, image: web, backup: off}", "format: "+format+", "+root+"}", 1)
	text = strings.Replace(text, "mount: /var}", disk+"}", 1)
	h.machine.Reset()
	h.machine.WriteString(text + "verify: {mode: off, boot: {every: 168h}}\n")
	fmt.Fprintf(&h.machine, "writer: {kernel: %s/vmlinuz, modules: %s, accelerator: tcg}\n", testguest.KernelFolder(t), testguest.ModulesFolder(t))
	h.write()
	h.run(0, "start")
	must(t, g.Put(t.Context(), "/var/letter", []byte("dear reader")))
	must(t, g.Fill(t.Context(), "/var/many", 7, 100, 20000))
	must(t, g.Sync(t.Context()))
	h.run(0, "run")
	h.run(0, "stop")
	must(t, os.Remove(g.RootPath))
	must(t, os.Remove(g.DataPath))
	return h, g
}

// noTrial checks that nothing is left of machines that were started from backups.
func noTrial(t *testing.T, h *host) {
	t.Helper()
	left, err := filepath.Glob(h.path("run", "boot", "*"))
	must(t, err)
	written, err := filepath.Glob(h.path("state", "work", "boot", "*"))
	must(t, err)
	for _, path := range append(left, written...) {
		if !strings.HasSuffix(path, ".lock") {
			t.Errorf("left behind: %s", path)
		}
	}
}

// TestBoot: a guest whose disks are gone boots from its backup, and one whose backup
// does not boot is told of.
func TestBoot(t *testing.T) {
	t.Parallel() // most of it is waiting
	h, g := bootHost(t, "mount: /var", "raw")
	killedTrial(t, h)
	var r bootReport
	h.json(&r, 0, "verify", "--mode", "boot")
	if !r.Good || len(r.Boots) != 1 || r.Boots[0].Healthy <= 0 || r.Boots[0].Read == 0 || r.Boots[0].Error != "" || len(r.Boots[0].Notes) > 0 {
		t.Fatalf("%+v", r)
	}
	noTrial(t, h)
	for _, path := range []string{g.RootPath, g.DataPath} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	if out := h.run(0, "status"); !strings.Contains(out.stdout, "just now, booted in ") {
		t.Errorf("%s", out.stdout)
	}
	good := r.Boots[0].Backup
	bridgedTrial(t, h, g)

	// A week later the guest has lost its init.
	h.run(0, "restore", "web/root@latest", "--to", g.RootPath)
	h.run(0, "restore", "web/data@latest", "--to-image", g.DataPath)
	tool(t, "debugfs", "-w", "-R", "rm /init", g.RootPath)
	h.env = []string{"DRYDOCK_CLOCK=170h"}
	var round struct {
		VMs []struct{ Boot struct{ Error string } }
	}
	h.json(&round, 1, "run")
	if len(round.VMs) != 1 || !strings.Contains(round.VMs[0].Boot.Error, "ended before it was healthy") || !strings.Contains(round.VMs[0].Boot.Error, "Kernel panic") {
		t.Errorf("%+v", round)
	}
	noTrial(t, h)
	for verb, want := range map[string]string{"status": "just now, DID NOT BOOT", "history": "NO"} {
		if out := h.run(0, verb, "web"); !strings.Contains(out.stdout, want) {
			t.Errorf("%s: %s", verb, out.stdout)
		}
	}

	// A disk that cannot be read is not taken for a guest that does not boot.
	spoilPacks(t, h)
	r = bootReport{}
	h.json(&r, 1, "verify", "--mode", "boot", "web@"+good)
	if len(r.Boots) != 1 || !strings.Contains(r.Boots[0].Error, "damaged") {
		t.Errorf("%+v", r)
	}
	noTrial(t, h)
}

// spoilPacks changes all of each pack that has files, but for its header.
func spoilPacks(t *testing.T, h *host) {
	t.Helper()
	packs, err := filepath.Glob(h.path("repository", "data", "*", "*"))
	must(t, err)
	spoiled := 0
	for _, path := range packs {
		info, err := os.Stat(path)
		must(t, err)
		if info.Size() < 200<<10 {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt(make([]byte, info.Size()-100<<10), 0)
		must(t, err)
		must(t, f.Close())
		t.Logf("spoiled %s, of %d bytes", path, info.Size())
		spoiled++
	}
	if spoiled == 0 {
		t.Fatal("no pack was spoiled")
	}
}

// killedTrial kills a drydock that has started a guest from its backup. The QEMU that is
// left is ended by the next one that looks.
func killedTrial(t *testing.T, h *host) {
	t.Helper()
	said := func() int {
		text, _ := os.ReadFile(h.path("state", "log", "boot", "web.console.log"))
		return len(text)
	}
	before := said() // by the guest that the round has started
	c := h.command(t.Context(), "verify", "--mode", "boot")
	must(t, c.Start())
	// Not when QEMU has begun: it ends if it cannot open its disks any more.
	within(t, "the guest says something", func() bool { return said() > before })
	text, err := os.ReadFile(h.path("run", "boot", "web", "pid"))
	must(t, err)
	pid := strings.TrimSpace(string(text))
	// On a disk: what lies in the other folder is in memory.
	overlays, err := filepath.Glob(h.path("state", "work", "boot", "web", "*.qcow2"))
	if err != nil || len(overlays) != 2 {
		t.Errorf("overlays %q, %v", overlays, err)
	}
	must(t, c.Process.Kill())
	_ = c.Wait() // killed
	// A process that has ended has no command line, though nobody may have asked how.
	if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); pid == "" || len(line) == 0 {
		t.Fatalf("QEMU %q does not run: %v", pid, err)
	}
	h.run(0, "recover")
	if line, _ := os.ReadFile("/proc/" + pid + "/cmdline"); len(line) > 0 {
		t.Errorf("QEMU %s still runs", pid)
	}
	noTrial(t, h)
}

// TestStartFromBackup: a guest whose disks are gone runs from its backup, through the
// death of the drydock that serves it, until its disks stand on their own.
func TestStartFromBackup(t *testing.T) {
	t.Parallel() // most of it is waiting
	for name, disk := range map[string]string{"files": "mount: /var", "image": "backup: image"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			h, g := bootHost(t, disk, "qcow2")
			old := []byte("what was there before")
			must(t, os.WriteFile(g.DataPath, old, 0o640))
			c := h.command(t.Context(), "start-from-backup", "web")
			must(t, c.Start())
			within(t, "the guest runs", func() bool { return h.state("web") == "running" })
			must(t, c.Process.Kill())
			_ = c.Wait() // killed
			if out := h.run(0, "status"); !strings.Contains(out.stdout, "running, being filled in from ") {
				t.Errorf("%s", out.stdout)
			}
			if out := h.run(1, "restore", "web/root@latest", "--in-place"); !strings.Contains(out.stderr, "being filled in") {
				t.Errorf("%s", out.stderr)
			}
			if out := h.run(1, "backups", "rm", "--force", "web@latest"); !strings.Contains(out.stderr, "being filled in") {
				t.Errorf("%s", out.stderr)
			}
			if out := h.run(3, "run"); !strings.Contains(out.stdout, "drydock start-from-backup web") {
				t.Errorf("%s", out.stdout)
			}

			if name == "files" {
				skeletonLost(t, h, g)
			}
			var done struct {
				Disks []struct {
					Kept string
					Put  bool
				}
			}
			h.json(&done, 0, "start-from-backup", "web")
			if len(done.Disks) != 2 || !done.Disks[0].Put {
				t.Errorf("%+v", done)
			}
			checkFilled(t, h, g, "")
			kept, err := filepath.Glob(g.DataPath + ".before-*")
			must(t, err)
			if len(kept) != 1 {
				t.Fatalf("kept: %v", kept)
			}
			if data, err := os.ReadFile(kept[0]); err != nil || string(data) != string(old) {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

// skeletonLost deletes what says where the files lie on the disk that a guest is being given:
// none is made anew, and with the old one it goes on.
func skeletonLost(t *testing.T, h *host, g *testguest.Guest) {
	t.Helper()
	skeleton := h.path("state", "from-backup", "web", "data.skeleton")
	must(t, os.Rename(skeleton, skeleton+".away"))
	r := h.run(1, "start-from-backup", "web")
	for _, want := range []string{"disk data: " + skeleton + " is gone", "drydock stop --kill web, mv " + g.DataPath + ".before-"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in %s", want, r.stderr)
		}
	}
	if _, err := os.Lstat(skeleton); err == nil {
		t.Error("another one was made")
	}
	if state := h.state("web"); state != "running" {
		t.Errorf("the guest is %s", state)
	}
	must(t, os.Rename(skeleton+".away", skeleton))
}

// TestBootFromPartition: a guest with its root in a partition, of which the backup has
// the files and what is around them, boots from it and runs from it.
func TestBootFromPartition(t *testing.T) {
	t.Parallel() // most of it is waiting
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
	bare := g.RootPath + ".bare"
	must(t, os.Rename(g.RootPath, bare))
	info, err := os.Stat(bare)
	must(t, err)
	tool(t, "truncate", "-s", fmt.Sprint(info.Size()+24<<20), g.RootPath)
	tool(t, "sgdisk", "-n", "1:2048:+8M", "-t", "1:ef02", "-n", fmt.Sprintf("2:18432:+%dK", info.Size()>>10), "-c", "2:root", g.RootPath)
	tool(t, "dd", "if="+bare, "of="+g.RootPath, "bs=1M", "seek=9", "conv=notrunc,sparse", "status=none")
	table := tool(t, "sgdisk", "-p", "-i", "2", g.RootPath)
	for i, arg := range g.Command {
		g.Command[i] = strings.Replace(arg, "root=/dev/nvme0n1 ", "root=/dev/nvme0n1p2 ", 1)
	}
	h, g := bootHostOf(t, g, "mount: /var", "qcow2", "mount: /, partition: 2")

	var r bootReport
	h.json(&r, 0, "verify", "--mode", "boot")
	if !r.Good || len(r.Boots) != 1 || r.Boots[0].Healthy <= 0 || len(r.Boots[0].Notes) > 0 {
		t.Fatalf("%+v", r)
	}
	noTrial(t, h)
	h.run(0, "start-from-backup", "web")
	healthy(t, g)
	h.run(0, "stop")
	filled, served := h.path("filled.raw"), h.path("served.raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", g.RootPath, filled)
	uri, stop := background(t, "--config", h.config, "nbd", "web/root@latest", "--socket", h.path("nbd.sock"))
	tool(t, "nbdcopy", uri, served)
	stop()
	// The place where the other disk is mounted has the attributes of that.
	place := regexp.MustCompile(`(?m)^\./var d .*\n`)
	want := place.ReplaceAllString(kernelSees(t, bare, "raw", 0), "")
	for _, raw := range []string{filled, served} {
		if got := tool(t, "sgdisk", "-p", "-i", "2", raw); strings.ReplaceAll(got, raw, g.RootPath) != table {
			t.Errorf("the table is\n%s\nand was\n%s", got, table)
		}
		if got := place.ReplaceAllString(kernelSees(t, raw, "raw", 9<<20), ""); got != want || !strings.Contains(got, "/init") {
			t.Errorf("the root has\n%s\nand had\n%s", got, want)
		}
		part := h.path("part.raw")
		tool(t, "dd", "if="+raw, "of="+part, "bs=1M", "skip=9", "count="+fmt.Sprint(info.Size()>>20), "status=none")
		tool(t, "e2fsck", "-f", "-n", part)
	}
}

// TestBootXFSAndBtrfs: a guest whose data is on an XFS or a btrfs, of which the backup has
// the files, boots from it in a round, and runs from it, through the death of the drydock
// that serves it, until its disks stand on their own.
func TestBootXFSAndBtrfs(t *testing.T) {
	t.Parallel() // most of it is waiting
	for fstype, check := range map[string]string{"xfs": `xfs_repair -n "$0"`, "btrfs": `btrfs check "$0"`} {
		t.Run(fstype, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataFilesystem: fstype})
			h, g := bootHostOf(t, g, "mount: /var", "qcow2", "backup: image")
			if out := h.run(0, "status"); !strings.Contains(out.stdout, ", booted in ") {
				t.Errorf("%s", out.stdout)
			}
			noTrial(t, h)
			c := h.command(t.Context(), "start-from-backup", "web")
			must(t, c.Start())
			within(t, "the guest runs", func() bool { return h.state("web") == "running" })
			must(t, c.Process.Kill())
			_ = c.Wait() // killed
			out := h.run(0, "start-from-backup", "web")
			if warned := strings.Contains(out.stderr, "btrfs will have no checksums"); warned != (fstype == "btrfs") {
				t.Errorf("%s", out.stderr)
			}
			checkFilled(t, h, g, check)
			h.run(0, "stop")
			differs := h.run(0, "diff", "--content", "web/data@latest", g.DataPath).stdout
			if !strings.Contains(differs, "\nadded:   1 files of 23 B, 0 folders, 0 others\nremoved: 0 files of 0 B, 0 folders, 0 others\nchanged: 1 files ") ||
				!strings.Contains(differs, "+ /after ") || !strings.Contains(differs, "M /boots ") {
				t.Errorf("%s", differs)
			}
		})
	}
}

// TestBootLarger: a guest that compresses boots from its backup on a disk that is larger
// than its own, which the result says, and runs from it on one if that is asked for.
func TestBootLarger(t *testing.T) {
	t.Parallel() // most of it is waiting
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataFilesystem: "btrfs"})
	raw := g.DataPath + ".raw"
	tool(t, "qemu-img", "convert", "-O", "raw", g.DataPath, raw)
	dir, unmount := testmount.Image(t, raw, "compress-force=zstd")
	must(t, os.WriteFile(filepath.Join(dir, "content"), bytes.Repeat([]byte("what repeats "), 26<<20), 0o644))
	unmount()
	tool(t, "qemu-img", "convert", "-O", "qcow2", raw, g.DataPath)
	must(t, os.Remove(raw))
	h, g := bootHostOf(t, g, "mount: /var", "qcow2", "backup: image")

	var r bootReport
	h.json(&r, 0, "verify", "--mode", "boot")
	if !r.Good || len(r.Boots) != 1 || len(r.Boots[0].Notes) != 1 || !strings.Contains(r.Boots[0].Notes[0], "a restore takes --size data=640M") {
		t.Fatalf("%+v", r)
	}
	noTrial(t, h)
	if r := h.run(1, "start-from-backup", "web"); !strings.Contains(r.stderr, "start-from-backup --size") {
		t.Errorf("%s", r.stderr)
	}
	for size, want := range map[string]int{"data": 2, "none=1G": 2, "data=100M": 1, "root=1G": 1} {
		h.run(want, "start-from-backup", "web", "--size", size)
	}
	h.run(0, "start-from-backup", "web", "--size", "data=640M")
	checkFilled(t, h, g, `btrfs check "$0"`)
	if info := tool(t, "qemu-img", "info", "-U", g.DataPath); !strings.Contains(info, "640 MiB") {
		t.Errorf("%s", info)
	}
}

// TestBootSmallXFS: a guest with an XFS of a size of which none is made any more boots from
// its backup, and runs from it when a larger one is asked for.
func TestBootSmallXFS(t *testing.T) {
	t.Parallel() // most of it is waiting
	g := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1", DataFilesystem: "xfs"})
	raw := g.DataPath + ".raw"
	tool(t, "truncate", "-s", "20M", raw)
	tool(t, "mkfs.xfs", "--unsupported", "-q", "-L", "data", raw)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, g.DataPath)
	must(t, os.Remove(raw))
	h, g := bootHostOf(t, g, "mount: /var", "qcow2", "backup: image")

	if out := h.run(0, "status"); !strings.Contains(out.stdout, ", booted in ") {
		t.Errorf("%s", out.stdout)
	}
	if r := h.run(1, "start-from-backup", "web"); !strings.Contains(r.stderr, "disk data: ") || !strings.Contains(r.stderr, "xfs has at least 314572800 bytes") || !strings.Contains(r.stderr, "start-from-backup --size") {
		t.Errorf("%s", r.stderr)
	}
	h.run(0, "start-from-backup", "web", "--size", "data=300M")
	checkFilled(t, h, g, `xfs_repair -n "$0"`)
}

// checkFilled checks that a guest has its data, from disks that need nothing else.
// check is the command that checks the filesystem of the data disk.
func checkFilled(t *testing.T, h *host, g *testguest.Guest, check string) {
	t.Helper()
	healthy(t, g)
	must(t, g.Put(t.Context(), "/var/after", []byte("written on the new disk")))
	h.run(0, "stop")
	const ext4 = `e2fsck -f -p "$0"; test $? -le 1`
	for path, check := range map[string]string{g.RootPath: ext4, g.DataPath: cmp.Or(check, ext4)} {
		tool(t, "qemu-img", "check", path)
		if info := tool(t, "qemu-img", "info", path); strings.Contains(info, "backing") {
			t.Errorf("%s", info)
		}
		raw := filepath.Join(t.TempDir(), "check.raw")
		tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
		tool(t, "sh", "-c", check, raw)
	}
	h.run(0, "start")
	for path, want := range map[string]string{"/var/letter": "dear reader", "/var/after": "written on the new disk"} {
		if got, err := g.Get(t.Context(), path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if out := h.run(0, "status"); strings.Contains(out.stdout, "filled") {
		t.Errorf("%s", out.stdout)
	}
	if left, err := filepath.Glob(h.path("state", "from-backup", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// bridgedTrial boots a guest whose network card is on a bridge, and whose probe asks an
// address there: neither is there for the guest that is started from the backup. Then it
// boots one whose command is that of a unit.
func bridgedTrial(t *testing.T, h *host, g *testguest.Guest) {
	t.Helper()
	var command []string
	for _, arg := range g.Command {
		if strings.HasPrefix(arg, "user,id=net,") {
			arg = "bridge,id=net,br=none"
		}
		command = append(command, arg)
	}
	text, err := json.Marshal(command)
	must(t, err)
	was := h.machine.String()
	h.machine.Reset()
	h.machine.WriteString(strings.Replace(strings.Replace(was, g.URL(), "http://10.0.2.15", 1),
		"    shutdown_timeout", "    boot: {command: "+string(text)+"}\n    shutdown_timeout", 1))
	h.write()
	if out := h.run(0, "verify", "--mode", "boot", "web"); !strings.Contains(out.stdout, "healthy in ") {
		t.Errorf("%s", out.stdout)
	}
	noTrial(t, h)

	// A unit's command is in the backup.
	unit := regexp.MustCompile(`driver: qemu\n    command: .*\n`).ReplaceAllString(was, "driver: systemd\n    unit: web.service\n")
	if unit == was {
		t.Fatal("there is no command to leave out")
	}
	h.machine.Reset()
	h.machine.WriteString(unit)
	h.write()
	if out := h.run(0, "verify", "--mode", "boot", "web"); !strings.Contains(out.stdout, "healthy in ") {
		t.Errorf("%s", out.stdout)
	}
	h.machine.Reset()
	h.machine.WriteString(was)
	h.write()
}
