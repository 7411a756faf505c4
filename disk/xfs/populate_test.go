package xfs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestPopulated compares images that mkfs.xfs filled with the folder that it
// filled them from: versions and block sizes that the kernel of the test's host
// does not mount.
func TestPopulated(t *testing.T) {
	source4, source5 := t.TempDir(), t.TempDir()
	proto4 := writePrototype(t, source4, 1, 150, 300, 400, 500, 1000)
	proto5 := writePrototype(t, source5, 1, 150, 300) // mkfs.xfs 6.1 writes longer ones wrong
	want4, want5 := disktest.KernelTree(t, source4), disktest.KernelTree(t, source5)
	for _, p := range []struct {
		name string
		mkfs []string
	}{
		{"v4-512", []string{"-m", "crc=0", "-b", "size=512"}},
		{"v4-4k", []string{"-m", "crc=0"}},
		{"v4-dir-8k-no-ftype", []string{"-m", "crc=0", "-n", "size=8192,ftype=0", "-b", "size=1024"}},
		{"v4-attr1-projid16", []string{"-m", "crc=0", "-i", "attr=1,projid32bit=0", "-l", "lazy-count=0,version=1"}},
		{"v4-inode-2k", []string{"-m", "crc=0", "-i", "size=2048"}},
		{"v4-64k", []string{"-m", "crc=0", "-b", "size=65536"}},
		{"v5-8k", []string{"-b", "size=8192"}},
		{"v5-64k", []string{"-b", "size=65536"}},
		{"v5-sector-4096", []string{"-s", "size=4096"}},
		{"v5-no-case", []string{"-n", "version=ci"}},
		{"v5-log-stripe", []string{"-l", "su=256k"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			proto, want := proto4, want4
			if strings.HasPrefix(p.name, "v5") {
				proto, want = proto5, want5
			}
			path := makeImage(t, 512<<20, append(p.mkfs, "-p", proto)...)
			got := disktest.ReadTree(t, openFilesystem(t, path))
			disktest.CompareTrees(t, disktest.WithoutPlace(want), disktest.WithoutPlace(got))
		})
	}
}

// writePrototype fills a folder, and describes it as mkfs.xfs -p takes it.
func writePrototype(t *testing.T, dir string, symlinks ...int) string {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var p strings.Builder
	p.WriteString("/boot\n0 0\nd--755 0 0\n")
	random := rand.NewChaCha8([32]byte{2})
	for _, size := range []int{0, 1, 511, 512, 4096, 4097, 65536, 3_000_000} {
		content := make([]byte, size)
		random.Read(content)
		path := filepath.Join(dir, fmt.Sprintf("size-%d", size))
		must(os.WriteFile(path, content, 0o640))
		must(os.Chown(path, size, 70_000+size))
		fmt.Fprintf(&p, "size-%d ---640 %[1]d %d %s\n", size, 70_000+size, path)
	}
	for _, n := range symlinks {
		target := strings.Repeat("t", n)
		must(os.Symlink(target, filepath.Join(dir, fmt.Sprintf("symlink-%d", n))))
		fmt.Fprintf(&p, "symlink-%d l--777 0 0 %s\n", n, target)
	}
	must(unix.Mknod(filepath.Join(dir, "char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70_000))))
	p.WriteString("char c--600 0 0 1 3\nblock b--600 0 0 300 70000\n")
	for _, n := range []int{0, 1, 5, 40, 400, 3000} {
		name := fmt.Sprintf("dir-%d", n)
		must(os.Mkdir(filepath.Join(dir, name), 0o755))
		fmt.Fprintf(&p, "%s d--755 0 0\n", name)
		for i := range n {
			entry := fmt.Sprintf("a-name-of-some-length-number-%d", i)
			must(unix.Mkfifo(filepath.Join(dir, name, entry), 0o604))
			fmt.Fprintf(&p, "%s p--604 0 0\n", entry)
		}
		p.WriteString("$\n")
	}
	p.WriteString("$\n")
	proto := filepath.Join(t.TempDir(), "prototype")
	must(os.WriteFile(proto, []byte(p.String()), 0o644))
	return proto
}
