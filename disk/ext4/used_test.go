package ext4_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// freeBlocks are those that dumpe2fs calls free, as ranges of bytes.
func freeBlocks(t testing.TB, path string, blockSize int64) (list []disk.Extent) {
	t.Helper()
	cluster := int64(1) // blocks; of the last cluster of a range, dumpe2fs names the first block
	for line := range strings.Lines(string(disktest.Run(t, "dumpe2fs", path))) {
		if size, ok := strings.CutPrefix(line, "Cluster size:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(size), 10, 64)
			if err != nil {
				t.Fatalf("dumpe2fs: %q", line)
			}
			cluster = n / blockSize
		}
		ranges, ok := strings.CutPrefix(line, "  Free blocks:")
		if !ok {
			continue
		}
		for r := range strings.SplitSeq(strings.TrimSpace(ranges), ", ") {
			if r == "" {
				continue
			}
			from, to, pair := strings.Cut(r, "-")
			if !pair {
				to = from
			}
			first, err := strconv.ParseInt(from, 10, 64)
			last, err2 := strconv.ParseInt(to, 10, 64)
			if err != nil || err2 != nil {
				t.Fatalf("dumpe2fs: %q", line)
			}
			list = append(list, disk.Extent{Offset: first * blockSize, Length: (last + cluster - first) * blockSize})
		}
	}
	return list
}

// checkUsed compares what is used with what dumpe2fs calls free: together they
// are the filesystem, and each block is one or the other.
func checkUsed(t *testing.T, path string, fs *ext4.Filesystem) {
	t.Helper()
	used := disktest.UsedRanges(t, fs)
	info := fs.Info()
	all := append(slices.Clone(used), freeBlocks(t, path, info.BlockSize)...)
	slices.SortFunc(all, func(a, b disk.Extent) int { return int(a.Offset - b.Offset) })
	next := int64(0)
	for _, r := range all {
		if r.Offset != next {
			t.Fatalf("used and free do not meet at %d, %d (blocks %d, %d)", next, r.Offset, next/info.BlockSize, r.Offset/info.BlockSize)
		}
		next += r.Length
	}
	if next < info.Size {
		t.Errorf("used and free blocks end at %d of %d", next, info.Size)
	}
}

// TestUsedDamaged damages what says which blocks are free, and how the guest left
// them. Where nothing is known for sure there is an error: blocks that hold files
// could count as free.
func TestUsedDamaged(t *testing.T) {
	flip := func(p []byte) { p[0] ^= 1 }
	for name, c := range map[string]struct {
		features string
		at       func(bitmap int64) int64
		change   func([]byte)
		want     string
	}{
		"bitmap": {"none,filetype,extent", func(bitmap int64) int64 { return bitmap + 500 }, flip,
			"group descriptor 2 at offset 0x840: damaged: it says that"},
		"number of free blocks": {"none,filetype,extent", func(int64) int64 { return 2*1024 + 2*32 + 0x0c }, flip,
			"group descriptor 2 at offset 0x840: damaged: it says that"},
		"bitmap with a checksum": {"^flex_bg", func(bitmap int64) int64 { return bitmap + 500 }, flip,
			"block bitmap of group 2 at offset"},
		"descriptor with a checksum": {"^flex_bg", func(int64) int64 { return 2*1024 + 2*64 + 0x0c }, flip,
			"group descriptor 2 at offset 0x880: damaged: checksum"},
		"an error was recorded": {"none,filetype,extent", func(int64) int64 { return 1024 + 0x3a }, func(p []byte) { p[0] |= 2 },
			"superblock at offset 0x400: damaged: the block bitmaps cannot be relied on: errors were recorded"},
		"number of errors": {"none,filetype,extent", func(int64) int64 { return 1024 + 0x194 }, flip,
			"superblock at offset 0x400: damaged: the block bitmaps cannot be relied on: errors were recorded"},
		"not unmounted": {"none,filetype,extent", func(int64) int64 { return 1024 + 0x3a }, flip,
			"superblock at offset 0x400: damaged: the block bitmaps cannot be relied on: the filesystem was not unmounted"},
		"half an e2fsck": {"none,filetype,has_journal", func(int64) int64 { return 1024 + 0x3a }, flip,
			"superblock at offset 0x400: damaged: the block bitmaps cannot be relied on: an e2fsck"},
	} {
		t.Run(name, func(t *testing.T) {
			path := makeImage(t, 64<<20, "-t", "ext4", "-b", "1024", "-O", c.features)
			sound := openFilesystem(t, path)
			disktest.UsedRanges(t, sound)
			fs, err := ext4.Open(disktest.Patch(t, path, c.at(bitmapOf(t, path, "Group 2:")), 1, c.change), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			err = fs.Used(0, func(int64, int64) error { return nil })
			if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestUsedNeverInitialised has blocks in use in a group whose bitmap was never
// written, its descriptor says.
func TestUsedNeverInitialised(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "1024", "-O", "none,filetype,extent,uninit_bg")
	from := disktest.EmptyImage(t, 0)
	if err := os.WriteFile(from, bytes.Repeat([]byte("x"), 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"write " + from + " file", "set_bg 2 flags 6", "set_bg 2 checksum calc"} {
		disktest.Run(t, "debugfs", "-w", "-R", command, path)
	}
	err := openFilesystem(t, path).Used(0, func(int64, int64) error { return nil })
	if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "group 2") {
		t.Errorf("%v", err)
	}
}

func TestUsedErrors(t *testing.T) {
	fs := openFilesystem(t, makeImage(t, 8<<20, "-t", "ext4"))
	if err := fs.Used(1, nil); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("device 1: %v", err)
	}
	if err := fs.Used(0, func(int64, int64) error { return io.ErrShortWrite }); err != io.ErrShortWrite {
		t.Errorf("the error of yield comes back as %v", err)
	}
}

// bitmapOf asks dumpe2fs where a group's block bitmap is, in bytes of an image with
// blocks of 1 KiB.
func bitmapOf(t testing.TB, path, group string) int64 {
	t.Helper()
	_, text, _ := strings.Cut(string(disktest.Run(t, "dumpe2fs", path)), group)
	_, text, _ = strings.Cut(text, "Block bitmap at ")
	block, err := strconv.ParseInt(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return block * 1024
}

// TestUsedReached has blocks in use as free, with the numbers and checksums to go with
// it: content, a directory, attributes, a block of an extent tree, and one of a map.
func TestUsedReached(t *testing.T) {
	for name, features := range map[string]string{
		"extents": "none,filetype,extent,ext_attr", "checksums": "metadata_csum,64bit,extent,^has_journal",
		"map": "none,filetype,ext_attr", "clusters": "bigalloc,extent,^has_journal",
	} {
		t.Run(name, func(t *testing.T) {
			path := makeImage(t, 64<<20, "-t", "ext4", "-b", "1024", "-O", features, "-I", "256")
			from := disktest.EmptyImage(t, 0)
			f, err := os.Create(from)
			if err != nil {
				t.Fatal(err)
			}
			for i := range int64(40) { // with holes, so that it needs a tree
				if _, err := f.WriteAt(bytes.Repeat([]byte("x"), 40_000), i*100_000); err != nil {
					t.Fatal(err)
				}
			}
			f.Close()
			for _, command := range []string{"write " + from + " file", "mkdir folder", "ea_set file user.long " + strings.Repeat("y", 500)} {
				disktest.Run(t, "debugfs", "-w", "-R", command, path)
			}
			fs := openFilesystem(t, path)
			checkUsed(t, path, fs)
			blocks := map[string]string{"content": "bmap file 30", "folder": "bmap folder 0"}
			list := make(map[string]string)
			for what, command := range blocks {
				list[what] = strings.TrimSpace(string(disktest.Run(t, "debugfs", "-R", command, path)))
			}
			text := string(disktest.Run(t, "debugfs", "-R", "stat file", path))
			for what, before := range map[string]string{"attributes": "File ACL: ", "tree": "(ETB0):", "map": "(IND):"} {
				if _, rest, ok := strings.Cut(text, before); ok {
					list[what] = strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })[0]
				}
			}
			if len(list) < 4 || list["attributes"] == "0" {
				t.Fatalf("%v of\n%s", list, text)
			}
			for what, block := range list {
				damaged := disktest.CopyImage(t, path)
				disktest.Run(t, "debugfs", "-w", "-R", "freeb "+block, damaged)
				err := openFilesystem(t, damaged).Used(0, func(int64, int64) error { return nil })
				if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "free") {
					t.Errorf("%s in block %s: %v", what, block, err)
				}
			}
		})
	}
}
