package xfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// inodeTreeImage makes a filesystem of two groups, and returns where the second one has
// its header of inodes and the root and a leaf of their tree.
func inodeTreeImage(t *testing.T) (path string, header, root, leaf int) {
	path = makeImage(t, 40<<20, "-b", "size=1024", "-d", "agcount=2")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	second := "" // the kernel takes another group for each folder of the root
	for i := 0; second == "" && i < 4; i++ {
		name := fmt.Sprintf("%s/%d", dir, i)
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		if n, err := os.Stat(name); err != nil {
			t.Fatal(err)
		} else if n.Sys().(*syscall.Stat_t).Ino >= 1<<16 {
			second = name
		}
	}
	for i := range 64 * 61 { // a leaf of the tree has 60 chunks of inodes
		if err := os.WriteFile(fmt.Sprintf("%s/%d", second, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unmount()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const group = 20 << 20
	for at := group; at < len(raw); at += 1024 {
		if level := raw[at+5]; string(raw[at:at+4]) == "IAB3" && level == 1 {
			root = at
		} else if string(raw[at:at+4]) == "IAB3" {
			leaf = at
		}
	}
	if root == 0 || leaf == 0 {
		t.Fatalf("the root of the tree is at %#x, a leaf at %#x", root, leaf)
	}
	return path, group + 2*512, root, leaf
}

// TestDamagedInodeTree: in version 5 what lists the inodes of a group can be damaged in
// any way, and no file is lost. The kernel agrees, but does not mount it at all where the
// group's header is damaged. A remark says what is wrong.
func TestDamagedInodeTree(t *testing.T) {
	path, header, root, leaf := inodeTreeImage(t)
	want := disktest.ReadTree(t, openFilesystem(t, path))
	for _, c := range []struct {
		name   string
		block  int
		at     int // in the block
		b      byte
		sealed bool // the checksum is made right again
		remark string
	}{
		{"magic number of the header", header, 0, 'x', false, "inode header of group 1 at offset 0x1400400: damaged: the magic number"},
		{"count of the header", header, 31, 0xa5, false, "inode header of group 1 at offset 0x1400400: damaged: checksum"},
		{"group of the header", header, 11, 0, true, "inode header of group 1 at offset 0x1400400: damaged: version 1, group 0"},
		{"root outside of the group", header, 20, 0x7f, true, "inode tree of group 1: damaged: it refers to block"},
		{"no levels", header, 27, 0, true, "inode tree of group 1 at offset 0x1400400: damaged: it has 0 levels"},
		{"most levels", header, 27, 9, true, fmt.Sprintf("inode tree of group 1 at offset %#x: damaged: level 1 where 8 is due", root)},
		{"too many levels", header, 27, 10, true, "inode tree of group 1 at offset 0x1400400: damaged: it has 10 levels"},
		{"root", root, 1000, 0xa5, false, fmt.Sprintf("inode tree of group 1 at offset %#x: damaged: checksum", root)},
		{"leaf", leaf, 60, 0xa5, false, fmt.Sprintf("inode tree of group 1 at offset %#x: damaged: checksum", leaf)},
		{"leaf of another group", leaf, 51, 0, true, fmt.Sprintf("inode tree of group 1 at offset %#x: damaged: the block says that it belongs to 0", leaf)},
	} {
		t.Run(c.name, func(t *testing.T) {
			length, crc := 1024, 52
			if c.block == header {
				length, crc = 512, 312
			}
			damaged := disktest.CopyImage(t, path)
			change(t, damaged, int64(c.block), length, func(p []byte) {
				p[c.at] = c.b
				if c.sealed {
					seal(p, crc)
				}
			})
			fs := openFilesystem(t, damaged)
			disktest.CompareTrees(t, want, disktest.ReadTree(t, fs))
			if got := fs.Info().Remarks; len(got) != 1 || !strings.HasPrefix(got[0], "inodes are read without their tree: xfs: "+c.remark) {
				t.Errorf("remarks are %q, want %q", got, c.remark)
			}
			if c.block != header {
				disktest.CompareWithKernel(t, damaged, "xfs", fs)
			}
		})
	}
}

// TestWithoutInodeTree: where the tree of inodes is damaged, an inode must say itself
// that it is one, and in use.
func TestWithoutInodeTree(t *testing.T) {
	be := binary.BigEndian
	original := newFieldSeed(t, "v5-1k")
	small := disktest.Lookup(t, original.fs, "a/small")
	for _, c := range []struct {
		name   string
		ino    uint64
		change func(n []byte)
		want   error
		text   string
	}{
		{"in use", small, func([]byte) {}, nil, ""},
		{"free", small, func(n []byte) { be.PutUint16(n[2:], 0) }, disk.ErrNotExist, "not in use"},
		{"another one", small, func(n []byte) { n[159] ^= 1 }, disk.ErrCorrupt, "says that it is"},
		{"of another filesystem", small, func(n []byte) { n[160] ^= 1 }, disk.ErrCorrupt, "belongs to filesystem"},
		{"no inode at all", 2, func([]byte) {}, disk.ErrCorrupt, "magic number"},
		{"behind the end of the group", 16384 * 2, func([]byte) {}, disk.ErrNotExist, "no place"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := original.clone(t)
			if off := int(c.ino) * 512; off < len(s.raw) {
				c.change(s.raw[off:][:512])
			}
			s.raw[s.with("IAB3", 0)[0]+7]++ // one more record
			fs, err := xfs.Open(resealed{disktest.Mem(s.raw)}, xfs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = fs.Inode(c.ino)
			if !errors.Is(err, c.want) || c.text != "" && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
			if got := fs.Info().Remarks; len(got) != 1 || !strings.Contains(got[0], "inode tree of group 0 at offset") {
				t.Errorf("remarks are %q", got)
			}
		})
	}
}

// TestDamagedInodeTree4: in version 4 only the tree says whether what lies somewhere is an
// inode.
func TestDamagedInodeTree4(t *testing.T) {
	original := newFieldSeed(t, "v4-1k")
	for name, at := range map[string]int{
		"inode tree of group 0":   original.with("IABT", 0)[0],
		"inode header of group 0": 2 * 512,
	} {
		s := original.clone(t)
		s.raw[at]++
		_, err := xfs.Open(disktest.Mem(s.raw), xfs.Options{})
		var detail *disk.Error
		if !errors.Is(err, disk.ErrCorrupt) || !errors.As(err, &detail) || detail.Structure != name || detail.Offset < 0 || detail.Hint == "" {
			t.Errorf("got %v, want one about the %s", err, name)
		}
	}
}
