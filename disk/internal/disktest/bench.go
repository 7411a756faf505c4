package disktest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// The files of [WriteBench]: what an installed system has.
const (
	BenchFiles    = 37_000
	benchLargeDir = 20_000 // of those, in one directory
	benchBytes    = 1_400_000_000
)

// WriteBench writes the files that benchmarks of readers read.
func WriteBench(b *testing.B, dir string) {
	b.Helper()
	r := rand.NewChaCha8([32]byte{3})
	content := make([]byte, 2*benchBytes/BenchFiles)
	for i := range BenchFiles {
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
}

// BenchmarkReading opens an image and reads all of it, again and again: at least so
// many files, with their attributes.
func BenchmarkReading(b *testing.B, path string, files int, open func(disk.Sparse) (disk.Filesystem, error)) {
	b.Helper()
	m := OpenImage(b, path)
	var total int64
	b.ReportAllocs()
	for b.Loop() {
		fs, err := open(m)
		if err != nil {
			b.Fatal(err)
		}
		r := &everything{fs: fs, buf: make([]byte, 256<<10)}
		if err := r.dir(fs.Info().Root); err != nil {
			b.Fatal(err)
		}
		if r.files < files {
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
