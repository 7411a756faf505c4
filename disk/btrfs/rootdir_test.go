package btrfs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestRootdir compares images that mkfs.btrfs filled with the folder that it
// filled them from: sector sizes that the kernel of the test's host does not mount.
func TestRootdir(t *testing.T) {
	disktest.RequireRoot(t)
	source := t.TempDir()
	g := &disktest.Generator{T: t, Dir: source, Rand: rand.NewChaCha8([32]byte{2})}
	for _, n := range []int{0, 1, 100, 4096, 8191, 8192, 20_000, 65_536, 65_537, 1_000_000} {
		content := make([]byte, n)
		g.Rand.Read(content)
		g.SetXattr(g.File(fmt.Sprintf("size-%d", n), content), "user.n", []byte(fmt.Sprint(n)))
	}
	if err := os.MkdirAll(filepath.Join(source, "deep/er"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("t", 3000), filepath.Join(source, "deep/link")); err != nil {
		t.Fatal(err)
	}
	g.ACLs()
	full := withoutPlace(disktest.KernelTree(t, source))
	for _, size := range []int{8192, 16384, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			paths := makeImages(t, 1, 256<<20, "-s", fmt.Sprint(size), "-n", fmt.Sprint(size), "--rootdir", source)
			fs := openFilesystem(t, paths, btrfs.Options{})
			if got := fs.Info().BlockSize; got != int64(size) {
				t.Errorf("blocks of %d bytes", got)
			}
			disktest.CompareTrees(t, full, withoutPlace(disktest.ReadTree(t, fs)))
		})
	}
}

// withoutPlace forgets what a copy cannot keep: inode numbers and times, the size
// and the links of directories, and where exactly a file has holes.
func withoutPlace(all disktest.Tree) disktest.Tree {
	out := make(disktest.Tree)
	for path, n := range all {
		n.Ino, n.Times, n.Data = 0, "", ""
		if disktest.IsType(n.Mode, unix.S_IFDIR) {
			n.Size, n.Links = 0, 0
		}
		if path == "" {
			n = disktest.Node{}
		}
		out[path] = n
	}
	return out
}
