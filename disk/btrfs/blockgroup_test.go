package btrfs_test

import (
	"io"
	"os"
	"testing"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestBlockGroupTree has the block groups in a tree of their own, where extents have
// their owners, too ("squota"). To make the images anew takes btrfs-progs 6.7.
func TestBlockGroupTree(t *testing.T) {
	common := []string{"-M", "-n", "4096", "-m", "single", "-d", "single"}
	for _, s := range []struct {
		name  string
		mkfs  []string
		after string // what btrfstune does
	}{
		{"groups", []string{"-O", "block-group-tree,squota"}, ""},
		{"converted", nil, "--convert-to-block-group-tree"},
	} {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, false, append(s.mkfs, common...), s.after)
			}
			path := saveImage(t, disktest.LoadSeed(t, s.name))
			paths := []string{path}
			compare(t, paths, openFilesystem(t, paths, btrfs.Options{}), "")
			used := checkUsage(t, openFilesystem(t, paths, btrfs.Options{}), paths)
			if used < 1<<20 || used > seedSize/4 {
				t.Errorf("%d bytes are in use", used)
			}
			keepUsed(t, openFilesystem(t, paths, btrfs.Options{}), 0, path)
			compare(t, paths, openFilesystem(t, paths, btrfs.Options{}), "")
		})
	}
}

// saveImage writes an image to a file.
func saveImage(t *testing.T, m disktest.Image) string {
	t.Helper()
	path := disktest.EmptyImage(t, m.Length)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(m, 0, m.Length)); err != nil {
		t.Fatal(err)
	}
	return path
}
