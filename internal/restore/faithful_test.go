package restore_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/disk/xfs"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/tarball"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// guests are filesystems that guests have.
var guests = map[string]struct {
	mkfs []string
	open func(d disk.Sparse) (disk.Filesystem, error)
}{
	"ext4": {[]string{"mkfs.ext4", "-q", "-b", "4096", "-I", "512"}, func(d disk.Sparse) (disk.Filesystem, error) {
		return ext4.Open(d, ext4.Options{})
	}},
	"xfs": {[]string{"mkfs.xfs", "-q"}, func(d disk.Sparse) (disk.Filesystem, error) { return xfs.Open(d, xfs.Options{}) }},
	"btrfs": {[]string{"mkfs.btrfs", "-q"}, func(d disk.Sparse) (disk.Filesystem, error) {
		return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
	}},
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// world is what is in a folder.
type world struct{ list, holes, flags []string }

func look(t *testing.T, dir string) world {
	t.Helper()
	return world{treetest.List(t, dir), treetest.Holes(t, dir), treetest.Flags(t, dir)}
}

// guestDisk makes a disk with a tree of everything, through the kernel, and returns
// it with what the kernel says is on it.
func guestDisk(t *testing.T, kind string) (fsys disk.Filesystem, w world) {
	t.Helper()
	g := guests[kind]
	image := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	const size = 512 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	command(t, g.mkfs[0], append(g.mkfs[1:], image)...)
	dir, unmount := testmount.Image(t, image, "")
	treetest.MakeIn(t, dir, treetest.Without{LargeMinors: kind == "xfs"})
	treetest.Extreme(t, dir)
	w = look(t, dir)
	unmount()
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	if fsys, err = g.open(d); err != nil {
		t.Fatal(err)
	}
	return fsys, w
}

// longPath is in the paths that may be longer than PATH_MAX.
const longPath = `"extreme/aaa`

// without returns a list without the lines that have one of the marks in them.
func without(list []string, marks ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(line string) bool {
		return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(line, m) })
	})
}

func back(t *testing.T, r repo, fsys disk.Filesystem) {
	t.Helper()
	rep, err := backup.Run(t.Context(), r.Repository, []backup.Source{{Disk: "root", Mount: "/", DeviceID: 1, FS: fsys}},
		backup.Options{VM: "web", Time: time.Now()})
	if err != nil || rep.DamagedTotal != 0 || len(rep.Warnings) != 0 {
		t.Fatalf("%v; report %+v", err, rep)
	}
}

func latest(t *testing.T, r repo) *repository.Snapshot {
	t.Helper()
	s, err := restore.Find(t.Context(), r.Repository, "web", restore.Latest)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWhatComesBack proves docs/backups.md.
func TestWhatComesBack(t *testing.T) {
	t.Parallel()
	for kind := range guests {
		t.Run(kind, func(t *testing.T) {
			fsys, w := guestDisk(t, kind)
			r := newRepo(t)
			back(t, r, fsys)
			tree := openTree(t, r, latest(t, r))
			t.Run("restore", func(t *testing.T) { testRestore(t, tree, w) })
			t.Run("tar", func(t *testing.T) { testTar(t, tree, w) })
			t.Run("mount", func(t *testing.T) { testMount(t, tree, w) })
			t.Run("restic", func(t *testing.T) { testRestic(t, r, w.list) })
		})
	}
}

func testRestore(t *testing.T, tree *restore.Tree, w world) {
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, tree, dst, restore.Options{Setuid: true, Devices: true, Flags: true})
	if rep.WarningsTotal != 0 || rep.Failed != 0 || rep.LeftOut != (restore.LeftOut{}) {
		t.Errorf("report %+v", rep)
	}
	got := look(t, dst)
	treetest.Compare(t, got.list, w.list)
	treetest.Compare(t, got.holes, w.holes)
	treetest.Compare(t, got.flags, w.flags)
}

// testTar unpacks an archive with GNU tar, which has no sockets, and no paths
// longer than PATH_MAX.
func testTar(t *testing.T, tree *restore.Tree, w world) {
	dst := t.TempDir()
	c := exec.CommandContext(t.Context(), "tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "--warning=no-timestamp", "-C", dst)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	rep, err := tarball.Write(t.Context(), in, tree, []byte("/"), tarball.Options{})
	if err != nil || in.Close() != nil || rep.WarningsTotal != 0 {
		t.Errorf("%v; report %+v", err, rep)
	}
	if err := c.Wait(); err == nil || bytes.Count(out.Bytes(), []byte("\n")) != bytes.Count(out.Bytes(), []byte("File name too long\n"))+1 {
		t.Errorf("tar: %v\n%.2000s", err, out.Bytes())
	}
	treetest.Compare(t, without(treetest.List(t, dst), longPath), without(w.list, longPath, `"etc/socket"`))
	treetest.Compare(t, treetest.Holes(t, dst), w.holes)
}

func testMount(t *testing.T, tree *restore.Tree, w world) {
	dir := t.TempDir()
	m, err := fusefs.Mount(dir, tree, fusefs.Options{Report: func(ino uint64, err error) { t.Errorf("inode %d: %v", ino, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
			_ = m.Detach()
		}
	}()
	treetest.Compare(t, treetest.List(t, dir), w.list)
	treetest.Compare(t, treetest.Holes(t, dir), w.holes)
}

// testRestic has the real restic check and restore what is there.
func testRestic(t *testing.T, r repo, list []string) {
	if out := r.Restic(t, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %s", out)
	}
	dst := filepath.Join(t.TempDir(), "to")
	// restic 0.14 makes no holes, and no paths longer than PATH_MAX.
	r.Restic(t, "restore", "latest", "--target", dst, "--exclude", "/extreme/huge", "--exclude", "/extreme/"+strings.Repeat("a", 255))
	lost := []string{`"extreme/huge"`, longPath, `"etc/link"`, `"etc/odd-link"`, `"etc/socket"`, `"extreme/head"`}
	treetest.Compare(t, without(treetest.List(t, dst), lost...), without(list, lost...))
	got := strings.Join(treetest.List(t, dst), "\n")
	for _, line := range []string{`"etc/link" 120777 4000000:4000001 `, `user.a=b%=""`} {
		if !strings.Contains(got, line) {
			t.Errorf("%s is missing", line)
		}
	}
}

// TestACopyIsAsFaithful has the real restic copy a backup to another repository.
func TestACopyIsAsFaithful(t *testing.T) {
	t.Parallel()
	fsys, w := guestDisk(t, "ext4")
	from, to := newRepo(t), newRepo(t)
	back(t, from, fsys)
	to.Restic(t, "copy", "--from-repo", from.Dir, "--from-password-file", from.KeyFile)
	if out := to.Restic(t, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %s", out)
	}
	testRestore(t, openTree(t, to, latest(t, to)), w)
}

func TestFolderOfManyNames(t *testing.T) {
	t.Parallel()
	const names, files = 100_000, 10 // few files with many names each: quickly made
	f := treetest.NewFake()
	f.Dir(treetest.Root, "many", 3)
	for i := range names {
		ino := uint64(10 + i%files)
		f.Add(3, fmt.Sprintf("name %06d", i), ino, disk.ModeRegular|0o644)
	}
	for ino := uint64(10); ino < 10+files; ino++ {
		n := f.Inodes[ino]
		n.Links, n.Size = names/files, 4
		f.Inodes[ino], f.Files[ino] = n, text("text")
	}
	r := newRepo(t)
	back(t, r, f)
	tree := openTree(t, r, latest(t, r))
	dst := filepath.Join(t.TempDir(), "to")
	if rep := run(t, tree, dst, restore.Options{}); rep.Files != files || rep.Links != names-files || rep.WarningsTotal != 0 {
		t.Errorf("report %+v", rep)
	}
	list, err := os.ReadDir(filepath.Join(dst, "many"))
	if err != nil || len(list) != names || list[names-1].Name() != "name 099999" {
		t.Errorf("%d names came back, %v", len(list), err)
	}
	var archive bytes.Buffer
	rep, err := tarball.Write(t.Context(), &archive, tree, []byte("/many"), tarball.Options{})
	if err != nil || rep.Files != files || rep.Links != names-files {
		t.Errorf("report %+v, %v", rep, err)
	}
	if got := strings.Count(r.Restic(t, "ls", "latest"), "/many/name "); got != names {
		t.Errorf("restic lists %d names", got)
	}
}
