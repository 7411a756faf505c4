package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Who walks through a tree and reads all that is in it has been told of most before he
// asks: there are far fewer requests than directories, and nothing is mixed up.
func TestWalkAhead(t *testing.T) {
	tree := t.TempDir()
	files := 0
	for i := range 300 {
		dir := filepath.Join(tree, fmt.Sprintf("group %d", i%20), fmt.Sprintf("package %d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 6 {
			path := filepath.Join(dir, fmt.Sprintf("file %d", j))
			if err := os.WriteFile(path, bytes.Repeat([]byte(path), 1+50*(j%2)), 0o644); err != nil {
				t.Fatal(err)
			}
			files++
		}
	}
	image := filepath.Join(t.TempDir(), "disk")
	for name, mkfs := range map[string][]string{
		"ext4":  {"mke2fs", "-q", "-t", "ext4", "-d", tree, image},
		"btrfs": {"mkfs.btrfs", "-q", "-r", tree, image}, // the short files are not where the parent could read them
	} {
		for order, o := range map[string]order{"as listed": asListed, "by name": byName} {
			t.Run(name+" "+order, func(t *testing.T) {
				if err := os.WriteFile(image, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(image, 256<<20); err != nil {
					t.Fatal(err)
				}
				run(t, mkfs[0], mkfs[1:]...)
				r := start(t, image, DiskSpec{Format: Raw})
				fs, err := r.Filesystem(t.Context(), "disk")
				if err != nil {
					t.Fatal(err)
				}
				seen := 0
				readTree(t, fs, o, fs.Info().Root, tree, &seen)
				if requests := r.client.last; seen != files || requests > 30 {
					t.Errorf("%d files of %d were read with %d requests", seen, files, requests)
				}
				// Content within the metadata comes with the names, once it is seen to be read.
				told := 0
				for _, n := range fs.(*filesystem).nodes.nodes {
					if n.entry != nil && n.entry.Content != nil {
						told++
					}
				}
				if name == "btrfs" != (told > files/3) || name == "ext4" != (told == 0) {
					t.Errorf("the content of %d files of %d was told with them", told, files)
				}
			})
		}
	}
}

// readTree reads all files below a directory, which hold their paths, and counts them.
func readTree(t *testing.T, fs disk.Filesystem, o order, ino uint64, path string, seen *int) {
	t.Helper()
	if err := o(fs, ino, func(e disk.DirEntry) error {
		path := filepath.Join(path, string(e.Name))
		n, err := fs.Inode(e.Ino)
		if err != nil {
			return err
		}
		if n.Type() == disk.ModeDir {
			readTree(t, fs, o, e.Ino, path, seen)
			return nil
		}
		f, err := fs.Open(e.Ino)
		if err != nil {
			return err
		}
		*seen++
		got := make([]byte, f.Size())
		if _, err := f.ReadAt(got, 0); len(got) == 0 || !bytes.Equal(got, bytes.Repeat([]byte(path), len(got)/len(path))) {
			t.Errorf("%q holds %.100q, %v", path, got, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Who leaves out directories is told ahead of the others all the same: few are asked for
// when they are wanted, and those at the start.
func TestWalkSome(t *testing.T) {
	tree := t.TempDir()
	for i := range 1000 {
		dir := filepath.Join(tree, fmt.Sprintf("group %d", i%20), fmt.Sprintf("package %d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 4 {
			if err := os.Symlink("nowhere", filepath.Join(dir, fmt.Sprintf("link %0200d", j))); err != nil {
				t.Fatal(err)
			}
		}
	}
	image := filepath.Join(t.TempDir(), "disk")
	run(t, "mke2fs", "-q", "-t", "ext4", "-N", "8000", "-d", tree, image, "64M")
	opened, err := start(t, image, DiskSpec{Format: Raw}).Filesystem(t.Context(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	fs := opened.(*filesystem)
	seen, late := 0, 0
	var walk func(ino uint64, every int)
	walk = func(ino uint64, every int) {
		if !toldAhead(fs, ino) {
			late++
		}
		seen++
		n := 0
		if err := byName(fs, ino, func(e disk.DirEntry) error {
			if n++; e.Type == disk.ModeDir && n%every == 0 {
				walk(e.Ino, 2)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	walk(fs.Info().Root, 1)
	if seen != 522 || late > 10 {
		t.Errorf("%d directories were listed, %d of them not told ahead", seen, late)
	}
}

// toldAhead reports whether a directory is known, or was asked for.
func toldAhead(fs *filesystem, ino uint64) bool {
	fs.dirs.mu.Lock()
	defer fs.dirs.mu.Unlock()
	asked := fs.dirs.asked
	return fs.dirs.ahead[ino] != nil || asked != nil && asked.tells(ino)
}
