package btrfs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// profiles are the filesystems that the kernel can write and judge.
var profiles = []struct {
	name    string
	devices int
	size    int64 // of each
	mkfs    []string
	mount   string
}{
	{"default", 1, 512 << 20, nil, "rw"},
	{"xxhash", 1, 256 << 20, []string{"--csum", "xxhash"}, "rw"},
	{"sha256-zlib", 1, 256 << 20, []string{"--csum", "sha256"}, "compress-force=zlib"},
	{"blake2-lzo", 1, 256 << 20, []string{"--csum", "blake2"}, "compress-force=lzo"},
	{"zstd", 1, 256 << 20, nil, "compress-force=zstd:3"},
	{"nodatacow", 1, 256 << 20, nil, "nodatacow"},
	{"holes-extents-no-skinny", 1, 256 << 20, []string{"-O", "^no-holes,^skinny-metadata,^extref", "-R", "^free-space-tree"}, "compress=lzo"},
	{"quota", 1, 256 << 20, nil, "rw"},
	{"mixed-4k", 1, 128 << 20, []string{"-M", "-n", "4096"}, "max_inline=3800"},
	{"node-64k", 1, 256 << 20, []string{"-n", "65536"}, "max_inline=4000"},
	{"dup-dup", 1, 512 << 20, []string{"-m", "dup", "-d", "dup"}, "rw"},
	{"raid0", 3, 256 << 20, []string{"-m", "raid0", "-d", "raid0", "-n", "32768"}, "rw"},
	{"raid1", 2, 256 << 20, []string{"-m", "raid1", "-d", "raid1", "-n", "8192"}, "rw"},
	{"raid1c3", 3, 256 << 20, []string{"-m", "raid1c3", "-d", "raid1c3"}, "compress=zstd"},
	{"raid1c4", 4, 256 << 20, []string{"-m", "raid1c4", "-d", "single"}, "rw"},
	{"raid10", 4, 256 << 20, []string{"-m", "raid10", "-d", "raid10"}, "rw"},
}

// TestKernel compares with the kernel all that can be seen of a tree of
// everything, over features, profiles and block sizes.
func TestKernel(t *testing.T) {
	for i, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for the disk
			paths := makeImages(t, p.devices, p.size, append([]string{"-L", "a label"}, p.mkfs...)...)
			dir, unmount := mount(t, paths, p.mount)
			g := &disktest.Generator{
				T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{byte(i)}), BlockSize: 4096, ManyFiles: 1200,
			}
			if p.name == "quota" {
				disktest.Run(t, "btrfs", "quota", "enable", dir)
			}
			if p.name == "mixed-4k" {
				g.BlockSize = 2048 // a symlink of 4,094 bytes does not fit into a tree block
			}
			if strings.Contains(strings.Join(p.mkfs, ""), "^extref") {
				g.ManyFiles = 50 // as many names as a tree block has room for
			}
			g.WriteAll()
			writeCompressible(g)
			if p.name != "nodatacow" {
				writeProperties(g)
			}
			unmount()
			fs := openFilesystem(t, paths, btrfs.Options{})
			compare(t, paths, fs, "")

			info := fs.Info()
			if info.Type != "btrfs" || string(info.Label) != "a label" || info.BlockSize != 4096 || info.Size != int64(p.devices)*p.size || len(info.Remarks) != 0 {
				t.Errorf("info is %+v", info)
			}
			for i, d := range openImages(t, paths) {
				m, known, err := btrfs.Identify(d)
				if !known || err != nil || m.FSID != info.UUID || m.DeviceID != uint64(i+1) || m.Devices != uint64(p.devices) {
					t.Errorf("device %d: %+v, %v, %v", i, m, known, err)
				}
			}
			for _, path := range paths { // they would fill a small disk
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// writeProperties writes files whose compression is their own.
func writeProperties(g *disktest.Generator) {
	for _, name := range []string{"zlib", "lzo", "zstd"} { // an attribute, "btrfs.compression"
		path := g.File("property-"+name, nil)
		disktest.Run(g.T, "btrfs", "property", "set", path, "compression", name)
		g.File("property-"+name, compressible(50_000))
	}
}

// writeCompressible writes files that are worth compressing: of every size, with
// what does not compress in between, and cut.
func writeCompressible(g *disktest.Generator) {
	for _, n := range []int{100, 2000, 4095, 4096, 4097, 20_000, 131_071, 131_072, 131_073, 1_000_000} {
		g.File(fmt.Sprintf("text-%d", n), compressible(n))
	}
	noise := make([]byte, 150_000)
	g.Rand.Read(noise)
	g.File("text-noise-text", append(append(compressible(300_000), noise...), compressible(200_000)...))
	for _, n := range []int64{1000, 70_001} {
		if err := os.Truncate(g.File(fmt.Sprintf("text-cut-%d", n), compressible(200_000)), n); err != nil {
			g.T.Fatal(err)
		}
	}
	if err := os.Truncate(g.File("text-inline-cut", compressible(2000)), 700); err != nil {
		g.T.Fatal(err)
	}
}

func compressible(n int) []byte {
	p := make([]byte, 0, n+100)
	for i := 0; len(p) < n; i++ {
		p = fmt.Appendf(p, "line %d of a file that is worth compressing\n", i*i)
	}
	return p[:n]
}

// TestConverted reads what btrfs-convert makes of an ext4.
func TestConverted(t *testing.T) {
	path := disktest.MakeImage(t, 512<<20, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	g := &disktest.Generator{T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{7}), BlockSize: 2048, ManyFiles: 100}
	g.WriteAll()
	unmount()
	disktest.Run(t, "btrfs-convert", path)
	paths := []string{path}
	fs := openFilesystem(t, paths, btrfs.Options{})
	compare(t, paths, fs, "")
	checkUsage(t, fs, paths)
}
