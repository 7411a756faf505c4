package ext4_test

import (
	"errors"
	"io"
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

// TestUsedDamaged damages a block bitmap, and a group descriptor: their group
// counts as used, and there is a remark.
func TestUsedDamaged(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "1024", "-O", "^flex_bg")
	text := string(disktest.Run(t, "dumpe2fs", path))
	_, text, _ = strings.Cut(text, "Group 2:")
	_, text, _ = strings.Cut(text, "Block bitmap at ")
	bitmap, err := strconv.ParseInt(text[:strings.IndexByte(text, ' ')], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(p []byte) { p[0] ^= 1 }
	for name, off := range map[string]int64{"bitmap": bitmap*1024 + 500, "descriptor": 2*1024 + 2*64 + 0x0c} {
		t.Run(name, func(t *testing.T) {
			fs, err := ext4.Open(disktest.Patch(t, path, off, 1, flip), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, r := range disktest.UsedRanges(t, fs) {
				const start, end = (1 + 2*8192) * 1024, (1 + 3*8192) * 1024
				found = found || r.Offset <= start && r.Offset+r.Length >= end
			}
			if !found {
				t.Errorf("the damaged group is not used as a whole: %v", disktest.UsedRanges(t, fs))
			}
			if remarks := fs.Info().Remarks; len(remarks) != 1 || !strings.Contains(remarks[0], "bitmaps of 1 groups") {
				t.Errorf("remarks: %q", remarks)
			}
		})
	}
	fs := openFilesystem(t, path)
	if err := fs.Used(1, nil); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("device 1: %v", err)
	}
	if err := fs.Used(0, func(int64, int64) error { return io.ErrShortWrite }); err != io.ErrShortWrite {
		t.Errorf("the error of yield comes back as %v", err)
	}
	if remarks := fs.Info().Remarks; len(remarks) != 0 {
		t.Errorf("remarks about a sound filesystem: %q", remarks)
	}
}
