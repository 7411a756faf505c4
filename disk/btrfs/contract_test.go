package btrfs_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

func openFile(t testing.TB, fs disk.Filesystem, path string) disk.Sparse {
	t.Helper()
	f, err := fs.Open(disktest.Lookup(t, fs, path))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestContract checks content of every form, see [disktest.Check], against what
// the kernel reads.
func TestContract(t *testing.T) {
	names := []string{"plain", "holes", "zstd", "zlib", "lzo", "inline", "nodatasum", "cloned"}
	paths := makeImages(t, 2, 256<<20, "-d", "raid0", "-m", "raid1")
	dir, unmount := mount(t, paths, "rw")
	c := &crash{t: t, dir: dir}
	content := make([]byte, 1_500_000)
	for i := range content {
		content[i] = byte(i>>12 + i/100%3)
	}
	for _, name := range names {
		c.write(name, "")
		switch name {
		case "zstd", "zlib", "lzo":
			disktest.Run(t, "btrfs", "property", "set", c.path(name), "compression", name)
		case "nodatasum":
			disktest.Run(t, "chattr", "+C", c.path(name))
		case "inline":
			c.write(name, "a few bytes")
			continue
		}
		c.writeAt(name, string(content), 0)
		c.sync(name)
	}
	c.fallocate("holes", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100_000, 300_000)
	c.fallocate("holes", 0, 1_600_000, 200_000)
	c.writeAt("zstd", "in the middle of an extent", 200_000)
	disktest.Run(t, "cp", "--reflink=always", c.path("zstd"), c.path("cloned"))
	want := make(map[string][]byte)
	for _, name := range names {
		data, err := os.ReadFile(c.path(name))
		c.must(err)
		want[name] = data
	}
	unmount()
	devices := openImages(t, paths)
	fs, err := btrfs.Open(devices, btrfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disktest.CheckContract(t, fs, devices...)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			f := openFile(t, fs, name)
			disktest.Check(t, f, want[name])
			located := locateAll(t, f, devices)
			least, most := f.Size(), f.Size()
			switch name {
			case "inline", "zlib", "lzo":
				least, most = 0, 0
			case "zstd", "cloned": // but for what the middle of it was overwritten with
				least, most = 0, 8192
			case "holes":
				least, most = 1_200_000, 1_250_000
			}
			if located < least || located > most {
				t.Errorf("%d of %d bytes can be located", located, f.Size())
			}
		})
	}
}

// TestConcurrent walks one filesystem from several goroutines, with a cache that
// is too small.
func TestConcurrent(t *testing.T) {
	for _, s := range seeds {
		fs := openSeed(t, s.name, btrfs.Options{CacheSize: 10_000})
		want := disktest.ReadTree(t, openSeed(t, s.name, btrfs.Options{}))
		disktest.CheckConcurrent(t, want, fs)
	}
}

// TestSeedContract holds the seeds, with their subvolumes, against the contract of
// package disk.
func TestSeedContract(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			disktest.CheckContract(t, openSeed(t, s.name, btrfs.Options{}), disktest.LoadSeed(t, s.name))
		})
	}
}

// TestFlags compares what chattr sets.
func TestFlags(t *testing.T) {
	paths := makeImages(t, 1, 128<<20)
	dir, unmount := mount(t, paths, "rw")
	want := map[string]disk.InodeFlags{"i": disk.FlagImmutable, "a": disk.FlagAppend, "d": disk.FlagNoDump, "none": 0}
	for name := range want {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if name != "none" {
			disktest.Run(t, "chattr", "+"+name, filepath.Join(dir, name))
		}
	}
	unmount()
	fs := openFilesystem(t, paths, btrfs.Options{})
	for name, flags := range want {
		if n, err := fs.Inode(disktest.Lookup(t, fs, name)); err != nil || n.Flags != flags {
			t.Errorf("%s: flags %v, %v", name, n.Flags, err)
		}
	}
}

// counted notes how much is read.
type counted struct {
	disktest.Image
	read *int64
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	*c.read += int64(len(p))
	return c.Image.ReadAt(p, off)
}

// TestHuge opens a sparse disk of 16 TiB, and counts what that reads.
func TestHuge(t *testing.T) {
	paths := makeImages(t, 1, 15<<40) // what ext4 lets a file be
	read := int64(0)
	fs, err := open(counted{disktest.OpenImage(t, paths[0]), &read})
	if err != nil {
		t.Fatal(err)
	}
	if err := disktest.WalkLeniently(fs, nil); err != nil {
		t.Fatal(err)
	}
	used := int64(0)
	err = fs.(disk.Usage).Used(0, func(_, length int64) error {
		used += length
		return nil
	})
	if err != nil || used > 64<<20 {
		t.Errorf("%d bytes are in use: %v", used, err)
	}
	if read > 1<<20 {
		t.Errorf("%d bytes were read", read)
	}
}

// shortReader ends its reads early, against the contract, or with io.EOF.
type shortReader struct{ disktest.Image }

func (s shortReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Image.ReadAt(p, off)
	if off > 1<<20 && n > 100 {
		return n - 100, err
	}
	if err == nil {
		err = io.EOF // together with all that was asked for
	}
	return n, err
}

// TestShortReads reads from a device that comes back with less than it was asked
// for.
func TestShortReads(t *testing.T) {
	fs, err := open(shortReader{disktest.LoadSeed(t, "mixed")})
	if err == nil {
		err = disktest.WalkLeniently(fs, nil)
	}
	var detail *disk.Error
	if !errors.As(err, &detail) || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("short reads: %v", err)
	}
}
