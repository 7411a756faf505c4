package guest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// makeSubvolumes makes a btrfs as installers do: the system in a subvolume, with
// a snapshot of it that looks the same.
func makeSubvolumes(t *testing.T, fstab string) *vm {
	t.Helper()
	v := &vm{t: t}
	device := testmount.Loop(v.t, v.addDisk(128<<20), 0, 0)
	disktest.Run(t, "mkfs.btrfs", "-q", "-L", "system", device)
	v.fill(device, "btrfs", func(dir string) {
		for _, s := range []string{"@", "@home", "@/nested", "@unused"} {
			disktest.Run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(dir, s))
		}
		must(t, os.MkdirAll(filepath.Join(dir, "@/etc"), 0o755))
		must(t, os.Mkdir(filepath.Join(dir, "@/home"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "@/etc/fstab"), []byte(fstab), 0o644))
		populate(t, filepath.Join(dir, "@home"), 1)
		populate(t, filepath.Join(dir, "@/nested"), 2)
		disktest.Run(t, "btrfs", "-q", "subvolume", "snapshot", filepath.Join(dir, "@"), filepath.Join(dir, "@snapshot"))
		disktest.Run(t, "btrfs", "-q", "subvolume", "snapshot", "-r", filepath.Join(dir, "@"), filepath.Join(dir, "0-read-only"))
	})
	return v
}

// TestSubvolumes finds the root in a subvolume, and what is mounted from others.
func TestSubvolumes(t *testing.T) {
	for name, c := range map[string]struct {
		fstab  string
		root   string // path of the subvolume
		mounts int
		remark string
	}{
		"by path":   {"LABEL=system / btrfs subvol=@ 0 0\nLABEL=system /home btrfs subvol=/@home 0 0\n", "@", 2, "3 subvolumes"},
		"by number": {"LABEL=system / btrfs subvolid=256 0 0\nLABEL=system /home btrfs subvolid=257,subvol=@home 0 0\n", "@", 2, "3 subvolumes"},
		"all of it": {"LABEL=system / btrfs subvol=@ 0 0\nLABEL=system /home btrfs subvolid=5 0 0\n", "@", 2, ""},
		"mismatch":  {"LABEL=system / btrfs subvol=@ 0 0\nLABEL=system /home btrfs subvolid=256,subvol=@home 0 0\n", "@", 1, "no such subvolume"},
		"no root":   {"LABEL=system /home btrfs subvol=@home 0 0\n", "@", 2, ""},
		"no number": {"LABEL=system / btrfs subvol=@ 0 0\nLABEL=system /home btrfs subvolid=x 0 0\n", "@", 1, "no such subvolume"},
	} {
		t.Run(name, func(t *testing.T) {
			l := makeSubvolumes(t, c.fstab).layout()
			g, err := guest.Open(l, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			fs, err := l.Open(0)
			if err != nil {
				t.Fatal(err)
			}
			list, err := fs.(disk.SubvolumeLister).Subvolumes()
			if err != nil {
				t.Fatal(err)
			}
			mounts := g.Mounts()
			for _, s := range list {
				if _, inner := guest.Split(mounts[0].Root); string(s.Path) == c.root && (s.ID != mounts[0].Subvolume || s.Root != inner) {
					t.Errorf("the root is subvolume %d, want %d", mounts[0].Subvolume, s.ID)
				}
			}
			if all := strings.Join(g.Info().Remarks, "\n"); len(mounts) != c.mounts || !strings.Contains(all, c.remark) {
				t.Errorf("mounts are %+v, remarks %q", mounts, all)
			}
			_, err = disk.Lookup(g, []byte("/home/hardlink"))
			if shown := name == "by path" || name == "by number" || name == "no root"; (err == nil) != shown {
				t.Errorf("/home: %v", err)
			}
			if _, err := disk.Lookup(g, []byte("/nested/hardlink")); err != nil {
				t.Errorf("a subvolume in the root: %v", err)
			}
		})
	}
}

// TestDefaultSubvolume finds the root in the default subvolume, which the fstab does not
// name, and shows all of the filesystem to who does not ask for a guest.
func TestDefaultSubvolume(t *testing.T) {
	v := makeSubvolumes(t, "LABEL=system / btrfs defaults 0 0\nLABEL=system /home btrfs subvol=@home 0 0\n")
	dir, unmount := disktest.Mount(t, v.images[0], "btrfs", "rw")
	disktest.Run(t, "btrfs", "subvolume", "set-default", filepath.Join(dir, "@"))
	unmount()
	l := v.layout()
	g, err := guest.Open(l, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if mounts := g.Mounts(); len(mounts) != 2 || mounts[0].Subvolume != 256 {
		t.Errorf("the mounts are %+v", mounts)
	}
	fs, err := l.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/@/etc/fstab", "/@home", "/@unused"} {
		if _, err := disk.Lookup(fs, []byte(path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
