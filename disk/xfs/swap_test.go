package xfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestSwappedExtents leaves in the log that two files swapped their blocks, as
// xfs_fsr(8) does: then the blocks of their B+trees belong to the other file. The
// kernel of the test's host cannot replay this (its check of the inode comes
// before it makes the checksum): what it shows before the crash is the truth.
func TestSwappedExtents(t *testing.T) {
	for _, options := range [][]string{{"-m", "rmapbt=0"}, {"-m", "rmapbt=1"}} {
		path := makeImage(t, 320<<20, options...)
		dir, unmount := disktest.Mount(t, path, "xfs", "noatime")
		fragmented, donor := filepath.Join(dir, "fragmented"), filepath.Join(dir, "donor")
		for _, name := range []string{fragmented, donor} {
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			for i := range int64(300) {
				if _, err := f.WriteAt(bytes.Repeat([]byte{name[len(name)-1], byte(i)}, 50), i*8192); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		unmount() // so that the blocks of the trees are not in the log anyway
		dir, _ = disktest.Mount(t, path, "xfs", "noatime")
		fragmented, donor = filepath.Join(dir, "fragmented"), filepath.Join(dir, "donor")
		disktest.Run(t, "xfs_io", "-c", "swapext "+donor, fragmented)
		disktest.Run(t, "xfs_io", "-c", "fsync", fragmented)
		disktest.Run(t, "xfs_io", "-c", "fsync", donor)
		want := disktest.KernelTree(t, dir)
		copied := disktest.CopyImage(t, path)
		fs := openFilesystem(t, copied)
		if fs.Replayed() == 0 {
			t.Error("nothing was replayed")
		}
		disktest.CompareTrees(t, want, disktest.ReadTree(t, fs))
	}
}
