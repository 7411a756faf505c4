package ext4_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestHighBlocks has inodes and a file behind block 2^32 of a disk of 5 TiB, so that
// the upper halves of block numbers matter.
func TestHighBlocks(t *testing.T) {
	path := makeImage(t, 5<<40, "-t", "ext4", "-b", "1024", "-C", "65536", "-N", "100000", "-O", "64bit,bigalloc,^has_journal,^resize_inode")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	source, err := os.Readlink("/sys/dev/block/" + deviceOf(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	goal := filepath.Join("/sys/fs/ext4", filepath.Base(source), "inode_goal")
	if err := os.WriteFile(goal, []byte("81900"), 0o644); err != nil { // of 81,920: in the last groups
		t.Fatal(err)
	}
	g := &disktest.Generator{T: t, Dir: dir}
	g.File("file", bytes.Repeat([]byte("content "), 2<<20/8)) // whole clusters: others go where there are some
	large := filepath.Join(dir, "large")
	if err := os.Mkdir(large, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := os.Link(dir+"/file", fmt.Sprintf("%s/%d%s", large, i, strings.Repeat("n", 100))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(strings.Repeat("t", 900), dir+"/symlink"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		g.SetXattr(dir+"/file", fmt.Sprintf("user.%d", i), []byte(strings.Repeat("v", 80)))
	}
	unmount()

	fs := openFilesystem(t, path)
	disktest.CompareWithKernel(t, path, "ext4", fs)
	content, err := fs.Open(disktest.Lookup(t, fs, "file"))
	if err != nil {
		t.Fatal(err)
	}
	high := false
	err = content.(disk.Locator).Locate(0, content.Size(), func(l disk.Location) error {
		high = high || l.At > 1<<42
		return nil
	})
	if err != nil || !high {
		t.Errorf("the file does not lie behind block 2^32: %v", err)
	}
}

// deviceOf is the number of the device that a folder lies on, as /sys has it.
func deviceOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
}
