package guest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

var update = flag.Bool("update", false, "make the image in testdata anew")

const seed = "stack"

// TestSeed fails if the seed is missing, or does not hold a tree of three mounts:
// a root in a volume group, a /boot in a partition, and a folder of that again.
func TestSeed(t *testing.T) {
	if *update {
		t.Run("make", writeSeed)
	}
	g, err := guest.Open(layoutOf(t, disktest.LoadSeed(t, seed)), guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Mounts()) != 3 || len(g.Info().Remarks) != 0 {
		t.Errorf("%+v, %q", g.Mounts(), g.Info().Remarks)
	}
	for _, path := range []string{"/etc/fstab", "/boot/grub/kernel", "/srv/kernel"} {
		if _, err := disk.Lookup(g, []byte(path)); err != nil {
			t.Error(err)
		}
	}
	if _, err := disk.Lookup(g, []byte("/boot/hidden")); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("what a mount hides: %v", err)
	}
	disktest.CheckContract(t, g)
}

func writeSeed(t *testing.T) {
	image := disktest.EmptyImage(t, 2<<20)
	t.Run("content", func(t *testing.T) {
		disktest.Run(t, "sgdisk", "-a", "1", "-n", "1:40:+256K", "-n", "2:0:0", image)
		v := &vm{t: t}
		off, size := partitionStart(t, image, 1)
		pvOff, pvSize := partitionStart(t, image, 2)
		pv := testmount.Loop(v.t, image, pvOff, pvSize)
		tools := testlvm.New(t, pv)
		tools.Run("pvcreate", "--metadatasize", "8k", "--dataalignment", "64k", pv)
		tools.Run("vgcreate", "-s", "4k", "vg", pv)
		tools.Create("-n", "root", "-L", "512K", "vg")
		_, lvOff, lvSize := volume(t, tools, "vg/root")
		mkfs := func(device string, write func(dir string)) {
			dir := t.TempDir()
			write(dir)
			disktest.Run(t, "mkfs.ext4", "-q", "-b", "1024", "-N", "32", "-O", "^has_journal", "-d", dir, device)
		}
		mkfs(testmount.Loop(v.t, image, pvOff+lvOff, lvSize), func(dir string) {
			for _, d := range []string{"etc", "boot/hidden", "srv"} {
				must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
			}
			must(t, os.WriteFile(filepath.Join(dir, "etc/fstab"), []byte("/dev/mapper/vg-root / ext4\n/dev/vda1 /boot ext4\n/boot/grub /srv none bind\n"), 0o644))
		})
		mkfs(testmount.Loop(v.t, image, off, size), func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "grub"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "grub/kernel"), []byte("kernel"), 0o644))
		})
	})
	disktest.SaveSeed(t, seed, image)
}

// read opens what is on a disk, and reads all of the tree.
func read(t *testing.T, d disk.Sparse) string {
	t.Helper()
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := guest.Open(l, guest.Options{})
	if err != nil {
		var detail *disk.Error
		if !errors.As(err, &detail) || detail.Structure == "" {
			t.Errorf("not a disk.Error: %v", err)
		}
		return err.Error()
	}
	if len(g.Mounts()) > guest.MaxMounts {
		t.Errorf("%d mounts", len(g.Mounts()))
	}
	var lines []string
	err = disktest.WalkLeniently(g, func(path string, n disktest.Node) {
		if m, _ := guest.Split(n.Ino); m >= len(g.Mounts()) {
			t.Errorf("%q is in mount %d of %d", path, m, len(g.Mounts()))
		}
		lines = append(lines, fmt.Sprintf("%q %+v", path, n))
	})
	slices.Sort(lines)
	return fmt.Sprint(lines, g.Mounts(), g.Info(), err == nil)
}

// FuzzStack changes a disk with all layers as [disktest.Mutate] does, and replaces
// the text of its fstab.
func FuzzStack(f *testing.F) {
	f.Add([]byte{}, "")
	f.Add([]byte{4, 0, 56, 1, 2, 3, 4}, "")
	f.Add([]byte{}, "/dev/vda1 /boot/../srv auto\n/srv / none bind")
	var m disktest.Image
	var at int64
	f.Fuzz(func(t *testing.T, input []byte, fstab string) {
		if m.ReaderAt == nil {
			m = disktest.LoadSeed(t, seed)
			at = findFstab(t, m)
		}
		d := m
		if fstab != "" {
			const room = 70 // what the text has in its file
			text := make([]byte, room)
			for i := range text {
				text[i] = '\n'
			}
			copy(text, fstab)
			d = disktest.Image{ReaderAt: disktest.Patched{Image: m, Off: at, Data: text}, Length: m.Length}
		}
		changed := disktest.Mutate(d, input)
		if first, second := read(t, changed), read(t, changed); first != second {
			t.Errorf("two reads differ:\n%s\n%s", first, second)
		}
	})
}

// findFstab returns where the content of the seed's fstab lies.
func findFstab(t *testing.T, m disktest.Image) int64 {
	t.Helper()
	l := layoutOf(t, m)
	i, err := l.Find("vg/root")
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Bytes(i)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, b.Size())
	if _, err := b.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	in := int64(0)
	for !bytes.HasPrefix(content[in:], []byte("/dev/mapper/")) {
		in += 1024
	}
	var at int64
	err = b.(disk.Locator).Locate(in, 1, func(l disk.Location) error {
		at = l.At
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}
