package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// TestHistory: each backup is a folder by its time, with its own hardlinks though
// the files in both have the same inode numbers.
func TestHistory(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	first := r.backup(t, src, "--time", "2026-11-01 03:00:00")
	want := treetest.List(t, src)
	if err := os.WriteFile(filepath.Join(src, "etc/hostname"), []byte("another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := r.backup(t, src, "--time", "2026-11-02 03:00:00")
	third := r.backup(t, src, "--time", "2026-11-02 03:00:00")
	tree, err := restore.OpenHistory(t.Context(), r.Repository, []*repository.Snapshot{first, second, third})
	if err != nil {
		t.Fatal(err)
	}
	name := func(s *repository.Snapshot) string { return s.Time.Local().Format(time.RFC3339) }
	list, err := disk.List(tree, tree.Info().Root)
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, w := range []string{name(first), name(second), name(second) + "-1", "latest"} {
		if string(list[i].Name) != w {
			t.Errorf("name %d is %q, want %q", i, list[i].Name, w)
		}
	}
	if target, err := tree.Readlink(list[3].Ino); err != nil || string(target) != name(second)+"-1" {
		t.Errorf("latest leads to %q, %v", target, err)
	}
	links := map[uint64]string{}
	for _, path := range []string{name(first) + "/etc/hostname", name(second) + "/etc/hostname", name(second) + "-1/etc/hostname"} {
		n, err := disk.Lookup(tree, []byte(path))
		if err != nil {
			t.Fatal(err)
		}
		other, err := disk.Lookup(tree, []byte(filepath.Dir(filepath.Dir(path))+"/var/other-name"))
		if err != nil || other.Ino != n.Ino || links[n.Ino] != "" {
			t.Errorf("%s is inode %d, its other name %d (%v), and %q too", path, n.Ino, other.Ino, err, links[n.Ino])
		}
		links[n.Ino] = path
	}
	dst := filepath.Join(t.TempDir(), "to")
	run(t, restore.Below(tree, list[0].Ino), dst, restore.Options{Setuid: true, Devices: true})
	treetest.Compare(t, treetest.List(t, dst), want)

	etc, err := disk.Lookup(tree, []byte(name(first)+"/etc"))
	if err != nil {
		t.Fatal(err)
	}
	below := restore.Below(tree, list[0].Ino, etc.Ino)
	if hidden, err := disk.List(below, etc.Ino); err != nil || len(hidden) != 0 {
		t.Errorf("an emptied folder has %v in it, %v", hidden, err)
	}
	if _, err := restore.OpenHistory(t.Context(), r.Repository, nil); !errors.Is(err, restore.ErrNoBackup) {
		t.Errorf("no backups: %v", err)
	}
}
