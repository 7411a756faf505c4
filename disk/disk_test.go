package disk_test

import (
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestFlags: each set of flags has names, sorted, that tell which they are.
func TestFlags(t *testing.T) {
	const all = disk.FlagDefault<<1 - 1
	for f := range all + 1 {
		names := f.Names()
		if !slices.IsSorted(names) || disk.FlagsOf(names) != f {
			t.Errorf("%#x has the names %q, which are %#x", f, names, disk.FlagsOf(names))
		}
	}
	if names := all.Names(); len(names) != 7 {
		t.Errorf("all names are %q", names)
	}
	if f := disk.FlagsOf([]string{"nodump", "unknown", ""}); f != disk.FlagNoDump {
		t.Errorf("names that are not known make %#x", f)
	}
	for f, want := range map[disk.InodeFlags]int{
		0: 0, disk.FlagImmutable: 0x10, disk.FlagAppend: 0x20, disk.FlagNoDump: 0x40, all: 0x70,
		disk.FlagEncrypted | disk.FlagSubvolume | disk.FlagReadOnly | disk.FlagDefault: 0,
	} {
		if got := f.Settable(); got != want {
			t.Errorf("of %q chattr can set %#x, want %#x", f.Names(), got, want)
		}
	}
}

// TestSubvolumeOf takes the subvolume out of an inode number, below what stands for the
// filesystem among several.
func TestSubvolumeOf(t *testing.T) {
	for ino, want := range map[uint64]uint32{
		0: 0, 1: 0, 1<<disk.SubvolumeShift - 1: 0, 5 << disk.SubvolumeShift: 5, 5<<disk.SubvolumeShift | 257: 5,
		disk.MaxIno - 1: 65535, disk.MaxIno: 0, disk.MaxIno | 256<<disk.SubvolumeShift | 9: 256,
	} {
		if got := disk.SubvolumeOf(ino); got != want {
			t.Errorf("inode %#x is of subvolume %d, want %d", ino, got, want)
		}
	}
}

// TestError has an error with all it can say, and without each of that.
func TestError(t *testing.T) {
	whole := disk.Error{Layer: "ext4", Structure: "inode 12", Offset: 4096, Err: disk.ErrCorrupt, Detail: "mode 7", Hint: "run e2fsck"}
	for text, change := range map[string]func(e *disk.Error){
		"ext4: inode 12 at offset 0x1000: damaged: mode 7 (run e2fsck)":        func(*disk.Error) {},
		"ext4: inode 12: damaged: mode 7 (run e2fsck)":                         func(e *disk.Error) { e.Offset = -1 },
		"ext4: inode 12 at offset 0x0: damaged: mode 7 (run e2fsck)":           func(e *disk.Error) { e.Offset = 0 },
		"ext4: inode 12 at offset 0x1000: damaged (run e2fsck)":                func(e *disk.Error) { e.Detail = "" },
		"ext4: inode 12 at offset 0x1000: damaged: mode 7":                     func(e *disk.Error) { e.Hint = "" },
		"ext4: inode 12 at offset 0x1000: unexpected EOF: mode 7 (run e2fsck)": func(e *disk.Error) { e.Err = io.ErrUnexpectedEOF },
	} {
		e := whole
		change(&e)
		if e.Error() != text || !errors.Is(&e, e.Err) {
			t.Errorf("%q, want %q", e.Error(), text)
		}
	}
}

// TestAddSizes: a sum of sizes is never below zero.
func TestAddSizes(t *testing.T) {
	for _, c := range [][3]int64{{0, 0, 0}, {1, 2, 3}, {math.MaxInt64 - 2, 2, math.MaxInt64}, {math.MaxInt64 - 1, 2, math.MaxInt64}, {math.MaxInt64, math.MaxInt64, math.MaxInt64}} {
		if got := disk.AddSizes(c[0], c[1]); got != c[2] {
			t.Errorf("%d and %d make %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// TestLookup looks for paths in a filesystem.
func TestLookup(t *testing.T) {
	image := disktest.Unpack("ext4/testdata/plain.img.gz")
	fs, err := ext4.Open(image, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint64{"": 2, "/": 2, "//": 2, "a": 12, "/a": 12, "/a/": 12, "//a//small": 15, "a/small/": 15} {
		if n, err := disk.Lookup(fs, []byte(path)); err != nil || n.Ino != want {
			t.Errorf("%q is inode %d, %v, want %d", path, n.Ino, err, want)
		}
	}
	for path, c := range map[string]struct {
		want error
		text string
	}{
		"/none":                           {disk.ErrNotExist, `look up "/none": does not exist`},
		"/a/none":                         {disk.ErrNotExist, `look up "/a/none": does not exist`},
		"/A":                              {disk.ErrNotExist, ""},
		"/.":                              {disk.ErrNotExist, ""}, // directories do not show themselves
		"/a/..":                           {disk.ErrNotExist, ""},
		"/a/small/x":                      {disk.ErrNotExist, `what is before "x" is not a directory`},
		"/symlink/x":                      {disk.ErrNotExist, `what is before "x" is not a directory`},
		"/\x1b[2J":                        {disk.ErrNotExist, `look up "/\x1b[2J": does not exist`},
		strings.Repeat("/", 4096):         {nil, ""},
		strings.Repeat("/", 4097):         {disk.ErrLimit, "a path has at most 4096 bytes"},
		"/a/" + strings.Repeat("x", 5000): {disk.ErrLimit, "a path has at most 4096 bytes"},
	} {
		_, err := disk.Lookup(fs, []byte(path))
		if !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil && (!strings.Contains(err.Error(), c.text) || len(err.Error()) > 200) {
			t.Errorf("%.40q: %v, want %v that says %q", path, err, c.want, c.text)
		}
	}
}
