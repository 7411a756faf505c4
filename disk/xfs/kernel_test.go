package xfs_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// profiles are the filesystems that the kernel can write and judge.
var profiles = []struct {
	name  string
	block int
	size  int64
	mkfs  []string
}{
	{"debian", 4096, 320 << 20, nil},
	{"1k", 1024, 320 << 20, []string{"-b", "size=1024"}},
	{"2k-sector-512", 2048, 320 << 20, []string{"-b", "size=2048", "-s", "size=512"}},
	{"sector-4096", 4096, 320 << 20, []string{"-s", "size=4096"}},
	{"dir-64k", 4096, 320 << 20, []string{"-n", "size=65536"}},
	{"1k-dir-8k", 1024, 320 << 20, []string{"-b", "size=1024", "-n", "size=8192"}},
	{"inode-2k", 4096, 320 << 20, []string{"-i", "size=2048"}},
	{"plain", 4096, 320 << 20, []string{"-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,nrext64=0"}},
	{"rmapbt-nrext64", 4096, 320 << 20, []string{"-m", "rmapbt=1,reflink=1", "-i", "nrext64=1"}},
}

// TestKernel compares with the kernel all that can be seen of a tree of
// everything, over features and block sizes.
func TestKernel(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for the disk
			path := makeImage(t, p.size, append([]string{"-L", "a label"}, p.mkfs...)...)
			dir, unmount := disktest.Mount(t, path, "xfs", "rw")
			g := &disktest.Generator{
				T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{1}), BlockSize: p.block, ManyFiles: 6000, BigXattrs: true,
				MaxSymlink: 1023, SmallDevices: true,
			}
			g.WriteAll()
			unmount()

			dir, unmount = disktest.Mount(t, path, "xfs", "ro,noatime")
			want := disktest.KernelTree(t, dir)
			unmount()
			fs := openFilesystem(t, path)
			disktest.CompareTrees(t, want, disktest.ReadTree(t, fs))

			info := fs.Info()
			if info.Type != "xfs" || string(info.Label) != "a label" || info.BlockSize != int64(p.block) || info.Size > p.size || info.Size < p.size-64<<10 {
				t.Errorf("info is %+v", info)
			}
			if fs.Replayed() != 0 {
				t.Errorf("%d transactions replayed after a clean unmount", fs.Replayed())
			}
			if known, err := xfs.Recognise(disktest.OpenImage(t, path)); !known || err != nil {
				t.Errorf("not recognised: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
}
