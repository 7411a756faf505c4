package btrfs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The disk of the benchmark: what an installed system has.
const (
	benchFiles    = 37_000
	benchLargeDir = 20_000 // of those, in one directory
	benchBytes    = 1_400_000_000
)

// makeBenchImage writes the files through the kernel.
func makeBenchImage(b *testing.B, options string) string {
	path := makeImages(b, 1, 4<<30)[0]
	dir, unmount := disktest.Mount(b, path, "btrfs", options)
	r := rand.NewChaCha8([32]byte{3})
	content := make([]byte, 2*benchBytes/benchFiles)
	for i := range benchFiles {
		sub := filepath.Join(dir, "large")
		if i >= benchLargeDir {
			sub = filepath.Join(dir, fmt.Sprintf("d%d", i%40), fmt.Sprintf("e%d", i%700))
		}
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		p := content[:r.Uint64()%uint64(len(content))]
		r.Read(p[:min(len(p), 512)])
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d", i)), p, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	unmount()
	return path
}

// BenchmarkReadEverything walks a disk and reads every file, with the image in
// the page cache.
func BenchmarkReadEverything(b *testing.B) {
	for _, options := range []string{"rw", "compress=zstd"} {
		b.Run(options, func(b *testing.B) { benchmarkRead(b, options) })
	}
}

func benchmarkRead(b *testing.B, options string) {
	m := disktest.OpenImage(b, makeBenchImage(b, options))
	var total int64
	b.ReportAllocs()
	for b.Loop() {
		fs, err := btrfs.Open([]disk.Sparse{m}, btrfs.Options{})
		if err != nil {
			b.Fatal(err)
		}
		r := &everything{fs: fs, buf: make([]byte, 256<<10)}
		if err := r.dir(fs.Info().Root); err != nil {
			b.Fatal(err)
		}
		if r.files < benchFiles {
			b.Fatalf("%d files", r.files)
		}
		total = r.bytes
	}
	b.SetBytes(total)
}

// everything reads a whole tree: attributes, extended ones, content.
type everything struct {
	fs    disk.Filesystem
	buf   []byte
	files int
	bytes int64
}

func (r *everything) dir(ino uint64) error {
	var list []uint64
	err := r.fs.ReadDir(ino, func(e disk.DirEntry) error {
		list = append(list, e.Ino)
		return nil
	})
	if err != nil {
		return err
	}
	for _, child := range list {
		if err := r.file(child); err != nil {
			return err
		}
	}
	return nil
}

func (r *everything) file(ino uint64) error {
	n, err := r.fs.Inode(ino)
	if err != nil {
		return err
	}
	if _, err := r.fs.Xattrs(ino); err != nil {
		return err
	}
	switch n.Type() {
	case disk.ModeDir:
		return r.dir(ino)
	case disk.ModeRegular:
		r.files++
		f, err := r.fs.Open(ino)
		if err != nil {
			return err
		}
		for off := int64(0); off < n.Size; {
			got, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), n.Size-off)], off)
			if err != nil {
				return err
			}
			off += int64(got)
			r.bytes += int64(got)
		}
	}
	return nil
}
