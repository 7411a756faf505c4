package newimage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNoExtents: what is no filesystem of mke2fs's, or no file with extents, is refused,
// and nothing is written.
func TestNoExtents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path, "16M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := openExtents(f)
	if err != nil || !fs.sums {
		t.Fatalf("%+v, %v", fs, err)
	}
	for _, ino := range []uint64{0, 1, 1 << 32} { // 1 is the list of bad blocks, an old block map
		if err := fs.write(ino, func(_, _, _ int64) { t.Error("it has blocks") }); !errors.Is(err, errExtents) {
			t.Errorf("inode %d: %v", ino, err)
		}
	}
	for off, b := range map[int]byte{superblock + 0x38: 0, superblock + 0x18: 0, superblock + 0x59: 0x20, superblock + 0x60: incompatMetaBG} {
		bad := append([]byte{}, good[:64<<10]...)
		bad[off] = b
		if _, err := f.WriteAt(bad, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := openExtents(f); !errors.Is(err, errExtents) {
			t.Errorf("byte %#x is %d: %v", off, b, err)
		}
	}
}
