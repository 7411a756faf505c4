package ext4_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// profiles are the filesystems that the kernel can write and judge.
var profiles = []struct {
	name  string
	kind  string
	size  int64
	block int
	mkfs  []string
}{
	{"debian", "ext4", 256 << 20, 4096, []string{"-t", "ext4"}},
	{"debian-1k", "ext4", 200 << 20, 1024, []string{"-t", "ext4"}},
	{"debian-2k-no-journal", "ext4", 256 << 20, 2048, []string{"-t", "ext4", "-O", "^has_journal"}},
	{"ext2", "ext2", 256 << 20, 4096, []string{"-t", "ext2"}},
	{"ext2-1k-128", "ext2", 256 << 20, 1024, []string{"-t", "ext2", "-I", "128", "-O", "^filetype,^dir_index"}},
	{"ext3", "ext3", 256 << 20, 1024, []string{"-t", "ext3"}},
	{"revision-0", "ext2", 128 << 20, 1024, []string{"-t", "ext2", "-r", "0"}},
	{"uninit-bg-32bit", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit"}},
	{"uninit-bg-64bit", "ext4", 256 << 20, 1024, []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg,64bit"}},
	{"inline-data", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "inline_data", "-I", "256"}},
	{"inline-data-1k-inodes", "ext4", 256 << 20, 1024, []string{"-t", "ext4", "-O", "inline_data", "-I", "1024"}},
	{"ea-inode", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "ea_inode,inline_data"}},
	{"ea-inode-no-csum", "ext4", 256 << 20, 1024, []string{"-t", "ext4", "-O", "ea_inode,^metadata_csum"}},
	{"meta-bg", "ext4", 600 << 20, 1024, []string{"-t", "ext4", "-O", "meta_bg,^resize_inode"}},
	{"meta-bg-no-flex", "ext4", 600 << 20, 1024, []string{"-t", "ext4", "-O", "meta_bg,^resize_inode,^flex_bg,^64bit,^sparse_super"}},
	{"bigalloc", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "bigalloc", "-C", "65536"}},
	{"bigalloc-1k", "ext4", 256 << 20, 1024, []string{"-t", "ext4", "-O", "bigalloc", "-C", "16384"}},
	{"large-dir-csum-seed", "ext4", 256 << 20, 1024, []string{"-t", "ext4", "-O", "large_dir,metadata_csum_seed,sparse_super2,mmp"}},
	{"desc-size-128", "ext4", 200 << 20, 1024, []string{"-t", "ext4", "-O", "64bit", "-E", "desc_size=128"}},
	{"no-dir-index", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "^dir_index,^extra_isize"}},
	{"encrypt-feature", "ext4", 256 << 20, 4096, []string{"-t", "ext4", "-O", "encrypt,verity,stable_inodes"}},
}

// TestKernel compares with the kernel all that can be seen of a tree of
// everything, over features and block sizes.
func TestKernel(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for the disk
			path := makeImage(t, p.size, append([]string{"-L", "a label", "-b", strconv.Itoa(p.block)}, p.mkfs...)...)
			dir, unmount := disktest.Mount(t, path, "ext4", "rw")
			many := 1200
			if p.block == 1024 {
				many = 6000 // a hash tree of two levels
			}
			g := &disktest.Generator{
				T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{1}), BlockSize: p.block, ManyFiles: many,
				BigXattrs: p.name == "ea-inode" || p.name == "ea-inode-no-csum",
			}
			g.WriteAll()
			unmount()

			fs := openFilesystem(t, path)
			disktest.CompareWithKernel(t, path, "ext4", fs)

			checkUsed(t, path, fs)
			disktest.CheckReadsUsed(t, path, openUncached)
			located, nowhere := disktest.CheckLocations(t, disktest.OpenImage(t, path), fs)
			if inline := strings.Contains(strings.Join(p.mkfs, ""), "inline_data"); located == 0 || nowhere > 0 != inline {
				t.Errorf("%d bytes of data are located, %d are not", located, nowhere)
			}

			info := fs.Info()
			if info.Type != p.kind || string(info.Label) != "a label" || info.BlockSize != int64(p.block) || info.Size > p.size || info.Size < p.size-64<<10 {
				t.Errorf("info is %+v", info)
			}
			if n, fast := fs.Replayed(); n+fast != 0 {
				t.Errorf("%d transactions, %d fast commits replayed after a clean unmount", n, fast)
			}
			if known, err := ext4.Recognise(disktest.OpenImage(t, path)); !known || err != nil {
				t.Errorf("not recognised: %v", err)
			}
			if err := os.Remove(path); err != nil { // 20 images would fill a small disk
				t.Error(err)
			}
		})
	}
}
