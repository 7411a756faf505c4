package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

const storeConfig = `state: %[1]s/state
runtime: %[1]s/run
repository: {path: %[1]s/repo, password_file: %[1]s/key}
vms:
  db:
    driver: qemu
    command: [qemu-system-x86_64]
    disks:
      store: {path: %[1]s/store.raw, format: raw, backup: image}
`

// newStore is a world whose VM has one disk, which is backed up as an image. fill
// writes to a mounted filesystem of the given type on it, or on its second partition.
func newStore(t *testing.T, fstype string, partitioned bool, fill func(dir string)) (w *world, image string) {
	t.Helper()
	w = newWorld(t)
	base := filepath.Dir(w.config)
	write(t, w.config, fmt.Sprintf(storeConfig, base))
	image = filepath.Join(base, "store.raw")
	w.tool("", "truncate", "-s", "640M", image) // xfs makes a log of 64 MiB on it
	start, size := int64(0), int64(640<<20)
	if partitioned {
		w.tool("", "sgdisk", "-Z", "-n", "1:2048:+1M", "-n", "2:6144:+600M", image)
		start, size = 6144*512, 600<<20
	}
	device := testmount.Loop(t, image, start, size)
	defer testmount.Detach(t, device)
	w.tool("", "mkfs."+fstype, "-q", device)
	dir := t.TempDir()
	defer testmount.At(t, device, dir)()
	fill(dir)
	return w, image
}

// TestPathsInImages: what a disk had that is backed up as an image comes out of it,
// file by file, as the kernel put it there.
func TestPathsInImages(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			var want []string
			w, image := newStore(t, fstype, fstype == "ext4", func(dir string) {
				treetest.MakeIn(t, dir, treetest.Without{LargeMinors: fstype == "xfs"})
				want = treetest.List(t, dir)
			})
			w.backupDisks()
			w.tool("", "shred", "-n", "1", "-s", "64M", image) // what is read from now on is the backup
			all := filepath.Join(t.TempDir(), "all")
			w.run(0, "restore", "db/store@latest:/", "--to", all, "--setuid", "--devices")
			treetest.Compare(t, treetest.List(t, all), want)

			unpacked := t.TempDir()
			out, _ := w.run(0, "tar", "db/store@latest")
			tar := exec.Command("tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "-C", unpacked)
			tar.Stdin = strings.NewReader(out)
			if text, err := tar.CombinedOutput(); err != nil && !strings.Contains(string(text), "socket ignored") {
				t.Errorf("tar: %v\n%s", err, text)
			}
			w.tool("", "cmp", filepath.Join(unpacked, "etc/deep/er/large"), filepath.Join(all, "etc/deep/er/large"))
			w.tool("", "cmp", filepath.Join(unpacked, "sparse"), filepath.Join(all, "sparse"))
			w.looks(t, all)
		})
	}
}

// looks tries the verbs that look into disks on an image in a backup. all is what was
// restored of it.
func (w *world) looks(t *testing.T, all string) {
	t.Helper()
	if out, _ := w.run(0, "ls", "db/store@latest:/var/lib/app"); !strings.HasSuffix(out, " letter.txt\n") {
		t.Errorf("ls: %s", out)
	}
	if out, _ := w.run(0, "cat", "db/store@latest:/var/lib/app/letter.txt"); out != "Dear all\n" {
		t.Errorf("cat: %s", out)
	}
	large, err := os.ReadFile(filepath.Join(all, "etc/deep/er/large"))
	if out, _ := w.run(0, "cat", "db/store@latest:/etc/deep/er/large"); err != nil || !bytes.Equal([]byte(out), large) {
		t.Errorf("cat of %d bytes gives %d", len(large), len(out))
	}
	if out, _ := w.run(0, "stat", "db/store@latest:/etc/hostname"); !strings.Contains(out, "xattr: user.comment") || !strings.Contains(out, "links: 3\n") || !strings.Contains(out, "accessed: ") {
		t.Errorf("stat: %s", out)
	}
	if out, _ := w.run(0, "tree", "db/store@latest:/var"); !strings.Contains(out, "letter.txt") {
		t.Errorf("tree: %s", out)
	}
	if out, _ := w.run(0, "diff", "db/store@latest", "db/store@latest"); out != "no differences\n" {
		t.Errorf("diff: %s", out)
	}
	out, _ := w.run(0, "find", "letter*", "db/store@latest", "--json")
	var found []foundFile
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 1 || found[0].VM != "db/store" || found[0].Path != "/var/lib/app/letter.txt" ||
		len(found[0].Versions) != 1 || found[0].Versions[0].Size != 9 || len(found[0].Versions[0].Backups) != 1 {
		t.Errorf("find: %+v, %v", found, err)
	}
	out, _ = w.run(0, "info", "db/store@latest", "--json")
	var info infoReport
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Disks) != 1 || info.Disks[0].Size != 640<<20 || len(info.Volumes) == 0 {
		t.Errorf("info: %+v, %v", info, err)
	}
	at := t.TempDir()
	w.mounted(t, "db/store@latest:/etc", at, func() {
		w.tool("", "cmp", filepath.Join(at, "deep/er/large"), filepath.Join(all, "etc/deep/er/large"))
	})
}

// TestFreeSpaceKept: an image whose filesystem does not know what is free has all of it,
// and the report says why, in one line.
func TestFreeSpaceKept(t *testing.T) {
	w, image := newStore(t, "ext4", true, func(string) {})
	rep := w.backupDisks()
	if len(rep.Images) != 1 || rep.Images[0].BytesFree == 0 || len(rep.Images[0].Kept) > 0 || strings.Contains(rep.String(), "no free space") {
		t.Errorf("of a filesystem without a fault: %s", rep)
	}
	w.tool("", "debugfs", "-w", "-R", "set_super_value state 3", fmt.Sprintf("%s?offset=%d", image, 6144*512))
	rep = w.backupDisks()
	const why = `; no free space is skipped: layout: volume "store-part2": ext4: superblock at offset 0x400: damaged: the block bitmaps cannot be relied on: errors were recorded by the guest's kernel`
	if rep.Images[0].BytesFree > 0 || strings.Count(rep.String(), "superblock") != 1 || !strings.Contains(rep.String(), why) || len(rep.Warnings) > 0 {
		t.Errorf("of one with errors: %s, %v", rep, rep.Warnings)
	}
}

// TestVolumesInImages: one of several is picked as on any disk, and what makes no
// sense of a backup is refused with the way out.
func TestVolumesInImages(t *testing.T) {
	w, _ := newStore(t, "ext4", true, func(dir string) { write(t, filepath.Join(dir, "letter"), "from the second partition") })
	w.backupDisks()
	for _, volume := range []string{"2", "store-part2"} {
		if out, _ := w.run(0, "cat", "db/store@latest:/letter", "--volume", volume); out != "from the second partition" {
			t.Errorf("volume %s: %s", volume, out)
		}
	}
	if out, _ := w.run(0, "cat", "--raw", "db/store@latest", "--volume", "2"); len(out) != 600<<20 || out[1024+56:1024+58] != "\x53\xef" {
		t.Errorf("%d bytes of the volume", len(out))
	}
	dir := filepath.Join(t.TempDir(), "files")
	w.run(0, "restore", "db/store@latest", "--volume", "2", "--to", dir)
	if text, err := os.ReadFile(filepath.Join(dir, "letter")); err != nil || string(text) != "from the second partition" {
		t.Errorf("%q, %v", text, err)
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{2, "store-part2: ext4", []string{"ls", "db/store@latest", "--volume", "7"}},
		{1, "store-part1\": does not exist", []string{"ls", "db/store@latest", "--volume", "1"}},
		{2, "name their path: db/store@latest:/", []string{"restore", "db/store@latest", "--to", dir}},
		{2, "leave --volume out", []string{"ls", "db@latest", "--volume", "2"}},
		{2, "--with other", []string{"ls", "db/store@latest", "--with", "other"}},
		{2, "VM/DISK@BACKUP", []string{"find", "x", "db", "--volume", "2"}},
		{1, "does not exist", []string{"ls", "db/store@latest:/nowhere"}},
		{1, "has no disk", []string{"ls", "db/other@latest"}},
	} {
		if _, errs := w.run(c.code, c.args...); !strings.Contains(errs, c.want) {
			t.Errorf("%q: there is no %q in %s", c.args, c.want, errs)
		}
	}
}

// TestDamagedImage: a segment that is damaged costs the files that lie in it. They
// are named, with the pack.
func TestDamagedImage(t *testing.T) {
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	w, image := newStore(t, "ext4", false, func(dir string) {
		write(t, filepath.Join(dir, "good"), "this is fine")
		write(t, filepath.Join(dir, "bad"), string(noise))
	})
	w.backupDisks()
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, noise[1<<20:1<<20+4096])
	pack := w.damageSegment(content, at&^(64<<10-1))
	if out, _ := w.run(0, "cat", "db/store@latest:/good"); out != "this is fine" {
		t.Errorf("good: %s", out)
	}
	_, errs := w.run(1, "cat", "db/store@latest:/bad")
	for _, want := range []string{"store.raw", pack} {
		if !strings.Contains(errs, want) {
			t.Errorf("there is no %q in %s", want, errs)
		}
	}
	_, errs = w.run(3, "tar", "db/store@latest")
	if !strings.Contains(errs, "bad") || strings.Contains(errs, "good") || !strings.Contains(errs, pack) {
		t.Errorf("tar: %s", errs)
	}
}

// damageSegment flips a bit of a segment of the image, and returns the beginning of the
// ID of the pack that it lies in.
func (w *world) damageSegment(image []byte, at int) string {
	t := w.t
	t.Helper()
	want := repository.Hash(image[at : at+64<<10]).String()
	for id := range strings.Lines(w.restic("list", "index", "-q")) {
		var index struct {
			Packs []struct {
				ID    string
				Blobs []struct {
					ID     string
					Offset int64
				}
			}
		}
		if err := json.Unmarshal([]byte(w.restic("cat", "index", strings.TrimSpace(id), "-q")), &index); err != nil {
			t.Fatal(err)
		}
		for _, p := range index.Packs {
			for _, b := range p.Blobs {
				if b.ID != want {
					continue
				}
				path := filepath.Join(w.repo, "data", p.ID[:2], p.ID)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				data[b.Offset+100] ^= 1
				if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
					t.Fatal(err)
				}
				return p.ID[:8]
			}
		}
	}
	t.Fatalf("no pack has segment %s", want)
	return ""
}
