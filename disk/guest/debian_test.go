package guest_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestDebian reads a whole operating system off each filesystem, in a logical
// volume, in a GPT partition, in a compressed qcow2 image, and compares all of it
// with what the kernel sees.
func TestDebian(t *testing.T) {
	tar := testguest.DebianTar(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			path := disktest.EmptyImage(t, 3<<30)
			device := testlvm.Volume(t, path, "guest", "root")
			disktest.Run(t, "mkfs."+fstype, device)
			dir := t.TempDir()
			unmount := testmount.At(t, device, dir)
			out, err := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "-xpf", tar).CombinedOutput()
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "etc/fstab"), []byte("/dev/mapper/guest-root / "+fstype+" defaults 0 1\n"), 0o644)
			}
			unmount()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			unmount = testmount.At(t, device, dir, "-o", "ro,noatime")
			want := disktest.KernelTree(t, dir)
			unmount()
			testmount.Detach(t, device)

			got := disktest.ReadTree(t, openGuest(t, path))
			if len(want) < 30_000 {
				t.Errorf("%d files are no operating system", len(want))
			}
			disktest.CompareTrees(t, placeless(want), placeless(got))
			t.Logf("%d files", len(got))
		})
	}
}

// placeless forgets inode numbers, which those of a composed tree are not, but
// keeps which names are of one file.
func placeless(all disktest.Tree) disktest.Tree {
	first := make(map[uint64]uint64)
	out := make(disktest.Tree, len(all))
	for _, path := range slices.Sorted(maps.Keys(all)) {
		n := all[path]
		if first[n.Ino] == 0 {
			first[n.Ino] = uint64(len(first) + 1)
		}
		n.Ino = first[n.Ino]
		out[path] = n
	}
	return out
}

// openGuest compresses a raw image into a qcow2, and opens what the guest on it
// sees.
func openGuest(t *testing.T, path string) disk.Filesystem {
	t.Helper()
	compressed := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "convert", "-c", "-m", "4", "-W", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", path, compressed)
	if err := os.Remove(path); err != nil { // three of them would fill a small disk
		t.Fatal(err)
	}
	f, size := disktest.OpenFile(t, compressed)
	image, err := qcow2.Open(f, size, qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: image}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := guest.Open(l, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m := g.Mounts(); len(m) != 1 || l.Volumes()[m[0].Volume].Name != "guest/root" {
		t.Errorf("the guest is made of %+v", m)
	}
	return g
}
