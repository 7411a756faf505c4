package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
)

// benchImage returns a raw image that is an ext4: the file that
// DRYDOCK_BENCH_IMAGE names, or one made for the purpose.
func benchImage(b *testing.B) string {
	if path := os.Getenv("DRYDOCK_BENCH_IMAGE"); path != "" {
		return path
	}
	path := filepath.Join(b.TempDir(), "raw")
	run(b, "truncate", "-s", "128M", path)
	run(b, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", makeTree(b), path)
	return path
}

// BenchmarkTree reads everything of a filesystem as tar does, in two orders:
// file by file as the disk lists them, and each directory sorted by name.
func BenchmarkTree(b *testing.B) {
	path := benchImage(b)
	for _, sorted := range []bool{false, true} {
		name := map[bool]string{false: "as listed", true: "sorted"}[sorted]
		b.Run(name+"/in process", func(b *testing.B) {
			for b.Loop() {
				f := openFile(b, path)
				size, err := readableSize(f)
				if err != nil {
					b.Fatal(err)
				}
				image, err := raw.Open(f, size)
				if err != nil {
					b.Fatal(err)
				}
				fs, err := ext4.Open(image, ext4.Options{})
				if err != nil {
					b.Fatal(err)
				}
				readTree(b, fs, sorted)
			}
		})
		b.Run(name+"/worker", func(b *testing.B) {
			for b.Loop() {
				d := start(b, path, DiskSpec{Format: Raw})
				fs, err := d.Filesystem(b.Context(), filepath.Base(path))
				if err != nil {
					b.Fatal(err)
				}
				readTree(b, fs, sorted)
				d.Close()
			}
		})
	}
}

// readTree reads all attributes and all content.
func readTree(b *testing.B, fs disk.Filesystem, sorted bool) {
	buf := make([]byte, 1<<20)
	var files, bytes int64
	var walk func(ino uint64)
	walk = func(ino uint64) {
		type entry struct {
			name string
			ino  uint64
		}
		var list []entry
		if err := fs.ReadDir(ino, func(e disk.DirEntry) error {
			list = append(list, entry{string(e.Name), e.Ino})
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		if sorted {
			slices.SortFunc(list, func(x, y entry) int { return strings.Compare(x.name, y.name) })
		}
		for _, e := range list {
			n, err := fs.Inode(e.ino)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := fs.Xattrs(e.ino); err != nil {
				b.Fatal(err)
			}
			files++
			switch n.Type() {
			case disk.ModeDir:
				walk(e.ino)
			case disk.ModeSymlink:
				if _, err := fs.Readlink(e.ino); err != nil {
					b.Fatal(err)
				}
			case disk.ModeRegular:
				bytes += readFile(b, fs, e.ino, buf)
			}
		}
	}
	walk(fs.Info().Root)
	b.SetBytes(bytes)
	b.ReportMetric(float64(files), "files/op")
}

// readFile reads the parts of a file that are not holes.
func readFile(b *testing.B, fs disk.Filesystem, ino uint64, buf []byte) (n int64) {
	f, err := fs.Open(ino)
	if err != nil {
		b.Fatal(err)
	}
	err = f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		for end := e.Offset + e.Length; e.Offset < end; {
			got, err := f.ReadAt(buf[:min(int64(len(buf)), end-e.Offset)], e.Offset)
			if err != nil && err != io.EOF {
				return err
			}
			e.Offset += int64(got)
			n += int64(got)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}
