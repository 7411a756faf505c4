package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// makeBtrfs makes a btrfs that holds tree, and all of it twice.
func makeBtrfs(t *testing.T, tree string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "btrfs")
	run(t, "truncate", "-s", "512M", image)
	run(t, "mkfs.btrfs", "-q", "-d", "dup", "-m", "dup", "--rootdir", tree, image)
	return image
}

// TestChecksums reads content that the parent verifies: it is right, or the worker
// finds another copy, or says what is damaged.
func TestChecksums(t *testing.T) {
	tree := t.TempDir()
	for i, size := range []int{1, 4095, 4096, 4097, 100_000, 131_072, 131_073, 600_001} {
		writeRandom(t, filepath.Join(tree, fmt.Sprint(i)), size)
	}
	writeRandom(t, filepath.Join(tree, "medium"), 200<<10)
	writeRandom(t, filepath.Join(tree, "large"), 9<<20+123)
	image := makeBtrfs(t, tree)
	t.Run("whole", func(t *testing.T) {
		fs := openOnly(t, image, Raw)
		compareFiles(t, fs, tree)
		f, ok := openListed(t, fs, "medium").(*located)
		if !ok || f.pieces[0].Sums == nil {
			t.Errorf("what the parent can verify, it does not read: %+v", f)
		}
	})
	t.Run("blocks in pieces", func(t *testing.T) { // nobody but the worker can verify them
		qcow2 := filepath.Join(t.TempDir(), "disk.qcow2")
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", image, qcow2)
		compareFiles(t, openOnly(t, qcow2, Qcow2), tree)
	})
	for name, file := range map[string]string{"large": "large", "told with its name": "medium"} {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(tree, file))
			if err != nil {
				t.Fatal(err)
			}
			copies := copiesOf(t, image, want[128<<10:][:4096])
			for _, damaged := range copies {
				restore := damage(t, image, damaged)
				compareContent(t, file, openListed(t, openOnly(t, image, Raw), file), want)
				restore()
			}
			for _, damaged := range copies {
				damage(t, image, damaged)
			}
			f := openListed(t, openOnly(t, image, Raw), file)
			if n, err := f.ReadAt(make([]byte, 4096), 128<<10); n != 0 || !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "crc32c") {
				t.Errorf("%d damaged bytes are read: %v", n, err)
			}
			got := make([]byte, 128<<10)
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[:len(got)]) {
				t.Errorf("what stands before the damage: %v", err)
			}
		})
	}
}

// writeRandom writes bytes of which no block is there twice, always the same ones.
func writeRandom(t *testing.T, path string, size int) {
	t.Helper()
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(content) // never fails
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// compareFiles compares the files of a folder with those of a filesystem.
func compareFiles(t *testing.T, fs disk.Filesystem, folder string) {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		want, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		compareContent(t, e.Name(), openListed(t, fs, e.Name()), want)
	}
}

// openOnly opens the one filesystem of a disk.
func openOnly(t *testing.T, path, format string) disk.Filesystem {
	t.Helper()
	fs, err := start(t, path, DiskSpec{Format: format}).Filesystem(t.Context(), filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// openListed opens a file of the root directory as a walk does, after it was listed.
func openListed(t *testing.T, fs disk.Filesystem, name string) disk.Sparse {
	t.Helper()
	list, err := disk.List(fs, fs.Info().Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if string(e.Name) != name {
			continue
		}
		f, err := fs.Open(e.Ino)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	t.Fatalf("there is no %q", name)
	return nil
}

// copiesOf returns where a block lies in an image that keeps all twice.
func copiesOf(t *testing.T, image string, block []byte) (at []int64) {
	t.Helper()
	all, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(all); off += len(block) {
		if bytes.Equal(all[off:off+len(block)], block) {
			at = append(at, int64(off))
		}
	}
	if len(at) != 2 {
		t.Fatalf("the block is there %d times", len(at))
	}
	return at
}

// damage changes a byte, and returns what changes it back.
func damage(t *testing.T, image string, off int64) (restore func()) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	flip := func() {
		var b [1]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}
