package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/pattern"
)

func TestBackupComesBackWhole(t *testing.T) {
	t.Parallel()
	src := tree(t)
	r := newRepo(t)
	rep := r.back(t, backup.Source{Disk: "root", Mount: "/", FS: filesystem(t, src)})
	if rep.DamagedTotal != 0 || rep.FilesUnchanged != 0 || rep.Parent != nil {
		t.Errorf("report %+v", rep)
	}
	r.judged(t)
	compare(t, listing(t, r.restored(t)), listing(t, src))
	if rep.BytesRead > 20<<20 {
		t.Errorf("%d bytes were read, though most of them are holes", rep.BytesRead)
	}
	var snaps []struct {
		Hostname string
		Tags     []string
		Paths    []string
	}
	if err := json.Unmarshal([]byte(r.Restic(t, "snapshots", "--json")), &snaps); err != nil {
		t.Fatal(err)
	}
	want := []string{"drydock", "vm=web", "round=r1", "disk:root=/"}
	if len(snaps) != 1 || snaps[0].Hostname != "web" || len(snaps[0].Tags) != 6 || !slices.Equal(snaps[0].Tags[:4], want) {
		t.Errorf("snapshots %+v", snaps)
	}
}

func TestUnchangedFilesAreNotOpened(t *testing.T) {
	t.Parallel()
	src := tree(t)
	r := newRepo(t)
	fsys := filesystem(t, src)
	source := backup.Source{Disk: "root", Mount: "/", FS: fsys}
	first := r.back(t, source)
	opens := fsys.opens.Load()
	second := r.back(t, source)
	if got := fsys.opens.Load(); got != opens {
		t.Errorf("%d unchanged files were opened", got-opens)
	}
	if second.FilesNew+second.FilesChanged != 0 || second.FilesUnchanged != first.FilesNew || second.BytesRead != 0 || second.BytesStored != 0 {
		t.Errorf("first %+v\nsecond %+v", first, second)
	}
	if second.Parent == nil || *second.Parent != first.ID {
		t.Errorf("parent %v, want %v", second.Parent, first.ID)
	}
	a, err := r.LoadSnapshot(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.LoadSnapshot(t.Context(), second.ID)
	if err != nil {
		t.Fatal(err)
	}
	if a.Tree != b.Tree {
		t.Error("the same guest made two trees")
	}
	r.judged(t)
}

// The real restic restores times to the nanosecond; mke2fs cannot make them.
func TestNanoseconds(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := filesystem(t, tree(t))
	r.back(t, backup.Source{Disk: "root", Mount: "/", FS: changed{fsys, inodeOf(t, fsys, "/etc/deep/7"), func(n *disk.Inode) {
		n.Modify = disk.Time{Sec: 1, Nsec: 789012345}
	}}})
	info, err := os.Stat(filepath.Join(r.restored(t), "etc/deep/7"))
	if err != nil || info.ModTime().UnixNano() != 1_789012345 {
		t.Errorf("mtime %v, %v", info.ModTime().UnixNano(), err)
	}
}

// A target that is not UTF-8 restic 0.14 restores wrongly; the format keeps it.
func TestLinkTargetIsBytes(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	if err := os.Symlink("not\xffutf8", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	rep := r.back(t, backup.Source{Disk: "root", Mount: "/", FS: filesystem(t, src)})
	n := nodeAt(t, r, rep.Tree, "link")
	if n.LinkTarget != "not\xffutf8" {
		t.Errorf("target %q", n.LinkTarget)
	}
	r.judged(t)
}

// changed is a filesystem in which one inode has other times or another size.
type changed struct {
	disk.Filesystem
	ino    uint64
	change func(*disk.Inode)
}

func (c changed) Inode(ino uint64) (disk.Inode, error) {
	n, err := c.Filesystem.Inode(ino)
	if ino == c.ino {
		c.change(&n)
	}
	return n, err
}

func inodeOf(t *testing.T, fsys disk.Filesystem, path string) uint64 {
	t.Helper()
	n, err := disk.Lookup(fsys, []byte(path))
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

func TestForgedMtimeIsReadAgain(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := filesystem(t, tree(t))
	r.back(t, backup.Source{Disk: "root", Mount: "/", FS: fsys})
	opens := fsys.opens.Load()
	forged := changed{fsys, inodeOf(t, fsys, "/etc/deep/7"), func(n *disk.Inode) { n.Change.Nsec ^= 1 }}
	rep := r.back(t, backup.Source{Disk: "root", Mount: "/", FS: forged})
	if got := fsys.opens.Load() - opens; got != 1 || rep.FilesChanged != 1 {
		t.Errorf("%d files were opened, %d changed; want 1 and 1", got, rep.FilesChanged)
	}
}

func TestDisksAreComposedAsTheGuestSeesThem(t *testing.T) {
	t.Parallel()
	rootDir, varDir, deepDir := tree(t), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(varDir, "state"), []byte("state"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deepDir, "deep"), []byte("deep"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	data := filesystem(t, varDir)
	sources := []backup.Source{
		{Disk: "data", Mount: "/var", FS: changed{data, data.Info().Root, func(n *disk.Inode) { n.Mode = disk.ModeDir | 0o750 }}},
		{Disk: "root", Mount: "/", FS: filesystem(t, rootDir)},
		{Disk: "deep", Mount: "/srv/a/b", FS: filesystem(t, deepDir)},
		{Disk: "spare", Mount: "/disks/spare", FS: filesystem(t, deepDir)},
	}
	first := r.back(t, sources...)
	if again := r.back(t, sources...); again.Tree != first.Tree || again.DirsNew+again.DirsChanged != 0 {
		t.Errorf("the same disks made another tree: %+v", again)
	}
	r.judged(t)
	got := r.restored(t)
	for path, want := range map[string]string{
		"etc/hostname": "web\n", "var/state": "state", "srv/a/b/deep": "deep", "disks/spare/deep": "deep",
	} {
		data, err := os.ReadFile(filepath.Join(got, path))
		if err != nil || string(data) != want {
			t.Errorf("%s: %q, %v; want %q", path, data, err, want)
		}
	}
	info, err := os.Stat(filepath.Join(got, "var"))
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("/var has mode %v, %v; want that of the root of its disk", info.Mode(), err)
	}
	snaps, err := backup.Find(t.Context(), r.Repository, "web")
	if err != nil || len(snaps) != 2 {
		t.Fatalf("snapshots %v, %v", snaps, err)
	}
	for name, want := range map[string]string{"root": "/", "data": "/var", "spare": "/disks/spare"} {
		if mount, ok := backup.DiskMount(snaps[0], name); !ok || mount != want {
			t.Errorf("disk %s is at %q, %v; want %q", name, mount, ok, want)
		}
	}
	_, err = backup.Run(t.Context(), r.Repository, []backup.Source{
		{Disk: "a", Mount: "/var", DeviceID: 1}, {Disk: "b", Mount: "/var", DeviceID: 2},
	}, backup.Options{VM: "web"})
	if err == nil || !strings.Contains(err.Error(), "disks a and b") {
		t.Errorf("two disks at one place: %v", err)
	}
}

func compile(t *testing.T, patterns ...string) *pattern.List {
	t.Helper()
	s, err := pattern.Compile(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	src := tree(t)
	for name, c := range map[string]struct {
		include, exclude []string
		there, gone      []string
	}{
		"exclude a folder":     {nil, []string{"/etc/deep"}, []string{"etc/hostname", "var"}, []string{"etc/deep"}},
		"exclude its content":  {nil, []string{"/etc/deep/**"}, []string{"etc/deep"}, []string{"etc/deep/1", "etc/deep/er"}},
		"exclude by name":      {nil, []string{"big"}, []string{"etc/deep/er"}, []string{"etc/deep/er/big"}},
		"include a folder":     {[]string{"/etc/deep"}, nil, []string{"etc/deep/er/big", "etc/deep/1"}, []string{"etc/hostname", "var"}},
		"include, and exclude": {[]string{"/etc/deep"}, []string{"/etc/deep/er"}, []string{"etc/deep/1"}, []string{"etc/deep/er", "etc/hostname"}},
		"folders only":         {nil, []string{"er/", "hostname/"}, []string{"etc/hostname", "etc/deep/1"}, []string{"etc/deep/er"}},
		"all but":              {nil, []string{"/etc/deep/*", "!/etc/deep/7"}, []string{"etc/deep/7", "etc/hostname"}, []string{"etc/deep/8", "etc/deep/er"}},
		"include files":        {[]string{"/etc/host*"}, nil, []string{"etc/hostname"}, []string{"etc/empty", "etc/deep"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t)
			r.back(t, backup.Source{
				Disk: "root", Mount: "/", FS: filesystem(t, src), Include: compile(t, c.include...), Exclude: compile(t, c.exclude...),
			})
			got := r.restored(t)
			for _, p := range c.there {
				if _, err := os.Lstat(filepath.Join(got, p)); err != nil {
					t.Errorf("%s is missing: %v", p, err)
				}
			}
			for _, p := range c.gone {
				if _, err := os.Lstat(filepath.Join(got, p)); err == nil {
					t.Errorf("%s is there", p)
				}
			}
		})
	}
}

func TestDamagedFileCostsThatFile(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := filesystem(t, tree(t))
	bad := inodeOf(t, fsys, "/etc/deep/7")
	fsys.onOpen = func(ino uint64) error {
		if ino == bad {
			return &disk.Error{Layer: "ext4", Structure: "extent tree", Offset: -1, Err: disk.ErrCorrupt}
		}
		return nil
	}
	rep := r.back(t, backup.Source{Disk: "root", Mount: "/", FS: fsys})
	if rep.DamagedTotal != 1 || len(rep.Damaged) != 1 || string(rep.Damaged[0].Path) != "/etc/deep/7" || rep.Damaged[0].Disk != "root" {
		t.Errorf("damaged: %v", rep.Damaged)
	}
	r.judged(t)
	got := r.restored(t)
	if _, err := os.Stat(filepath.Join(got, "etc/deep/7")); err == nil {
		t.Error("the damaged file is in the backup")
	}
	if _, err := os.Stat(filepath.Join(got, "etc/deep/8")); err != nil {
		t.Error(err)
	}
}

func TestLostReaderFailsTheBackup(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := filesystem(t, tree(t))
	lost := errors.New("the disk reader died")
	fsys.onOpen = func(uint64) error { return lost }
	_, err := backup.Run(t.Context(), r.Repository, []backup.Source{{Disk: "root", Mount: "/", FS: fsys, DeviceID: 1}}, backup.Options{VM: "web", Time: time.Now()})
	if !errors.Is(err, lost) {
		t.Fatalf("error %v, want that of the reader", err)
	}
	if snaps, err := backup.Find(t.Context(), r.Repository, "web"); err != nil || len(snaps) != 0 {
		t.Errorf("snapshots %v, %v", snaps, err)
	}
}

func TestCancelledBackupLeavesNoSnapshot(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := filesystem(t, tree(t))
	ctx, cancel := context.WithCancel(t.Context())
	fsys.onOpen = func(uint64) error { cancel(); return nil }
	_, err := backup.Run(ctx, r.Repository, []backup.Source{{Disk: "root", Mount: "/", FS: fsys, DeviceID: 1}}, backup.Options{VM: "web", Time: time.Now()})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	r.judged(t)
	if out := r.Restic(t, "list", "locks"); strings.TrimSpace(out) != "" {
		t.Errorf("locks were left: %s", out)
	}
	if snaps, err := backup.Find(t.Context(), r.Repository, "web"); err != nil || len(snaps) != 0 {
		t.Errorf("snapshots %v, %v", snaps, err)
	}
}
