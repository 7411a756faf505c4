package restore_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/tarball"
)

// resticLoses is what restic 0.14 does not keep.
var resticLoses = treetest.Without{SymlinkXattrs: true, OddTargets: true, Sockets: true}

func openTree(t *testing.T, r repo, s *repository.Snapshot) *restore.Tree {
	t.Helper()
	tree, err := restore.OpenTree(t.Context(), r.Repository, s)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func run(t *testing.T, fsys disk.Filesystem, target string, opts restore.Options) restore.Report {
	t.Helper()
	rep, err := restore.Run(t.Context(), fsys, target, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestWhatResticWroteComesBack(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	tree := openTree(t, r, r.backup(t, src))

	t.Run("to a folder", func(t *testing.T) {
		dst := filepath.Join(t.TempDir(), "to")
		rep := run(t, tree, dst, restore.Options{Setuid: true, Devices: true})
		treetest.Compare(t, treetest.List(t, dst), treetest.List(t, src))
		if rep.WarningsTotal != 0 || rep.Failed != 0 || rep.LeftOut != (restore.LeftOut{}) {
			t.Errorf("report %+v", rep)
		}
		if rep.Links != 3 || rep.Specials != 3 || rep.Written > 8<<20 {
			t.Errorf("report %+v", rep)
		}
		for _, name := range []string{"sparse", "hole"} {
			if n := treetest.Allocated(t, filepath.Join(dst, name)); n > 128<<10 {
				t.Errorf("%s takes %d bytes", name, n)
			}
		}
	})
	t.Run("to a tar", func(t *testing.T) {
		dst := t.TempDir()
		archive := filepath.Join(t.TempDir(), "a.tar")
		f, err := os.Create(archive)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := tarball.Write(t.Context(), f, tree, []byte("/"), tarball.Options{})
		if err != nil || f.Close() != nil || rep.WarningsTotal != 0 {
			t.Fatalf("%v; report %+v", err, rep)
		}
		c := exec.CommandContext(t.Context(), "tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C", dst, "-f", archive)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		treetest.Compare(t, treetest.List(t, dst), treetest.List(t, src))
	})
}

func TestPrivilegesAreLeftOutUnlessAskedFor(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, openTree(t, r, r.backup(t, src)), dst, restore.Options{})
	if want := (restore.LeftOut{Setuid: 2, Capabilities: 1, Devices: 2}); rep.LeftOut != want || rep.WarningsTotal != 0 {
		t.Errorf("left out %+v, want %+v; warnings %q", rep.LeftOut, want, rep.Warnings)
	}
	got := strings.Join(treetest.List(t, dst), "\n")
	for _, bad := range []string{"security.capability", "device", " 104755 ", " 102755 "} {
		if strings.Contains(got, bad) {
			t.Errorf("%s was restored:\n%s", bad, got)
		}
	}
	if !strings.Contains(got, `"shared" 43775 `) {
		t.Error("the setgid bit of a folder is gone")
	}
}

func TestPathsKeepTheirPlace(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	tree := openTree(t, r, r.backup(t, src))
	all := treetest.List(t, src)
	only := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(line string) bool {
			return !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(line, `"`+n+`" `) })
		})
	}
	for name, c := range map[string]struct {
		paths []string
		want  []string
	}{
		"a file":      {[]string{"/var/lib/app/letter.txt"}, only("var", "var/lib", "var/lib/app", "var/lib/app/letter.txt")},
		"a folder":    {[]string{"//locked/in/"}, only("locked", "locked/in", "locked/in/file")},
		"one in both": {[]string{"/locked/in/file", "/locked", "/locked/in/file"}, only("locked", "locked/in", "locked/in/file")},
		"two":         {[]string{"/locked/in", "/shared"}, only("locked", "locked/in", "locked/in/file", "shared")},
	} {
		t.Run(name, func(t *testing.T) {
			var o restore.Options
			for _, p := range c.paths {
				o.Paths = append(o.Paths, []byte(p))
			}
			dst := filepath.Join(t.TempDir(), "to")
			rep := run(t, tree, dst, o)
			treetest.Compare(t, treetest.List(t, dst), c.want)
			if rep.WarningsTotal != 0 {
				t.Errorf("warnings %q", rep.Warnings)
			}
		})
	}
	dst := filepath.Join(t.TempDir(), "to")
	_, err := restore.Run(t.Context(), tree, dst, restore.Options{Paths: [][]byte{[]byte("/var"), []byte("/var/nothing")}})
	if err == nil || !strings.Contains(err.Error(), `"/var/nothing"`) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(dst); err == nil {
		t.Error("a folder was made for what does not exist")
	}
}

func TestTree(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	tree := openTree(t, r, r.backup(t, src))
	ino := func(path string) disk.Inode {
		n, err := disk.Lookup(tree, []byte(path))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if a, b := ino("/var/other-name"), ino("/etc/hostname"); a != b || a.Links != 3 {
		t.Errorf("hardlinks are %+v and %+v", a, b)
	}
	if n := ino("/etc/disk"); n.Rdev != (disk.Device{Major: 259, Minor: 1<<18 + 7}) || n.Type() != disk.ModeBlock {
		t.Errorf("device %+v", n)
	}
	want, err := os.ReadFile(filepath.Join(src, "etc/deep/er/large"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := tree.Open(ino("/etc/deep/er/large").Ino)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1, 3 << 20, treetest.LargeSize - 1} {
		p := make([]byte, min(2<<20, treetest.LargeSize-off))
		if n, err := f.ReadAt(p, off); n != len(p) || !bytes.Equal(p, want[off:off+int64(n)]) {
			t.Errorf("read %d bytes at %d: %v", n, off, err)
		}
	}
	s, err := tree.Open(ino("/sparse").Ino)
	if err != nil {
		t.Fatal(err)
	}
	var next, data int64
	if err := s.Extents(0, s.Size(), func(e disk.Extent) error {
		if e.Offset != next {
			t.Errorf("extent %+v comes after %d", e, next)
		}
		if next += e.Length; e.Kind == disk.ExtentData {
			data += e.Length
		}
		return nil
	}); err != nil || next != treetest.SparseSize || data > 16<<20 {
		t.Errorf("extents: %v, %d bytes, %d of data", err, next, data)
	}
	for _, ino := range []uint64{0, 5, 1<<63 + 7, 1<<21 + 1<<20} {
		if _, err := tree.Inode(ino); err == nil {
			t.Errorf("inode %d exists", ino)
		}
	}
	if err := tree.ReadDir(ino("/sparse").Ino, func(disk.DirEntry) error { return nil }); err == nil {
		t.Error("a file was listed")
	}
}

func TestFlagsComeLast(t *testing.T) {
	f := treetest.NewFake()
	flags := func(ino uint64, flags disk.InodeFlags, links uint32) {
		n := f.Inodes[ino]
		n.Flags, n.Links = flags, links
		f.Inodes[ino] = n
	}
	f.Dir(treetest.Root, "dir", 3)
	f.File(3, "a", 4, text("a"))
	f.Add(3, "b", 4, 0) // a second name, which an immutable file could not get
	f.File(3, "c", 5, text("c"))
	f.Symlink(3, "link", 6, "a")
	flags(3, disk.FlagImmutable, 1)
	flags(4, disk.FlagImmutable|disk.FlagNoDump|disk.FlagEncrypted, 2)
	flags(5, disk.FlagAppend, 1)

	dst := filepath.Join(t.TempDir(), "to")
	t.Cleanup(func() {
		for _, name := range []string{"dir", "dir/a", "dir/c"} {
			treetest.ChangeFlags(t, filepath.Join(dst, name), 0, treetest.Immutable|treetest.Append)
		}
	})
	if rep := run(t, f, dst, restore.Options{Flags: true}); rep.WarningsTotal != 0 || rep.Links != 1 || rep.LeftOut.Flags != 0 {
		t.Errorf("report %+v", rep)
	}
	treetest.Compare(t, treetest.Flags(t, dst), []string{
		`"dir" has flags 0x10`, `"dir/a" has flags 0x50`, `"dir/b" has flags 0x50`, `"dir/c" has flags 0x20`,
	})
	plain := filepath.Join(t.TempDir(), "plain")
	if rep := run(t, f, plain, restore.Options{}); rep.LeftOut.Flags != 3 || rep.WarningsTotal != 0 {
		t.Errorf("report %+v", rep)
	}
	treetest.Compare(t, treetest.Flags(t, plain), nil)
}
