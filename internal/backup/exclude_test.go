package backup_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
)

const signature = "Signature: 8a477f597d28d172789f06886806bc55"

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, size := range map[string]int{
		"cache/CACHEDIR.TAG": 0, "cache/1": 10, "cache/2": 20, "cache/sub/3": 40, "cache/mnt/hidden": 1,
		"false/CACHEDIR.TAG": 0, "false/kept": 1, "folder/CACHEDIR.TAG/x": 1, "folder/kept": 1,
		"large": 2001, "not too large": 2000, "nodump": 5, "nodump.d/x": 6,
		"huge1": 7, "huge2": 7, "log/a.log": 3, "log/b.log": 4, "log/keep.log": 5,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content := strings.Repeat("x", size)
		switch {
		case name == "cache/CACHEDIR.TAG":
			content = signature + "\n# by hand\n"
		case strings.HasSuffix(name, "TAG"):
			content = strings.ToUpper(signature)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var fsys disk.Filesystem = filesystem(t, dir)
	noDump := func(n *disk.Inode) { n.Flags |= disk.FlagNoDump }
	for _, path := range []string{"/nodump", "/nodump.d"} {
		fsys = changed{fsys, inodeOf(t, fsys, path), noDump}
	}
	for _, path := range []string{"/huge1", "/huge2"} { // as a guest makes them with a truncate
		fsys = changed{fsys, inodeOf(t, fsys, path), func(n *disk.Inode) { n.Size = math.MaxInt64 }}
	}
	src := backup.Source{
		Disk: "root", Mount: "/", FS: fsys, Exclude: compile(t, "huge*", "*.log", "!keep.log", "lost+found/"),
		ExcludeCaches: true, ExcludeNoDump: true, ExcludeLargerThan: 2000,
	}
	mounted := backup.Source{Disk: "mnt", Mount: "/cache/mnt", FS: filesystem(t, filepath.Join(dir, "folder")), Include: compile(t, "/kept")}
	r := newRepo(t)
	rep := r.back(t, src, mounted)

	want := []backup.LeftOut{
		{Disk: "root", Rule: "exclude_caches", Files: 2, Dirs: 1, Bytes: 30},
		{Disk: "mnt", Rule: "include", Dirs: 2},
		{Disk: "root", Rule: "huge*", Files: 2, Bytes: math.MaxInt64},
		{Disk: "root", Rule: "exclude_larger_than", Files: 1, Bytes: 2001},
		{Disk: "root", Rule: "*.log", Files: 2, Bytes: 7},
		{Disk: "root", Rule: "lost+found/", Dirs: 1},
		{Disk: "root", Rule: "exclude_nodump", Files: 1, Dirs: 1, Bytes: 5},
	}
	if !slices.Equal(rep.LeftOut, want) {
		t.Errorf("left out\n%+v, want\n%+v", rep.LeftOut, want)
	}
	var got []string
	for _, line := range listing(t, r.restored(t)) {
		name, _, _ := strings.Cut(line[1:], `"`)
		got = append(got, name)
	}
	if want := []string{
		"cache", "cache/CACHEDIR.TAG", "cache/mnt", "cache/mnt/kept", "false", "false/CACHEDIR.TAG", "false/kept",
		"folder", "folder/CACHEDIR.TAG", "folder/CACHEDIR.TAG/x", "folder/kept", "log", "log/keep.log", "not too large",
	}; !slices.Equal(got, want) {
		t.Errorf("in the backup is %q", got)
	}
	snapshots := r.Restic(t, "snapshots", "--json")
	for _, rule := range []string{"root: *.log", "root: exclude_caches", "root: exclude_nodump", "root: exclude_larger_than 2000"} {
		if !strings.Contains(snapshots, rule) {
			t.Errorf("restic does not show %q: %s", rule, snapshots)
		}
	}
}

// TestIncludeThatMatchesNothing: a disk of which nothing is in the backup is told of.
func TestIncludeThatMatchesNothing(t *testing.T) {
	t.Parallel()
	fsys := filesystem(t, tree(t))
	for pattern, want := range map[string]int{"/var": 0, "/etc/hostname": 0, "*.nothing": 1, "/@/etc": 1, "/etc/hostname/": 1} {
		rep := newRepo(t).back(t, backup.Source{Disk: "root", Mount: "/", FS: fsys, Include: compile(t, pattern)})
		if len(rep.Warnings) != want || want > 0 && !strings.Contains(rep.Warnings[0].Error(), "disk root: nothing of it is in the backup") {
			t.Errorf("%s: warnings %v", pattern, rep.Warnings)
		}
	}
}
