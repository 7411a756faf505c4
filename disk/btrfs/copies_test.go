package btrfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// copyProfiles are the profiles, with how many devices a test gives them and how
// many copies of each byte there are.
var copyProfiles = []struct {
	name            string
	devices, copies int
	enough          int // that many devices always do
}{
	{"single", 2, 1, 2}, {"dup", 1, 2, 1}, {"raid0", 3, 1, 3}, {"raid1", 2, 2, 1}, {"raid1c3", 3, 3, 1}, {"raid1c4", 4, 4, 1}, {"raid10", 4, 2, 3},
}

// copyPlace is where a block lies.
type copyPlace struct {
	device int
	at     int64
}

// TestDataCopies damages one block of a file in some of its copies, or in all of
// them, and takes away each set of devices that there is.
func TestDataCopies(t *testing.T) {
	for _, p := range copyProfiles {
		t.Run(p.name, func(t *testing.T) {
			meta := p.name
			if meta == "single" {
				meta = "raid1"
			}
			paths := makeImages(t, p.devices, 256<<20, "-m", meta, "-d", p.name)
			dir, unmount := mount(t, paths, "rw")
			content := make([]byte, 600_000)
			rand.NewChaCha8([32]byte{3}).Read(content)
			c := &crash{t: t, dir: dir}
			c.write("data", string(content))
			c.write("other", "x")
			unmount()
			want := withoutSubvolume(kernelTree(t, paths, ""))
			for _, block := range []int64{0, 40, 146} {
				damageCopies(t, paths, content, block, p.copies)
			}
			loseDevices(t, paths, want, p.enough)
		})
	}
}

// damageCopies damages a block in each set of its copies.
func damageCopies(t *testing.T, paths []string, content []byte, block int64, copies int) {
	t.Helper()
	off := block * 4096
	piece := content[off:min(off+4096, int64(len(content)))]
	places := findCopies(t, paths, piece)
	if len(places) != copies {
		t.Fatalf("block %d is at %v", block, places)
	}
	for set := 1; set < 1<<copies; set++ {
		devices := openImages(t, paths)
		for i, at := range places {
			if set&(1<<i) != 0 { // of DUP, both may be on one device
				devices[at.device] = damagedByte{devices[at.device], at.at + 10}
			}
		}
		fs, err := btrfs.Open(devices, btrfs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f := openFile(t, fs, "data")
		got := make([]byte, len(content))
		n, err := f.ReadAt(got, 0)
		if set != 1<<copies-1 {
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("block %d, copies %b are bad: %d bytes, %v", block, set, n, err)
			}
			continue
		}
		checkRefused(t, err, disk.ErrCorrupt, fmt.Sprintf("byte %d of the file, is wrong", off))
		if !bytes.Equal(got[:n], content[:n]) {
			t.Errorf("block %d: what is before it is wrong", block)
		}
		next := off + int64(len(piece))
		if n, err := f.ReadAt(got[next:], next); next+int64(n) != int64(len(got)) || !bytes.Equal(got[next:], content[next:]) {
			t.Errorf("block %d: %d bytes behind it: %v", block, n, err)
		}
	}
}

// findCopies returns where images have some content, which starts with a block.
func findCopies(t *testing.T, paths []string, piece []byte) (list []copyPlace) {
	t.Helper()
	fs := openFilesystem(t, paths, btrfs.Options{})
	for i, d := range openImages(t, paths) {
		err := fs.Used(i, func(off, length int64) error {
			raw := make([]byte, length)
			if n, err := d.ReadAt(raw, off); n < len(raw) {
				return err
			}
			for at := int64(0); at < length; at += 4096 {
				if bytes.HasPrefix(raw[at:], piece) {
					list = append(list, copyPlace{i, off + at})
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// damagedByte is a device with one wrong byte.
type damagedByte struct {
	disk.Sparse
	at int64
}

func (d damagedByte) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Sparse.ReadAt(p, off)
	if i := d.at - off; i >= 0 && i < int64(n) {
		p[i] ^= 0x10
	}
	return n, err
}

// loseDevices opens each set of the devices: what opens must be all there.
func loseDevices(t *testing.T, paths []string, want disktest.Tree, enough int) {
	t.Helper()
	for set := 1; set < 1<<len(paths); set++ {
		var some []string
		for i, path := range paths {
			if set&(1<<i) != 0 {
				some = append(some, path)
			}
		}
		fs, err := btrfs.Open(openImages(t, some), btrfs.Options{})
		if err == nil {
			disktest.CompareTrees(t, want, withoutSubvolume(disktest.ReadTree(t, fs)))
			if missing := len(paths) - len(some); len(fs.Info().Remarks) != missing {
				t.Errorf("devices %b: remarks are %q", set, fs.Info().Remarks)
			}
			continue
		}
		if len(some) >= enough {
			t.Errorf("devices %b: %v", set, err)
		}
		var detail *disk.Error
		if !errors.Is(err, disk.ErrCorrupt) || !errors.As(err, &detail) || !strings.Contains(detail.Detail, "missing") || detail.Offset < 0 || detail.Hint == "" {
			t.Errorf("devices %b: %v", set, err)
		}
	}
}

// TestBalanced moves all that there is to other places, profiles and devices, and
// compares with the kernel after each move.
func TestBalanced(t *testing.T) {
	paths := makeImages(t, 3, 4<<30, "-m", "raid1", "-d", "raid0")
	spare := disktest.EmptyImage(t, 4<<30)
	writeBalanced(t, paths)
	for _, move := range []struct {
		name string
		run  func(dir string)
	}{
		{"another device", func(dir string) {
			disktest.Run(t, "btrfs", "replace", "start", "-B", "-f", "2", testmount.Loop(t, spare, 0, 0), dir)
			paths[1] = spare
		}},
		{"data to raid1, metadata to raid1c3", func(dir string) {
			disktest.Run(t, "btrfs", "balance", "start", "-f", "-dconvert=raid1", "-mconvert=raid1c3", "-sconvert=raid1c3", dir)
		}},
		{"everything elsewhere", func(dir string) { disktest.Run(t, "btrfs", "balance", "start", "--full-balance", dir) }},
		{"half to single", func(dir string) {
			disktest.Run(t, "btrfs", "balance", "start", "-f", "-dconvert=single,limit=1", "-mconvert=raid1", "-sconvert=raid1", dir)
		}},
		{"one device less", func(dir string) {
			disktest.Run(t, "btrfs", "device", "remove", "3", dir)
			paths = paths[:2]
		}},
		{"less than the whole device", func(dir string) { disktest.Run(t, "btrfs", "filesystem", "resize", "2:3500m", dir) }},
	} {
		dir, unmount := mount(t, paths, "rw")
		c := &crash{t: t, dir: dir}
		move.run(dir)
		c.write(move.name, move.name)
		c.write("sub/"+move.name, strings.Repeat(move.name, 10_000))
		unmount()
		fs := openFilesystem(t, paths, btrfs.Options{})
		t.Log(move.name)
		compare(t, paths, fs, "")
		checkUsage(t, fs, paths)
	}
}

// writeBalanced writes some of everything that a balance moves in its own way.
func writeBalanced(t *testing.T, paths []string) {
	t.Helper()
	dir, unmount := mount(t, paths, "compress=zstd,max_inline=2048")
	c := &crash{t: t, dir: dir}
	disktest.Run(t, "btrfs", "subvolume", "create", c.path("sub"))
	for i := range 300 {
		c.write(fmt.Sprintf("sub/%d", i), strings.Repeat(fmt.Sprint(i, " "), i*i%7000))
	}
	disktest.Run(t, "btrfs", "subvolume", "snapshot", c.path("sub"), c.path("snapshot"))
	noise := make([]byte, 9_000_000)
	rand.NewChaCha8([32]byte{8}).Read(noise)
	c.write("noise", string(noise))
	disktest.Run(t, "cp", "--reflink=always", c.path("noise"), c.path("sub/noise"))
	c.writeAt("noise", "another", 1_000_001)
	c.write("nodatacow", "")
	disktest.Run(t, "chattr", "+C", c.path("nodatacow"))
	c.writeAt("nodatacow", string(noise[:100_000]), 0)
	c.fallocate("nodatacow", 0, 200_000, 300_000)
	unmount()
}
