package guest_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/internal/testguest"
)

// TestDebian reads a whole operating system off each filesystem, in a logical
// volume, in a GPT partition, in a compressed qcow2 image, and compares all of it
// with what the kernel sees.
func TestDebian(t *testing.T) {
	tar := testguest.DebianTar(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			path := disktest.EmptyImage(t, 3<<30)
			device := makeRootVolume(t, path)
			disktest.Run(t, "mkfs."+fstype, device)
			dir := t.TempDir()
			disktest.Run(t, "mount", device, dir)
			out, err := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "-xpf", tar).CombinedOutput()
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "etc/fstab"), []byte("/dev/mapper/guest-root / "+fstype+" defaults 0 1\n"), 0o644)
			}
			disktest.Run(t, "umount", dir)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			disktest.Run(t, "mount", "-o", "ro,noatime", device, dir)
			want := disktest.KernelTree(t, dir)
			disktest.Run(t, "umount", dir)
			disktest.Run(t, "losetup", "-d", device)

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

// makeRootVolume makes a GPT with one partition on the image at path, an LVM group
// in that and a volume in it, and returns a loop device of the volume's bytes: the
// kernel of the test need not have a device mapper.
func makeRootVolume(t *testing.T, path string) string {
	t.Helper()
	const first = 2048 // sector
	disktest.Run(t, "sgdisk", "-n", fmt.Sprintf("1:%d:0", first), "-t", "1:8e00", path)
	partition := attachPart(t, path, first*512, 0)
	lvm := disktest.NewLVM(t, partition)
	lvm.Run("pvcreate", "-y", partition)
	lvm.Run("vgcreate", "guest", partition)
	lvm.Create("-l", "100%FREE", "-n", "root", "guest")
	field := func(of, name string) int64 {
		var n int64
		text := strings.TrimSpace(lvm.Run(of, "--noheadings", "--units", "b", "--nosuffix", "-o", name))
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatalf("%s: %q: %v", name, text, err)
		}
		return n
	}
	start, size := field("pvs", "pe_start"), field("lvs", "lv_size")
	disktest.Run(t, "losetup", "-d", partition)
	return attachPart(t, path, first*512+start, size)
}

// attachPart makes a loop device of a part of an image; length 0 is all the rest.
func attachPart(t *testing.T, path string, off, length int64) string {
	t.Helper()
	args := []string{"-f", "--show", "-o", fmt.Sprint(off)}
	if length > 0 {
		args = append(args, "--sizelimit", fmt.Sprint(length))
	}
	device := strings.TrimSpace(string(disktest.Run(t, "losetup", append(args, path)...)))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() }) // detached already, as a rule
	return device
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
