package guest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

const fstab = `# what is mounted where
/dev/mapper/my--vg-root / ext4 defaults 0 1
UUID=11111111-2222-3333-4444-555555555555 /boot ext4 defaults 0 2
LABEL=homes /home xfs defaults,nofail 0 2
/dev/vdc	/srv/with\040space btrfs subvol=@data,noatime 0 0
/dev/disk/by-uuid/aaaaaaaa-2222-3333-4444-555555555555 /var/log btrfs subvol=/@logs/deep 0 0
PARTLABEL=swap none swap sw 0 0
tmpfs /tmp tmpfs defaults 0 0
/srv/with\040space/dir-5-0 /home/bound none bind 0 0
/home/hardlink /etc/motd none bind 0 0
server:/export /mnt nfs defaults 0 0
PARTUUID=00000000-0000-0000-0000-000000000000 /absent ext4 nofail 0 0
/dev/my-vg/spare /spare ext4 noauto 0 0
this is
`

// makeVM makes three disks: one with /boot and a physical volume, one that is a
// physical volume, and one that is a btrfs with subvolumes.
func makeVM(t *testing.T) (v *vm, mountAll func(dir string)) {
	v = &vm{t: t}
	first, second, third := v.addDisk(200<<20), v.addDisk(400<<20), v.addDisk(200<<20)
	disktest.Run(t, "sgdisk", "-n", "1:0:+1M", "-t", "1:ef02", "-n", "2:0:+40M", "-n", "3:0:+10M", "-c", "3:swap", "-n", "4:0:0", "-t", "4:8e00", first)
	bootOff, bootSize := partitionStart(t, first, 2)
	swapOff, swapSize := partitionStart(t, first, 3)
	pvOff, pvSize := partitionStart(t, first, 4)
	boot, swap, pv1, pv2 := testmount.Loop(v.t, first, bootOff, bootSize), testmount.Loop(v.t, first, swapOff, swapSize), testmount.Loop(v.t, first, pvOff, pvSize), testmount.Loop(v.t, second, 0, 0)
	disktest.Run(t, "mkswap", "-q", swap)

	tools := testlvm.New(t, pv1, pv2)
	tools.Run("vgcreate", "my-vg", pv1, pv2)
	tools.Create("-n", "root", "-L", "64M", "my-vg", pv1)
	tools.Create("-n", "home", "-L", "320M", "my-vg", pv2)
	tools.Create("-n", "spare", "-L", "16M", "my-vg", pv1)
	logical := func(name string) string {
		device, off, size := volume(t, tools, "my-vg/"+name)
		if device == pv1 {
			return testmount.Loop(v.t, first, pvOff+off, size)
		}
		return testmount.Loop(v.t, second, off, size)
	}
	root, home, spare, data := logical("root"), logical("home"), logical("spare"), testmount.Loop(v.t, third, 0, 0)
	disktest.Run(t, "mkfs.ext4", "-q", root)
	disktest.Run(t, "mkfs.ext4", "-q", spare)
	disktest.Run(t, "mkfs.ext4", "-q", "-U", "11111111-2222-3333-4444-555555555555", boot)
	disktest.Run(t, "mkfs.xfs", "-q", "-L", "homes", home)
	disktest.Run(t, "mkfs.btrfs", "-q", "-U", "aaaaaaaa-2222-3333-4444-555555555555", data)

	v.fill(root, "ext4", func(dir string) {
		populate(t, dir, 1)
		for _, d := range []string{"boot/hidden", "home/hidden", "etc", "srv/with space/hidden", "run", "mnt", "spare"} {
			v.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
		}
		v.must(os.MkdirAll(filepath.Join(dir, "run/log"), 0o755))
		v.must(os.Symlink("/run", filepath.Join(dir, "var")))
		v.must(os.WriteFile(filepath.Join(dir, "etc/motd"), []byte("hidden"), 0o644))
		v.must(os.WriteFile(filepath.Join(dir, "etc/fstab.real"), []byte(fstab), 0o644))
		v.must(os.Symlink("../etc/./fstab.real", filepath.Join(dir, "etc/fstab")))
	})
	v.fill(boot, "ext4", func(dir string) { populate(t, dir, 2) })
	v.fill(home, "xfs", func(dir string) {
		populate(t, dir, 3)
		v.must(os.Mkdir(filepath.Join(dir, "bound"), 0o700))
	})
	v.fill(data, "btrfs", func(dir string) {
		disktest.Run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(dir, "@data"))
		disktest.Run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(dir, "@logs"))
		disktest.Run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(dir, "@logs/deep"))
		populate(t, dir, 4)
		populate(t, filepath.Join(dir, "@data"), 5)
		populate(t, filepath.Join(dir, "@logs/deep"), 6)
	})
	return v, func(dir string) {
		testmount.At(t, root, dir, "-t", "ext4", "-o", "ro")
		testmount.At(t, boot, dir+"/boot", "-t", "ext4", "-o", "ro")
		testmount.At(t, home, dir+"/home", "-t", "xfs", "-o", "ro")
		testmount.At(t, data, dir+"/srv/with space", "-t", "btrfs", "-o", "ro,subvol=@data")
		testmount.At(t, data, dir+"/run/log", "-t", "btrfs", "-o", "ro,subvol=/@logs/deep")
		testmount.At(t, dir+"/srv/with space/dir-5-0", dir+"/home/bound", "--bind")
		testmount.At(t, dir+"/home/hardlink", dir+"/etc/motd", "--bind")
	}
}

// fill mounts a device and has its files written.
func (v *vm) fill(device, kind string, write func(dir string)) {
	v.t.Helper()
	dir := v.t.TempDir()
	unmount := testmount.At(v.t, device, dir, "-t", kind)
	write(dir)
	unmount()
}

// TestKernel compares a tree with what the kernel has where the same volumes are
// mounted in the same way.
func TestKernel(t *testing.T) {
	v, mountAll := makeVM(t)
	dir := t.TempDir()
	mountAll(dir)
	want := disktest.KernelTree(t, dir)

	g, err := guest.Open(v.layout(), guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := disktest.ReadTree(t, g)
	for path, n := range got {
		_, n.Ino = guest.Split(n.Ino)
		n.Ino &= 1<<disk.SubvolumeShift - 1
		got[path] = n
	}
	disktest.CompareTrees(t, want, got)
	checkMounts(t, g)
	checkRemarks(t, g.Info().Remarks, "/mnt", "/absent", "on demand only", "1 lines", "1 subvolumes")
}

func checkMounts(t *testing.T, g *guest.Filesystem) {
	t.Helper()
	var paths []string
	for i, m := range g.Mounts() {
		paths = append(paths, string(m.Path))
		if number, _ := guest.Split(m.Root); number != i || m.Source == "" {
			t.Errorf("mount %d: %+v", i, m)
		}
		inode, err := disk.Lookup(g, m.Path)
		if i > 0 && string(m.Path) != "/var/log" && (err != nil || inode.Ino != m.Root) {
			t.Errorf("%s is %#x, not %#x: %v", m.Path, inode.Ino, m.Root, err)
		}
	}
	want := []string{"/", "/boot", "/home", "/srv/with space", "/var/log", "/etc/motd", "/home/bound"}
	if slices.Sort(paths); !slices.Equal(paths, slices.Sorted(slices.Values(want))) {
		t.Errorf("mounts are %q, want %q", paths, want)
	}
}

// checkRemarks checks that each of some words is in just one remark, and that
// there are no others.
func checkRemarks(t *testing.T, remarks []string, words ...string) {
	t.Helper()
	for _, w := range words {
		n := 0
		for _, r := range remarks {
			if strings.Contains(r, w) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d remarks about %q", n, w)
		}
	}
	if len(remarks) != len(words) {
		t.Errorf("remarks are %q", remarks)
	}
}
