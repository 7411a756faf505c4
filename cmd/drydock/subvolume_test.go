package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// fstab is that of a guest that has its system in one subvolume, and its homes in another.
const fstab = `LABEL=system / btrfs subvol=@,noatime 0 0
LABEL=system /home btrfs subvol=@home 0 0
LABEL=system /srv btrfs subvol=/@srv/deep 0 0
`

// makeSystem makes a btrfs as installers do it, on a raw disk: with subvolumes in
// subvolumes, one that is read-only, snapshots of which two are snapper's, and another
// default than the top level.
func makeSystem(t *testing.T, path string) {
	t.Helper()
	tool(t, "truncate", "-s", "300M", path)
	tool(t, "mkfs.btrfs", "-q", "-L", "system", path)
	dir, unmount := testmount.Image(t, path, "")
	defer unmount()
	at := func(name string) string { return filepath.Join(dir, name) }
	create := func(name string) { tool(t, "btrfs", "-q", "subvolume", "create", at(name)) }
	create("gone")
	create("early")
	create("@home") // so that inode numbers in it are those in @, too
	create("@")
	create("@srv")
	create("@srv/deep")
	must(t, os.MkdirAll(at("@/var/lib"), 0o755))
	create("@/var/lib/machines")
	create("@/var/lib/machines/one")
	create("@kept")
	for _, s := range []string{"@home", "@"} {
		must(t, os.WriteFile(at(s+"/first"), []byte("first of "+s), 0o640))
		must(t, os.Link(at(s+"/first"), at(s+"/second")))
		must(t, os.Link(at(s+"/first"), at(s+"/third")))
	}
	for _, d := range []string{"@/etc", "@/home", "@/srv", "@/.snapshots", "@/.snapshots/1", "@/.snapshots/2"} {
		must(t, os.Mkdir(at(d), 0o755))
	}
	must(t, os.WriteFile(at("@/etc/fstab"), []byte(fstab), 0o644))
	must(t, os.WriteFile(at("@/var/lib/machines/one/init"), []byte("#!"), 0o755|os.ModeSetuid))
	must(t, os.WriteFile(at("@kept/locked"), []byte("read-only"), 0o600))
	must(t, unix.Setxattr(at("@home"), "user.comment", []byte("homes"), 0))
	must(t, os.Chown(at("@home"), 1000, 1001))
	must(t, os.Chmod(at("@home"), 0o750|os.ModeSticky))
	must(t, os.Chtimes(at("@home"), time.Unix(1e9, 1), time.Unix(1e9, 123456789)))
	treetest.ChangeFlags(t, at("@home/first"), treetest.NoDump, 0)
	tool(t, "btrfs", "-q", "subvolume", "snapshot", at("@"), at("@writable"))
	tool(t, "btrfs", "-q", "subvolume", "snapshot", "-r", at("@"), at("@/.snapshots/1/snapshot"))
	tool(t, "btrfs", "-q", "subvolume", "snapshot", "-r", at("@"), at("@/.snapshots/2/snapshot"))
	tool(t, "btrfs", "-q", "property", "set", at("@kept"), "ro", "true")
	tool(t, "btrfs", "-q", "subvolume", "delete", at("gone"))
	must(t, os.Rename(at("early"), at("@/late"))) // its number is below that of what it lies in
	tool(t, "btrfs", "-q", "subvolume", "set-default", at("@"))
}

var snapshotOfSnapper = regexp.MustCompile(`(?m)^@/\.snapshots/[12]/snapshot is .*\n`)

// stub is what stands in a snapshot for a subvolume in its original. Its time is that of
// the mount.
var stub = regexp.MustCompile(`^"(@writable.?|.*/snapshot)/(var/lib/machines|\.snapshots/[12]/snapshot|late)" `)

var subvolumePath = regexp.MustCompile(`(?m)^ID (\d+) .* path (.*)$`)

// subvolumes is what the kernel says of the subvolumes of a btrfs on a raw disk, and
// tree all that is in them.
func subvolumes(t *testing.T, path string) (list string, tree []string) {
	t.Helper()
	dir, unmount := testmount.Image(t, path, "ro,subvolid=5")
	defer unmount()
	var lines []string
	for _, m := range subvolumePath.FindAllStringSubmatch(tool(t, "btrfs", "subvolume", "list", dir), -1) {
		lines = append(lines, m[2]+" is "+m[1]+" "+tool(t, "btrfs", "property", "get", filepath.Join(dir, m[2]), "ro"))
	}
	slices.Sort(lines)
	for _, m := range subvolumePath.FindAllStringSubmatch(tool(t, "btrfs", "subvolume", "get-default", dir), -1) {
		lines = append(lines, "default "+m[2])
	}
	tree = slices.DeleteFunc(treetest.List(t, dir), stub.MatchString)
	return strings.Join(lines, ""), slices.Concat(tree, treetest.Flags(t, dir), treetest.Holes(t, dir))
}

// systemHost is a host with a VM that has a disk, which some setting of it is about, and
// another that is mounted in it.
func systemHost(t *testing.T, setting string) *host {
	t.Helper()
	h := newWriterHost(t, `
      system: {path: DIR/system.raw, format: raw, mount: /, `+setting+`}
      other: {path: DIR/other.raw, format: raw, mount: /srv/data}
`)
	tool(t, "mke2fs", "-q", "-t", "ext4", h.path("other.raw"), "8M")
	return h
}

// TestSubvolumesComeBack: a btrfs whose files were backed up has the subvolumes that it
// had, and the guest's fstab finds them, after a restore to an image, after one of
// the whole VM, and on the disk that a backup is without a restore.
func TestSubvolumesComeBack(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := systemHost(t, "backup: files")
	was := h.path("system.raw")
	makeSystem(t, was)
	wantList, wantTree := subvolumes(t, was)
	r := rounds(t, h, 0)
	if r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	if left := r.VMs[0].Backup.LeftOut; len(left) != 1 || left[0] != (round.LeftOut{Disk: "system", Rule: "btrfs_snapshots", Dirs: 2}) {
		t.Errorf("it leaves out %+v", left)
	}
	wantList = snapshotOfSnapper.ReplaceAllString(wantList, "")
	wantTree = slices.DeleteFunc(wantTree, func(line string) bool { return strings.Contains(line, "/snapshot") })
	h.judged()
	if d := h.run(0, "diff", "web@latest", "web").stdout; d != "no differences\n" {
		t.Errorf("the backup and the disk: %s", d)
	}
	if s := h.run(0, "stat", "web@latest:/@kept").stdout; !strings.Contains(s, "flag: subvolume\n") || !strings.Contains(s, "flag: subvolume-read-only\n") || strings.Contains(s, "accessed: ") {
		t.Errorf("@kept is\n%s", s)
	}

	to := t.TempDir()
	image := filepath.Join(to, "new.raw")
	if r := h.run(0, "restore", "web/system@latest", "--to-image", image); r.stderr != "" {
		t.Errorf("%s", r.stderr)
	}
	h.run(0, "restore", "vm", "web", "--to", filepath.Join(to, "vm"))
	unrestored := filepath.Join(to, "unrestored.raw")
	must(t, os.WriteFile(unrestored, []byte(h.run(0, "cat", "--raw", "web/system@latest").stdout), 0o600))
	for _, now := range []string{image, filepath.Join(to, "vm", was), unrestored} {
		tool(t, "btrfs", "check", now)
		list, tree := subvolumes(t, now)
		if list != wantList {
			t.Errorf("%s has the subvolumes\n%s, want\n%s", now, list, wantList)
		}
		treetest.Compare(t, tree, wantTree)
		mountAsGuest(t, now)
	}
}

// TestSnapshotsAreKept: the snapshots that a backup leaves out come into it if the
// configuration says so, and come back.
func TestSnapshotsAreKept(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := systemHost(t, "btrfs_snapshots: keep")
	was := h.path("system.raw")
	makeSystem(t, was)
	wantList, wantTree := subvolumes(t, was)
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 || r.VMs[0].Backup.LeftOut != nil {
		t.Fatalf("%+v", r)
	}
	if d := h.run(0, "diff", "web@latest", "web").stdout; d != "no differences\n" {
		t.Errorf("the backup and the disk: %s", d)
	}
	image := filepath.Join(t.TempDir(), "new.raw")
	h.run(0, "restore", "web/system@latest", "--to-image", image)
	list, tree := subvolumes(t, image)
	if list != wantList || strings.Count(list, "ro=true") != 3 {
		t.Errorf("it has the subvolumes\n%s, want\n%s", list, wantList)
	}
	treetest.Compare(t, tree, wantTree)
}

// TestSnapshotsThatAreAllThereIs: a snapshot is in the backup if what it was made of is
// not, or if it was changed since.
func TestSnapshotsThatAreAllThereIs(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := systemHost(t, "exclude: [\"/@home/*\"]")
	path := h.path("system.raw")
	makeSystem(t, path)
	dir, unmount := testmount.Image(t, path, "subvolid=5")
	snapshot := func(of, name string, options ...string) {
		tool(t, "btrfs", append(append([]string{"-q", "subvolume", "snapshot"}, options...), filepath.Join(dir, of), filepath.Join(dir, name))...)
	}
	snapshot("@home", "home-of-once", "-r")
	snapshot("@kept", "kept-of-once", "-r")
	snapshot("@kept", "kept-and-mounted", "-r")
	must(t, os.MkdirAll(filepath.Join(dir, "@/opt"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "@/etc/fstab"), []byte(fstab+"LABEL=system /opt btrfs subvol=kept-and-mounted 0 0\n"), 0o644))
	snapshot("@kept", "template")
	must(t, os.WriteFile(filepath.Join(dir, "template/ready"), []byte("made here"), 0o600))
	tool(t, "btrfs", "-q", "property", "set", filepath.Join(dir, "template"), "ro", "true")
	unmount()
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	for path, want := range map[string]string{"/home-of-once/first": "first of @home", "/template/ready": "made here", "/kept-and-mounted/locked": "read-only"} {
		if s := h.run(0, "cat", "web@latest:"+path).stdout; s != want {
			t.Errorf("%s has %q, want %q", path, s, want)
		}
	}
	if s := h.run(0, "ls", "web@latest:/").stdout; strings.Contains(s, "kept-of-once") {
		t.Errorf("a snapshot of what is in the backup is in it too:\n%s", s)
	}
	if d := h.run(0, "diff", "web@latest", "web").stdout; d != "no differences\n" {
		t.Errorf("the backup and the disk: %s", d)
	}
}

// TestCompressedTakesMoreRoom: a disk whose guest compresses does not come back in its size,
// which the error says, and comes back in a larger one.
func TestCompressedTakesMoreRoom(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := systemHost(t, "backup: files")
	was, to := h.path("system.raw"), filepath.Join(t.TempDir(), "vm")
	tool(t, "truncate", "-s", "200M", was)
	tool(t, "mkfs.btrfs", "-q", "-m", "single", was)
	dir, unmount := testmount.Image(t, was, "compress-force=zstd")
	tool(t, "btrfs", "-q", "subvolume", "create", filepath.Join(dir, "@"))
	must(t, os.WriteFile(filepath.Join(dir, "@/content"), bytes.Repeat([]byte("what repeats "), 20<<20), 0o644))
	unmount()
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	if r := h.run(1, "restore", "vm", "web", "--to", to); !strings.Contains(r.stderr, "--size system=SIZE") {
		t.Errorf("%s", r.stderr)
	}
	for size, want := range map[string]int{"system": 2, "system=1X": 2, "root=1G": 1, "system=150M": 1} {
		h.run(want, "restore", "vm", "web", "--to", to, "--size", size)
	}
	h.run(0, "restore", "vm", "web", "--to", to, "--size", "system=400M")
	now := filepath.Join(to, was)
	if info, err := os.Stat(now); err != nil || info.Size() != 400<<20 {
		t.Fatalf("%v, %v", info, err)
	}
	wantList, wantTree := subvolumes(t, was)
	list, tree := subvolumes(t, now)
	if list != wantList {
		t.Errorf("it has the subvolumes\n%s, want\n%s", list, wantList)
	}
	treetest.Compare(t, tree, wantTree)
}

// mountAsGuest mounts what a guest's fstab says: first the root, which has it.
func mountAsGuest(t *testing.T, path string) {
	t.Helper()
	device, dir := testmount.Loop(t, path, 0, 0, "--read-only"), t.TempDir()
	defer testmount.At(t, device, dir, "-o", "ro")() // the default
	text, err := os.ReadFile(filepath.Join(dir, "etc/fstab"))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		testmount.At(t, device, t.TempDir(), "-o", "ro,"+f[3])()
	}
}

// TestSubvolumesAsTheGuestSeesThem: of a disk that has a system in subvolumes that is
// shown what its fstab mounts, and all of it if that is asked for.
func TestSubvolumesAsTheGuestSeesThem(t *testing.T) {
	t.Parallel() // most of it is waiting
	path := filepath.Join(t.TempDir(), "system.raw")
	makeSystem(t, path)
	for _, c := range [][]string{
		{"first of @", path + ":/first"},
		{"first of @home", path + ":/home/second"},
		{"first of @home", path + ":/@home/second", "--volume", "system"},
		{"first of @", path + ":/@/.snapshots/2/snapshot/first", "--volume", "system"},
	} {
		if out, _ := lookRun(t, 0, append([]string{"cat"}, c[1:]...)...); out != c[0] {
			t.Errorf("%q holds %q, want %q", c[1:], out, c[0])
		}
	}
	if out, _ := lookRun(t, 0, "info", path); !strings.Contains(out, "the guest sees\n") || !strings.Contains(out, " @kept, read-only\n") || !strings.Contains(out, " @, default\n") {
		t.Errorf("info: %s", out)
	}
}

// TestSnapshotsShareContent: snapshots whose files are those of their original fit on the
// disk that they were on.
func TestSnapshotsShareContent(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := systemHost(t, "btrfs_snapshots: keep")
	was := h.path("system.raw")
	makeSystem(t, was)
	dir, unmount := testmount.Image(t, was, "subvolid=5")
	noise := make([]byte, 70<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // has no error
	must(t, os.WriteFile(filepath.Join(dir, "@/large"), noise, 0o600))
	hole, err := os.Create(filepath.Join(dir, "@/holes"))
	must(t, err)
	_, err = hole.WriteAt(noise[:100_001], 1<<20)
	must(t, errors.Join(err, hole.Truncate(3<<20), hole.Close()))
	for i := range 4 {
		tool(t, "btrfs", "-q", "subvolume", "snapshot", filepath.Join(dir, "@"), filepath.Join(dir, fmt.Sprint("@writable", i)))
	}
	must(t, os.WriteFile(filepath.Join(dir, "@writable3/large"), noise[:10<<20], 0o644)) // now that of no other
	unmount()
	wantList, wantTree := subvolumes(t, was)
	if r := rounds(t, h, 0); r.VMs[0].Backup == nil || len(r.VMs[0].Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	image := filepath.Join(t.TempDir(), "new.raw")
	h.run(0, "restore", "web/system@latest", "--to-image", image)
	tool(t, "btrfs", "check", "--check-data-csum", image)
	list, tree := subvolumes(t, image)
	if list != wantList {
		t.Errorf("it has the subvolumes\n%s, want\n%s", list, wantList)
	}
	treetest.Compare(t, tree, wantTree)
}
