package testmount_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/testprocess"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// image makes a filesystem in a file.
func image(t *testing.T, size string, mkfs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	tool(t, "truncate", "-s", size, path)
	tool(t, mkfs[0], append(mkfs[1:], path)...)
	return path
}

func copied(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	tool(t, "cp", "--sparse=always", path, to)
	return to
}

// pin starts a process that has a copy of all mounts until the test ends. Options are those
// of unshare(1).
func pin(t *testing.T, options ...string) {
	t.Helper()
	c := exec.Command("unshare", append(options, "--mount", "sh", "-c", "echo; exec sleep infinity")...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := testprocess.Start(t, c)
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestPinned: what is unmounted is gone, also where other processes came by copies of the
// mount, and its own copy can be mounted, and be in its turn.
func TestPinned(t *testing.T) {
	for name, mkfs := range map[string][]string{
		"ext4":  {"mke2fs", "-q", "-t", "ext4"},
		"xfs":   {"mkfs.xfs", "-q"},
		"btrfs": {"mkfs.btrfs", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			first := image(t, "320M", mkfs...)
			uuid := tool(t, "blkid", "-p", "-o", "value", "-s", "UUID", first)
			for _, path := range []string{first, copied(t, first), first} {
				dir, unmount := testmount.Image(t, path, "")
				pin(t)
				pin(t, "--pid", "--fork", "--kill-child", "--mount-proc") // as a container
				if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
					t.Fatal(err)
				}
				unmount()
				if devices := tool(t, "losetup", "--noheadings", "--output", "NAME", "--associated", path); devices != "" {
					t.Errorf("%s is still on %s", path, devices)
				}
				if _, err := os.Stat("/sys/fs/btrfs/" + uuid); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the kernel still has the filesystem: %v", err)
				}
				if _, err := os.Stat(filepath.Join(dir, "file")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file is still there: %v", err)
				}
				unmount() // which does nothing
			}
		})
	}
}

// TestSharedDevice: what is mounted twice is unmounted once, and then again.
func TestSharedDevice(t *testing.T) {
	device := testmount.Loop(t, image(t, "128M", "mkfs.btrfs", "-q"), 0, 0)
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "with space")
	if err := os.Mkdir(two, 0o700); err != nil {
		t.Fatal(err)
	}
	leaveOne := testmount.At(t, device, one)
	leaveTwo := testmount.At(t, device, two)
	pin(t)
	if err := os.WriteFile(filepath.Join(one, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leaveOne()
	if _, err := os.Stat(filepath.Join(two, "file")); err != nil {
		t.Error(err)
	}
	leaveTwo()
	testmount.Detach(t, device)
}

// TestReadOnly: nothing is written to what is mounted to be read, not even by a kernel that
// has a journal to recover.
func TestReadOnly(t *testing.T) {
	path := image(t, "8M", "mke2fs", "-q", "-t", "ext4")
	was := tool(t, "sha256sum", path)
	_, unmount := testmount.Image(t, path, "noload,ro")
	out, err := exec.Command("losetup", "--noheadings", "--output", "RO", "--associated", path).Output()
	if err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("the device is read-only: %q, %v", out, err)
	}
	unmount()
	if now := tool(t, "sha256sum", path); now != was {
		t.Errorf("%s, and was %s", now, was)
	}
}

// TestForgotten: a device is not taken for a part of the btrfs that was on it before.
func TestForgotten(t *testing.T) {
	first := image(t, "128M", "mkfs.btrfs", "-q")
	second := copied(t, first)
	var devices []string
	for range 4 {
		path := filepath.Join(t.TempDir(), "part")
		tool(t, "truncate", "-s", "128M", path)
		devices = append(devices, testmount.Loop(t, path, 0, 0))
	}
	tool(t, "mkfs.btrfs", append([]string{"-q", "-m", "raid1"}, devices...)...)
	testmount.At(t, devices[0], t.TempDir())()
	for _, d := range devices {
		testmount.Detach(t, d)
	}
	testmount.Image(t, first, "")
	// From Linux 6.7 on a copy can be mounted at the same time, and is what would be
	// taken for a part.
	if _, err := os.Stat("/sys/fs/btrfs/features/temp_fsid"); err == nil {
		testmount.Image(t, second, "")
	}
}
