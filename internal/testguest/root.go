//go:build linux

package testguest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// rootSize of the root disk: the init and a dozen modules need a third of it.
const rootSize = 32 << 20

// modules that the init loads, by their path below the kernel's module folder.
var modules = []string{
	"drivers/acpi/button.ko",
	"drivers/input/evdev.ko",

	"drivers/virtio/virtio_ring.ko",
	"drivers/virtio/virtio.ko",
	"drivers/virtio/virtio_pci_modern_dev.ko",
	"drivers/virtio/virtio_pci_legacy_dev.ko",
	"drivers/virtio/virtio_pci.ko",
	"drivers/block/virtio_blk.ko",
	"net/core/failover.ko",
	"drivers/net/net_failover.ko",
	"drivers/net/virtio_net.ko",

	"fs/efivarfs/efivarfs.ko",
}

// dataModules are those that the filesystem of the data disk takes. The file etc/data of a
// root disk has them, behind its type; for ext4 there is none.
var dataModules = map[string][]string{
	"ext4": nil, // it is in the kernel
	"xfs":  {"lib/libcrc32c.ko", "fs/xfs/xfs.ko"},
	"btrfs": {
		"lib/libcrc32c.ko", "crypto/xor.ko", "lib/raid6/raid6_pq.ko", "lib/zstd/zstd_compress.ko", "fs/btrfs/btrfs.ko",
	},
}

// root is what distinguishes one root disk from another.
type root struct {
	version      string
	broken       bool
	ignoreButton bool
	data         string // the type of the data disk's filesystem
}

func makeRoot(t testing.TB, path string, r root) {
	t.Helper()
	tree := t.TempDir()
	for _, folder := range []string{"dev", "etc", "lib/modules", "proc", "run", "sys", "var"} {
		if err := os.MkdirAll(filepath.Join(tree, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, initBinary(t), filepath.Join(tree, "init"), 0o755)
	data, ok := dataModules[r.data]
	if !ok {
		t.Fatalf("no guest has a data disk of %q", r.data)
	}
	files := map[string]string{"etc/image-version": r.version + "\n"}
	if len(data) > 0 {
		mount := r.data
		for _, module := range data {
			mount += " " + strings.TrimSuffix(filepath.Base(module), ".ko")
		}
		files["etc/data"] = mount + "\n"
	}
	for _, module := range slices.Concat(modules, data) {
		copyFile(t, filepath.Join(moduleFolder(t), module),
			filepath.Join(tree, "lib/modules", filepath.Base(module)), 0o644)
	}
	if r.broken {
		files["etc/broken"] = ""
	}
	if r.ignoreButton {
		files["etc/ignore-power-button"] = ""
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	makeFilesystem(t, path, "ext4", "root", rootSize, tree)
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, mode); err != nil {
		t.Fatal(err)
	}
}

// repository is the folder of go.mod: tests run in the folder of their package.
var repository = sync.OnceValues(func() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("no go.mod above the working folder")
		}
		folder = parent
	}
})

// cacheFolder is that of scripts/install-deps.
func cacheFolder() (string, error) {
	if folder := os.Getenv("DRYDOCK_CACHE"); folder != "" {
		return folder, nil
	}
	folder, err := repository()
	return filepath.Join(folder, ".cache"), err
}

// KernelFolder is the folder of the guests' kernel, for tests whose guests run in a
// container that must be shown it.
func KernelFolder(t testing.TB) string {
	t.Helper()
	return filepath.Join(Cache(t), "kernel")
}

// Cache is the folder of what tests need and is costly to make.
func Cache(t testing.TB) string {
	t.Helper()
	cache, err := cacheFolder()
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

// ModulesFolder is the folder of that kernel's modules, whose name is its version.
func ModulesFolder(t testing.TB) string {
	t.Helper()
	version, err := os.ReadFile(filepath.Join(KernelFolder(t), "version"))
	if err != nil {
		t.Fatalf("there is no guest kernel: %v (run scripts/install-deps test)", err)
	}
	return filepath.Join(KernelFolder(t), "lib/modules", strings.TrimSpace(string(version)))
}

func moduleFolder(t testing.TB) string { return filepath.Join(ModulesFolder(t), "kernel") }

func initBinary(t testing.TB) string {
	t.Helper()
	path, err := buildInit()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildInit builds the guest's init, once per test process, and puts it into
// the cache in one step: other test processes do the same at the same time.
var buildInit = sync.OnceValues(func() (string, error) {
	source, err := repository()
	if err != nil {
		return "", err
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "testguest")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	temporary := filepath.Join(folder, fmt.Sprintf("init.%d", os.Getpid()))
	defer os.Remove(temporary)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", temporary, "./internal/testguest/init")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-p=2")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test guest's init: %w\n%s", err, output)
	}
	path := filepath.Join(folder, "init")
	return path, os.Rename(temporary, path)
})
