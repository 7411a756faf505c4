package btrfs_test

import (
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// makeImages makes count sparse images of size bytes and one filesystem on them.
func makeImages(t testing.TB, count int, size int64, mkfs ...string) []string {
	t.Helper()
	var paths []string
	for range count {
		paths = append(paths, disktest.EmptyImage(t, size))
	}
	disktest.Run(t, "mkfs.btrfs", append(append([]string{"-q", "-f"}, mkfs...), paths...)...)
	return paths
}

// mount mounts the filesystem on some images, until unmount is called. Further
// devices than the first stay attached until then.
func mount(t testing.TB, paths []string, options string) (dir string, unmount func()) {
	t.Helper()
	var loops []string
	for _, path := range paths[1:] {
		loop := testmount.Loop(t, path, 0, 0)
		loops = append(loops, loop)
		options += ",device=" + loop
	}
	dir, unmountFirst := disktest.Mount(t, paths[0], "btrfs", options)
	detach := func() {
		unmountFirst()
		for _, loop := range loops {
			testmount.Detach(t, loop)
		}
		loops = nil
	}
	t.Cleanup(detach)
	return dir, detach
}

// kernelTree is what the kernel sees of a filesystem on some images.
func kernelTree(t testing.TB, paths []string, options string) disktest.Tree {
	t.Helper()
	dir, unmount := mount(t, paths, strings.TrimSuffix("ro,noatime,"+options, ","))
	defer unmount()
	return disktest.KernelTree(t, dir)
}

func openImages(t testing.TB, paths []string) []disk.Sparse {
	t.Helper()
	var devices []disk.Sparse
	for _, path := range paths {
		devices = append(devices, disktest.OpenImage(t, path))
	}
	return devices
}

func openFilesystem(t testing.TB, paths []string, opts btrfs.Options) *btrfs.Filesystem {
	t.Helper()
	fs, err := btrfs.Open(openImages(t, paths), opts)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// open is [btrfs.Open] of one device with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) {
	return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
}

const (
	objectMask = 1<<disk.SubvolumeShift - 1
	firstStub  = objectMask - 0xffff
)

// withoutSubvolume makes inode numbers those of a subvolume, as the kernel shows
// them. What stands for a subvolume that is not there has the number 2, and times
// of the kernel's clock.
func withoutSubvolume(all disktest.Tree) disktest.Tree {
	for path, n := range all {
		if n.Ino &= objectMask; n.Ino >= firstStub {
			n.Ino = 2
		}
		if n.Ino == 2 {
			n.Times = ""
		}
		all[path] = n
	}
	return all
}

// compare compares what we see with what the kernel sees.
func compare(t *testing.T, paths []string, fs disk.Filesystem, options string) {
	t.Helper()
	want := withoutSubvolume(kernelTree(t, paths, options))
	disktest.CompareTrees(t, want, withoutSubvolume(disktest.ReadTree(t, fs)))
}

func openMany(devices ...disk.Sparse) []disk.Sparse { return devices }
