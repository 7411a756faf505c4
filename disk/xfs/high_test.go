package xfs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestHighNumbers has directories in all groups of a disk of 12 TiB: inode numbers
// and block numbers of more than 32 bits, in entries of all kinds, and in extents whose
// block number lies in both words of the record.
func TestHighNumbers(t *testing.T) {
	path := makeImage(t, 12<<40, "-b", "size=1024", "-d", "agcount=24", "-l", "size=64m")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw,inode64")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 { // each goes to the next group
		sub := filepath.Join(dir, fmt.Sprintf("directory-%d", i))
		must(os.Mkdir(sub, 0o755))
		g := &disktest.Generator{T: t, Dir: sub}
		file := g.File("file", bytes.Repeat([]byte{byte(i)}, 30_000))
		g.SetXattr(file, "user.large", bytes.Repeat([]byte{byte(i)}, 3000))
		must(os.Symlink(strings.Repeat("t", 900), filepath.Join(sub, "symlink")))
		must(os.Link(file, filepath.Join(dir, fmt.Sprintf("link-%d", i))))
		for k := range i * 4 { // in the inode, in a block, in several
			g.File(fmt.Sprintf("empty-%d", k), nil)
		}
	}
	// Large and small numbers in one directory in its inode.
	mixed := filepath.Join(dir, "directory-0", "mixed")
	must(os.Mkdir(mixed, 0o755))
	for _, i := range []int{0, 29, 12} {
		must(os.Link(filepath.Join(dir, fmt.Sprintf("link-%d", i)), filepath.Join(mixed, fmt.Sprint(i))))
	}
	unmount()
	compareClean(t, path)
	fs := openFilesystem(t, path)
	large := 0
	for i := range 30 {
		if disktest.Lookup(t, fs, fmt.Sprintf("link-%d", i)) > 1<<32 {
			large++
		}
	}
	if large == 0 || large == 30 {
		t.Errorf("%d of 30 inodes have large numbers", large)
	}
	if err := fs.Used(0, func(int64, int64) error { return nil }); err != nil {
		t.Error(err)
	}
}
