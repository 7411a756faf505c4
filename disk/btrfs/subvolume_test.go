package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// makeSubvolumes makes subvolumes in subvolumes and in directories, snapshots of
// them, one that is moved and one that is deleted. It returns the ID of "top/sub".
func makeSubvolumes(t *testing.T) (paths []string, chosen uint64) {
	paths = makeImages(t, 1, 256<<20)
	dir, unmount := mount(t, paths, "rw,user_subvol_rm_allowed")
	c := &crash{t: t, dir: dir}
	create := func(name string) { disktest.Run(t, "btrfs", "subvolume", "create", c.path(name)) }
	create("top")
	create("top/sub")
	c.must(os.MkdirAll(c.path("top/sub/dir/deep"), 0o755))
	c.must(os.Chown(c.path("top/sub/dir/deep"), 1000, 1001))
	create("top/sub/dir/deep/nested")
	create("top/sub/other")
	create("away")
	create("doomed")
	for _, name := range []string{"top/a", "top/sub/b", "top/sub/dir/deep/nested/c", "top/sub/other/d", "away/e", "doomed/f"} {
		c.write(name, name)
	}
	c.must(os.Link(c.path("top/sub/b"), c.path("top/sub/dir/b")))
	disktest.Run(t, "btrfs", "subvolume", "snapshot", "-r", c.path("top/sub"), c.path("snapshot"))
	c.must(os.Rename(c.path("away"), c.path("top/sub/dir/moved")))
	disktest.Run(t, "btrfs", "subvolume", "snapshot", c.path("top/sub"), c.path("top/sub/dir/again"))
	disktest.Run(t, "sh", "-c", "btrfs -q send "+c.path("snapshot")+" | btrfs -q receive "+c.path("top"))
	disktest.Run(t, "btrfs", "subvolume", "delete", "-c", c.path("doomed"))
	c.write("top/sub/b", "changed")
	id := strings.TrimSpace(string(disktest.Run(t, "btrfs", "inspect-internal", "rootid", c.path("top/sub"))))
	if _, err := fmt.Sscan(id, &chosen); err != nil {
		t.Fatal(err)
	}
	unmount()
	return paths, chosen
}

// TestSubvolumes compares trees and the list of subvolumes with the kernel, from
// the top level, from another subvolume, and with another default.
func TestSubvolumes(t *testing.T) {
	paths, chosen := makeSubvolumes(t)
	fs := openFilesystem(t, paths, btrfs.Options{})
	compare(t, paths, fs, "")
	checkList(t, paths, fs, 5)

	compare(t, paths, openFilesystem(t, paths, btrfs.Options{SubvolumeID: chosen}), fmt.Sprintf("subvolid=%d", chosen))
	for _, path := range []string{"top/sub", "/top/sub/", "top/sub/dir/again", "snapshot"} {
		compare(t, paths, openFilesystem(t, paths, btrfs.Options{Subvolume: path}), "subvol="+path)
	}
	for _, opts := range []btrfs.Options{{Subvolume: "top/none"}, {SubvolumeID: 9999}, {SubvolumeID: 7}} {
		if _, err := btrfs.Open(openImages(t, paths), opts); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	if _, err := btrfs.Open(openImages(t, paths), btrfs.Options{SubvolumeID: 70_000}); !errors.Is(err, disk.ErrLimit) {
		t.Errorf("an ID that is too large: %v", err)
	}

	dir, unmount := mount(t, paths, "rw")
	disktest.Run(t, "btrfs", "subvolume", "set-default", fmt.Sprint(chosen), dir)
	unmount()
	fs = openFilesystem(t, paths, btrfs.Options{})
	compare(t, paths, fs, "")
	checkList(t, paths, fs, chosen)
	compare(t, paths, openFilesystem(t, paths, btrfs.Options{SubvolumeID: 5}), "subvolid=5")
}

// uuidText is a UUID as btrfs-progs print it.
func uuidText(u [16]byte) string {
	if u == [16]byte{} {
		return "-"
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// checkList compares Subvolumes with "btrfs subvolume list".
func checkList(t *testing.T, paths []string, fs *btrfs.Filesystem, chosen uint64) {
	t.Helper()
	list, err := fs.Subvolumes()
	if err != nil {
		t.Fatal(err)
	}
	dir, unmount := mount(t, paths, "ro,subvolid=5")
	defer unmount()
	want := string(disktest.Run(t, "btrfs", "subvolume", "list", "-u", "-p", "-q", "-R", dir))
	roots := string(disktest.Run(t, "btrfs", "inspect-internal", "dump-tree", "-t", "root", paths[0]))
	readOnly := string(disktest.Run(t, "btrfs", "subvolume", "list", "-r", dir))
	var got strings.Builder
	for i, s := range list {
		if s.Default != (s.ID == chosen) || s.Root != s.ID<<disk.SubvolumeShift|256 || (i == 0) != (s.ID == 5) {
			t.Errorf("subvolume %d is %+v", i, s)
		}
		if s.ReadOnly != strings.Contains(readOnly, fmt.Sprintf("ID %d ", s.ID)) {
			t.Errorf("%q is read-only: %v", s.Path, s.ReadOnly)
		}
		if times := fmt.Sprintf("ctransid %d otransid %d ", s.Changed, s.Made); s.ID != 5 && !strings.Contains(roots, times) {
			t.Errorf("%q has %s, which no subvolume has", s.Path, times)
		}
		if s.Origin != [16]byte{} && (s.Made == 0 || s.Changed > s.Made) {
			t.Errorf("%q was made in transaction %d, and changed in %d", s.Path, s.Made, s.Changed)
		}
		marks := disk.InodeFlags(0)
		for flag, is := range map[disk.InodeFlags]bool{disk.FlagSubvolume: s.ID != 5, disk.FlagReadOnly: s.ReadOnly, disk.FlagDefault: s.Default && s.ID != 5} {
			if is {
				marks |= flag
			}
		}
		if n, err := fs.Inode(s.Root); err != nil || n.Flags != marks {
			t.Errorf("the root of %q has the flags %q, %v", s.Path, n.Flags.Names(), err)
		}
		if s.ID == 5 {
			continue
		}
		fmt.Fprintf(&got, "ID %d parent %d of %s received %s uuid %s path %s\n", s.ID, s.Parent, uuidText(s.Origin), uuidText(s.Received), uuidText(s.UUID), s.Path)
	}
	var lines strings.Builder // without the generation and the top level's repeated ID
	for line := range strings.Lines(want) {
		f := strings.Fields(line)
		fmt.Fprintf(&lines, "ID %s parent %s of %s received %s uuid %s path %s\n", f[1], f[5], f[10], f[12], f[14], f[16])
	}
	if got.String() != lines.String() {
		t.Errorf("the list is\n%s, want\n%s", got.String(), lines.String())
	}
}

// TestNumbers checks that no inode number is there twice but for hardlinks, and
// that a file has one number however it is reached.
func TestNumbers(t *testing.T) {
	paths, chosen := makeSubvolumes(t)
	fs := openFilesystem(t, paths, btrfs.Options{})
	all := disktest.ReadTree(t, fs)
	seen := make(map[uint64]string)
	for path, n := range all {
		if other, twice := seen[n.Ino]; twice && n.Links < 2 {
			t.Errorf("%q and %q are inode %#x", path, other, n.Ino)
		}
		seen[n.Ino] = path
		if n.Ino >= disk.MaxIno {
			t.Errorf("%q is inode %#x", path, n.Ino)
		}
	}
	below := disktest.ReadTree(t, openFilesystem(t, paths, btrfs.Options{SubvolumeID: chosen}))
	for path, n := range below {
		if all["/top/sub"+path] != n {
			t.Errorf("%q is %+v from above and %+v from its root", path, all["/top/sub"+path], n)
		}
	}
	// What stands for a subvolume is an empty directory of the owner of that
	// which it is in.
	if n := all["/snapshot/dir/deep/nested"]; n.UID != 1000 || n.GID != 1001 || n.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("what stands for a subvolume is %+v", n)
	}
}
