package ext4_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
)

// requireRoot fails a test that needs loop mounts where they cannot be had.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts images: run it as root")
	}
}

// run executes a tool, and fails the test with its output if it fails.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "MKE2FS_DEVICE_SECTSIZE=512")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// makeImage makes a sparse image of size bytes and a filesystem on it.
func makeImage(t testing.TB, size int64, mkfs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "mke2fs", append(append([]string{"-q", "-F"}, mkfs...), path)...)
	return path
}

// mountImage mounts path in a folder of its own until the test ends or unmount
// is called.
func mountImage(t testing.TB, path, options string) (dir string, unmount func()) {
	t.Helper()
	requireRoot(t)
	dir = t.TempDir()
	device := attachLoop(t, path)
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			// Whatever looks at new mounts on a busy machine lets go in time.
			for try := 1; try < 20 && exec.Command("umount", dir).Run() != nil; try++ {
				time.Sleep(100 * time.Millisecond)
			}
			if exec.Command("mountpoint", "-q", dir).Run() == nil {
				run(t, "umount", dir)
			}
			run(t, "losetup", "-d", device)
		}
	}
	if out, err := exec.Command("mount", "-t", "ext4", "-o", options, device, dir).CombinedOutput(); err != nil {
		run(t, "losetup", "-d", device)
		t.Fatalf("mount %s: %v\n%s", path, err, out)
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// attachLoop retries: another process may take the same free device first.
func attachLoop(t testing.TB, path string) string {
	t.Helper()
	var out []byte
	for range 20 {
		var err error
		if out, err = exec.Command("losetup", "-f", "--show", path).CombinedOutput(); err == nil {
			return strings.TrimSpace(string(out))
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("losetup %s: %s", path, out)
	return ""
}

// copyImage copies an image, keeping its holes.
func copyImage(t testing.TB, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.img")
	run(t, "cp", "--sparse=always", path, to)
	return to
}

// image is a file as a [disk.Sparse] all of whose bytes are data.
type image struct {
	io.ReaderAt
	size int64
}

func (m image) Size() int64 { return m.size }

func (m image) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || off > m.size || length > m.size-off {
		return errors.New("extents out of range")
	}
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentData})
}

func openImage(t testing.TB, path string) image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return image{ReaderAt: f, size: info.Size()}
}

func openFilesystem(t testing.TB, path string) *ext4.Filesystem {
	t.Helper()
	fs, err := ext4.Open(openImage(t, path), ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// node is one file as a test sees it, in a form that can be compared and
// printed.
type node struct {
	Ino      uint64
	Mode     uint32
	UID, GID uint32
	Links    uint32
	Size     int64
	Rdev     string
	Times    string // access, modify, change, birth
	Xattrs   string
	Target   string
	Content  string // digest, or the error
	Data     string // the ranges that are not holes
}

// tree is a filesystem by path; the root is "".
type tree map[string]node

func formatTime(sec int64, nsec uint32) string { return fmt.Sprintf("%d.%09d", sec, nsec) }

func formatDevice(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

func isType(mode, kind uint32) bool { return mode&unix.S_IFMT == kind }
