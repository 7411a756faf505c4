package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestUnlinkedOpen crashes with files and a subvolume that were deleted while they
// were open: they are on the disk, and nowhere in the tree.
func TestUnlinkedOpen(t *testing.T) {
	paths := makeImages(t, 1, 256<<20)
	dir, unmount := mount(t, paths, "commit=300,user_subvol_rm_allowed")
	c := &crash{t: t, dir: dir}
	disktest.Run(t, "btrfs", "subvolume", "create", c.path("doomed"))
	disktest.Run(t, "btrfs", "subvolume", "create", c.path("kept"))
	var open []*os.File
	var numbers []uint64
	for _, name := range []string{"file", "kept/file", "doomed/file", "kept/dir", "doomed/left"} {
		if strings.HasSuffix(name, "dir") {
			c.must(os.Mkdir(c.path(name), 0o755))
		} else {
			c.write(name, strings.Repeat(name, 5000))
		}
		f, err := os.Open(c.path(name))
		c.must(err)
		defer f.Close()
		open = append(open, f)
		var st unix.Stat_t
		c.must(unix.Fstat(int(f.Fd()), &st))
		numbers = append(numbers, st.Ino)
		if name != "doomed/left" {
			c.must(os.Remove(c.path(name)))
		}
	}
	c.write("kept/linked", "x")
	c.must(os.Link(c.path("kept/linked"), c.path("kept/other")))
	c.must(os.Remove(c.path("kept/linked")))
	id := strings.TrimSpace(string(disktest.Run(t, "btrfs", "inspect-internal", "rootid", c.path("doomed"))))
	disktest.Run(t, "btrfs", "subvolume", "delete", c.path("doomed"))
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Settle()
	crashed := []string{disktest.CopyImage(t, paths[0])}
	for _, f := range open {
		f.Close()
	}
	unmount()
	fs := openFilesystem(t, crashed, btrfs.Options{})
	// By number an unlinked file can be read until somebody cleans up.
	n, err := fs.Inode(5<<disk.SubvolumeShift | numbers[0])
	if err != nil || n.Links != 0 {
		t.Errorf("an unlinked file is %+v, %v", n, err)
	}
	var doomed uint64
	if _, err := fmt.Sscan(id, &doomed); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Inode(doomed<<disk.SubvolumeShift | 256); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("a subvolume that was deleted: %v", err)
	}
	list, err := fs.Subvolumes()
	if err != nil || slices.ContainsFunc(list, func(s disk.Subvolume) bool { return s.ID == doomed }) || len(list) != 2 {
		t.Errorf("subvolumes are %+v, %v", list, err)
	}
	checkUsage(t, fs, crashed)
	compare(t, crashed, fs, "")
}

// TestRetuned reads filesystems that were made with old formats and have some of
// the new ones, in each order.
func TestRetuned(t *testing.T) {
	for _, order := range []string{"-n -x -r", "-r -x -n"} {
		t.Run(order, func(t *testing.T) {
			paths := makeImages(t, 1, 256<<20, "-O", "^no-holes,^extref,^skinny-metadata", "-R", "^free-space-tree")
			for i, option := range append(strings.Fields(order), "") {
				dir, unmount := mount(t, paths, "compress=zstd")
				c := &crash{t: t, dir: dir}
				c.must(os.Mkdir(c.path(fmt.Sprint(i)), 0o755))
				for _, name := range []string{"a", "b", "common"} {
					at := name
					if name != "common" {
						at = fmt.Sprintf("%d/%s", i, name)
					}
					c.write(at, strings.Repeat(fmt.Sprint(i, name), 9000))
					c.must(os.Truncate(c.path(at), 300_000))
					c.writeAt(at, "behind a hole", 290_000)
					c.fallocate(at, 0, 310_000, 40_000)
					c.fallocate(at, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 8192)
				}
				linkUntilFull(c, fmt.Sprint(i))
				unmount()
				fs := openFilesystem(t, paths, btrfs.Options{})
				compare(t, paths, fs, "")
				checkUsage(t, fs, paths)
				if option != "" {
					disktest.Run(t, "btrfstune", option, paths[0])
				}
			}
		})
	}
}

// linkUntilFull gives a file as many names of 255 bytes in one directory as it can
// have: without extref, as a tree block has room for.
func linkUntilFull(c *crash, dir string) {
	c.t.Helper()
	for i := range 200 {
		err := os.Link(c.path("common"), c.path(fmt.Sprintf("%s/%03d%s", dir, i, strings.Repeat("\xfe", 252))))
		if errors.Is(err, unix.EMLINK) && i > 10 {
			return
		}
		c.must(err)
	}
}

// TestCollisions has entries and attributes whose names have one hash, as far as
// one item has room for them, and empty and largest values.
func TestCollisions(t *testing.T) {
	for _, nodes := range []string{"4096", "65536"} {
		t.Run(nodes, func(t *testing.T) {
			paths := makeImages(t, 1, 256<<20, "-n", nodes)
			dir, unmount := mount(t, paths, "rw")
			c := &crash{t: t, dir: dir}
			g := &disktest.Generator{T: t, Dir: dir}
			names := colliding()
			path := g.File("file", nil)
			for i, name := range names {
				c.write(name, name)
				g.SetXattr(path, "user."+name, []byte(strings.Repeat("v", i*i*20)))
				g.SetXattr(path, "trusted."+name, nil)
			}
			for size := 65_536; size > 0; size = size*9/10 - 1 { // the largest that fits, and what is left
				g.SetXattr(path, fmt.Sprintf("user.%d", size), []byte(strings.Repeat("x", size)))
			}
			g.SetXattr(path, "user."+strings.Repeat("\xff", 250), []byte("the longest name"))
			// An entry that goes leaves the other that it shared an item with.
			for i := 0; i < len(names); i += 4 {
				c.must(os.Remove(c.path(names[i])))
				c.must(unix.Lremovexattr(path, "user."+names[i+1]))
			}
			unmount()
			fs := openFilesystem(t, paths, btrfs.Options{})
			compare(t, paths, fs, "")
			for i, name := range names {
				_, err := disk.Lookup(fs, []byte(name))
				if gone := i%4 == 0; gone != errors.Is(err, disk.ErrNotExist) {
					t.Errorf("%q: %v", name, err)
				}
			}
		})
	}
}
