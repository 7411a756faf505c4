package layout_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seeds are small disks with all layers: each is an image in testdata.
var seeds = []struct {
	name    string
	volumes []string // that hold a filesystem
	make    func(t *testing.T, path string)
}{
	{"gpt", []string{"vda-part1", "vda-part3"}, func(t *testing.T, path string) {
		disktest.Run(t, "sgdisk", "-a", "1", "-n", "1:40:+256K", "-n", "3:0:+128K", "-c", "3:third", path)
		for i, mkfs := range [][]string{{"mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal"}, {"mkfs.fat", "-F", "12"}} {
			p := readSfdisk(t, path).Table.Partitions[i]
			disktest.Run(t, mkfs[0], append(mkfs[1:], testmount.Loop(t, path, p.Start*512, p.Size*512))...)
		}
	}},
	{"lvm", []string{"vg/root"}, func(t *testing.T, path string) {
		device := testmount.Loop(t, path, 0, 0)
		tools := testlvm.New(t, device)
		tools.Run("pvcreate", "--metadatasize", "8k", "--dataalignment", "64k", device)
		tools.Run("vgcreate", "-s", "4k", "vg", device)
		tools.Create("-n", "root", "-L", "256K", "vg")
		tools.Create("-n", "empty", "-L", "16K", "vg")
		disktest.Run(t, "mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", testmount.Loop(t, path, 64<<10, 256<<10))
	}},
	{"mbr", []string{"vda-part1", "vda-part5"}, func(t *testing.T, path string) {
		if err := os.WriteFile(path+".sfdisk", []byte("label: dos\nstart=8,size=400,type=83\nstart=408,size=600,type=5\nstart=416,size=400,type=83\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "sh", "-c", `sfdisk -q "$1" < "$1.sfdisk"`, "sh", path)
		for _, start := range []int64{8, 416} {
			disktest.Run(t, "mkfs.ext2", "-q", "-b", "1024", testmount.Loop(t, path, start*512, 400*512))
		}
	}},
}

// TestSeeds fails if a seed is missing, or does not hold what it should.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				t.Run("make", func(t *testing.T) {
					path := disktest.EmptyImage(t, 1<<20)
					t.Run("content", func(t *testing.T) { s.make(t, path) })
					disktest.SaveSeed(t, s.name, path)
				})
			}
			l, err := layout.Read([]layout.Disk{{Name: "vda", Content: disktest.LoadSeed(t, s.name)}})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range s.volumes {
				i, v := find(t, l, name)
				if _, err := l.Open(i); err != nil || !v.Readable {
					t.Errorf("%+v: %v", v, err)
				}
			}
		})
	}
}

// describe reads a disk twice over, and returns all that is said of it. It fails
// a test where that breaks the promises of the package.
func describe(t *testing.T, d disk.Sparse) string {
	t.Helper()
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	var out string
	for i, v := range l.Volumes() {
		out += fmt.Sprintf("%+v\n", v)
		var detail *disk.Error
		if v.Err != nil && (!errors.As(v.Err, &detail) || detail.Structure == "") {
			t.Errorf("%s: not a disk.Error: %v", v.Name, v.Err)
		}
		if seen[v.Name] || v.Size < 0 || v.Readable && v.Err != nil {
			t.Errorf("%+v", v)
		}
		seen[v.Name] = true
		if b, err := l.Bytes(i); err == nil {
			checkLocate(t, v, b, d)
		}
		if _, err := l.Open(i); (err == nil) != v.Readable {
			t.Errorf("%+v opens with %v", v, err)
		}
	}
	return out
}

// checkLocate compares a piece of a volume with where it lies on the one disk.
func checkLocate(t *testing.T, v layout.Volume, b, d disk.Sparse) {
	t.Helper()
	if b.Size() != v.Size {
		t.Errorf("%s has %d bytes, and %d", v.Name, v.Size, b.Size())
	}
	length := min(b.Size(), 1500)
	got := make([]byte, length)
	n, err := b.ReadAt(got, b.Size()-length)
	if int64(n) != length {
		t.Errorf("%s: the end cannot be read: %v", v.Name, err)
		return
	}
	err = b.(disk.Locator).Locate(b.Size()-length, length, func(at disk.Location) error {
		want := make([]byte, at.Length)
		if n, err := d.ReadAt(want, at.At); int64(n) != at.Length {
			return err
		}
		if from := at.Offset - (b.Size() - length); string(want) != string(got[from:from+at.Length]) {
			return errors.New("other content")
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", v.Name, err)
	}
}

// FuzzRead changes the seeds as [disktest.Mutate] does.
func FuzzRead(f *testing.F) {
	for i := range seeds {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 4, 0x38, 1, 2, 3, 4})
	}
	images := make(map[byte]disktest.Image)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		which %= byte(len(seeds))
		if _, ok := images[which]; !ok {
			images[which] = disktest.LoadSeed(t, seeds[which].name)
		}
		d := disktest.Mutate(images[which], input)
		if first, second := describe(t, d), describe(t, d); first != second {
			t.Errorf("two reads differ:\n%s\n%s", first, second)
		}
	})
}
