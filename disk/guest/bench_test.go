package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// BenchmarkWalk reads the attributes of 20,000 files through a tree of two mounts,
// and of the same files without it.
func BenchmarkWalk(b *testing.B) {
	dir := b.TempDir()
	for i := range 200 {
		sub := filepath.Join(dir, fmt.Sprint(i))
		must(b, os.Mkdir(sub, 0o755))
		for j := range 100 {
			must(b, os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), nil, 0o644))
		}
	}
	files := disktest.MakeImage(b, 128<<20, "mkfs.ext4", "-q", "-O", "^has_journal", "-N", "40000", "-d", dir)
	v := &vm{t: b, images: []string{rootImage(b, "/dev/vdb /m1 ext4\n"), files}}
	l := v.layout()
	g, err := guest.Open(l, guest.Options{})
	if err != nil {
		b.Fatal(err)
	}
	plain, err := l.Open(1)
	if err != nil {
		b.Fatal(err)
	}
	for name, fs := range map[string]disk.Filesystem{"guest": g, "plain": plain} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if n := walk(b, fs, fs.Info().Root); n < 20_000 {
					b.Fatalf("%d files", n)
				}
			}
		})
	}
}

func walk(b *testing.B, fs disk.Filesystem, ino uint64) (files int) {
	b.Helper()
	must(b, fs.ReadDir(ino, func(e disk.DirEntry) error {
		files++
		n, err := fs.Inode(e.Ino)
		if err == nil && n.Type() == disk.ModeDir {
			files += walk(b, fs, e.Ino)
		}
		return err
	}))
	return files
}
