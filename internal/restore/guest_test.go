package restore_test

import (
	"slices"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// TestADiskHasItsOwnFolders: a disk comes back with the folders at which others are
// mounted if it has them, and without those that no disk has.
func TestADiskHasItsOwnFolders(t *testing.T) {
	excluded, err := pattern.Compile([]string{"/out"})
	if err != nil {
		t.Fatal(err)
	}
	disks := map[string]struct {
		mount string
		own   []string // what comes back
	}{
		"root": {"/", []string{"/out", "/out/in", "/srv"}},
		"srv":  {"/srv", []string{"/own"}},
		"data": {"/srv/data", []string{"/own"}}, // which srv lacks
		"in":   {"/out/in", []string{"/own"}},
		"none": {"/none/at/all", []string{"/own"}},
	}
	var sources []backup.Source
	for i, name := range []string{"root", "srv", "data", "in", "none"} {
		fsys := treetest.NewFake()
		if name == "root" {
			fsys.Dir(treetest.Root, "srv", 10)
			fsys.Dir(fsys.Dir(treetest.Root, "out", 11), "in", 12)
			fsys.Dir(11, "not backed up", 13)
		} else {
			fsys.Dir(treetest.Root, "own", 10)
		}
		s := backup.Source{Disk: name, Mount: disks[name].mount, DeviceID: uint64(i) + 1, FS: fsys}
		if name == "root" {
			s.Exclude = excluded
		}
		sources = append(sources, s)
	}
	r := newRepo(t)
	if _, err := backup.Run(t.Context(), r.Repository, sources, backup.Options{VM: "web", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s := latest(t, r)
	for name, d := range disks {
		fsys, err := openTree(t, r, s).Disk(s, name, d.mount)
		if err != nil {
			t.Fatal(err)
		}
		if got := folders(t, fsys, fsys.Info().Root, "/"); !slices.Equal(got, d.own) {
			t.Errorf("%s has %q, want %q", name, got, d.own)
		}
	}
}

// folders are the paths of all that is below a folder.
func folders(t *testing.T, fsys disk.Filesystem, ino uint64, path string) (list []string) {
	t.Helper()
	err := fsys.ReadDir(ino, func(e disk.DirEntry) error {
		list = append(append(list, path+string(e.Name)), folders(t, fsys, e.Ino, path+string(e.Name)+"/")...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
