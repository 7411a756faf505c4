package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kernel is what scripts/install-deps has unpacked.
type kernel struct {
	folder  string
	version string
}

func findKernel(cache string) (kernel, error) {
	folder := filepath.Join(cache, "kernel")
	version, err := os.ReadFile(filepath.Join(folder, "version"))
	if err != nil {
		return kernel{}, fmt.Errorf("there is no guest kernel: %w (run scripts/install-deps demo)", err)
	}
	return kernel{folder, strings.TrimSpace(string(version))}, nil
}

func (k kernel) image() string { return filepath.Join(k.folder, "vmlinuz") }

// modules that the guests need, with those that these depend on, by their path
// below the kernel's module folder. What the root disk needs is built in.
var modules = []string{
	"drivers/acpi/button.ko", // the power button …
	"drivers/input/evdev.ko", // … and how logind hears of it
	"drivers/virtio/virtio.ko",
	"drivers/virtio/virtio_ring.ko",
	"drivers/virtio/virtio_pci.ko",
	"drivers/virtio/virtio_pci_modern_dev.ko",
	"drivers/virtio/virtio_pci_legacy_dev.ko",
	"net/core/failover.ko",
	"drivers/net/net_failover.ko",
	"drivers/net/virtio_net.ko",
	"fs/overlayfs/overlay.ko", // buildah's storage
	"fs/autofs/autofs4.ko",    // systemd complains on the console if it is not there
}

// install puts the modules into a root tree, for udev to find.
func (k kernel) install(ctx context.Context, tree string) error {
	from := filepath.Join(k.folder, "lib/modules", k.version)
	to := filepath.Join(tree, "usr/lib/modules", k.version)
	for _, module := range modules {
		path := filepath.Join("kernel", module)
		if err := copyFile(filepath.Join(from, path), filepath.Join(to, path), 0o644); err != nil {
			return err
		}
	}
	for _, list := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := copyFile(filepath.Join(from, list), filepath.Join(to, list), 0o644); err != nil {
			return err
		}
	}
	return run(ctx, "depmod", "--basedir", tree, k.version)
}
