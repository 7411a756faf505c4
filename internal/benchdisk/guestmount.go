package benchdisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// Guestmount mounts the filesystem that fills a disk, a .qcow2 or a .raw, with libguestfs,
// whose appliance QEMU emulates, and returns the folder. The appliance runs the kernel that
// scripts/install-deps unpacks, since none need be installed.
func Guestmount(t testing.TB, path string) string {
	t.Helper()
	kernel := testguest.KernelFolder(t)
	modules := testguest.ModulesFolder(t)
	release := filepath.Base(modules)
	run(t, "depmod", "-b", kernel, release)
	// supermin looks here even when it is told of another folder.
	if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := exec.Command("guestmount", "--format="+strings.TrimPrefix(filepath.Ext(path), "."), "-a", path, "-m", "/dev/sda", "--ro", dir)
	c.Env = append(os.Environ(), "LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg",
		"SUPERMIN_KERNEL="+filepath.Join(kernel, "vmlinuz"), "SUPERMIN_KERNEL_VERSION="+release,
		"SUPERMIN_MODULES="+modules)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("guestmount (scripts/install-deps bench): %v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("fusermount", "-u", dir).Run() })
	return dir
}
