package guest

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// rootFiles are put over the packages' files: those of common into both
// guests, and those of the guest's own folder.
//
//go:embed rootfs
var rootFiles embed.FS

// specFiles are the spec folder of the demo.
//
//go:embed spec
var specFiles embed.FS

// left are the paths of the packages that the guests can do without: half of
// their size.
var left = []string{
	"var/cache/*", "var/lib/apt", "var/lib/dpkg/info", "var/log/*", "etc/apt",
	"usr/lib/udev/hwdb.*", "usr/lib/cni", "usr/lib/x86_64-linux-gnu/gconv",
	"usr/share/bash-completion", "usr/share/doc", "usr/share/i18n", "usr/share/info",
	"usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/zsh",
}

// masked are units that a guest without consoles, users and devices to come
// has no use for: each costs time under emulation.
var masked = []string{
	"dev-hugepages.mount", "dev-mqueue.mount", "dpkg-db-backup.timer", "e2scrub_all.timer",
	"e2scrub_reap.service", "fstrim.timer", "getty.target", "kmod-static-nodes.service",
	"proc-sys-fs-binfmt_misc.automount", "serial-getty@ttyS0.service",
	"sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
	"sys-kernel-tracing.mount", "systemd-ask-password-console.path",
	"systemd-ask-password-wall.path", "systemd-binfmt.service", "systemd-firstboot.service",
	"systemd-journal-flush.service", "systemd-machine-id-commit.service",
	"systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-pstore.service",
	"systemd-random-seed.service", "systemd-repart.service", "systemd-sysctl.service",
	"systemd-sysusers.service", "systemd-tmpfiles-clean.timer", "systemd-update-utmp.service",
	"systemd-update-utmp-runlevel.service", "systemd-user-sessions.service",
}

// unpack makes the root tree of a guest from the tar of its packages.
func (m *maker) unpack(ctx context.Context, name, archive string, enabled ...string) (string, error) {
	tree := filepath.Join(m.work, name)
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	arguments := []string{"--extract", "--file", archive, "--directory", tree,
		"--numeric-owner", "--xattrs", "--xattrs-include=*", "--anchored", "--wildcards"}
	for _, path := range left {
		arguments = append(arguments, "--exclude=./"+path)
	}
	if err := runAsRoot(ctx, "tar", arguments...); err != nil {
		return "", err
	}
	for _, folder := range []string{"common", name} {
		if err := copyEmbedded(rootFiles, "rootfs/"+folder, tree); err != nil {
			return "", err
		}
	}
	units := filepath.Join(tree, "etc/systemd/system")
	for _, unit := range masked {
		if err := link("/dev/null", filepath.Join(units, unit)); err != nil {
			return "", err
		}
	}
	for _, unit := range enabled {
		if err := link("../"+unit, filepath.Join(units, "multi-user.target.wants", unit)); err != nil {
			return "", err
		}
	}
	// The tar has none, and the kernel mounts its devices there.
	if err := os.MkdirAll(filepath.Join(tree, "dev"), 0o755); err != nil {
		return "", err
	}
	// Empty: each boot makes one up, since the root disk is read-only.
	if err := os.WriteFile(filepath.Join(tree, "etc/machine-id"), nil, 0o444); err != nil {
		return "", err
	}
	return tree, m.kernel.install(ctx, tree)
}

// splitVar takes /var out of a root tree, for the data disk, and returns it.
func (m *maker) splitVar(tree string) (string, error) {
	data := tree + ".var"
	if err := os.Rename(filepath.Join(tree, "var"), data); err != nil {
		return "", err
	}
	return data, os.Mkdir(filepath.Join(tree, "var"), 0o755)
}

// link makes a symlink, in the place of whatever is there.
func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// copyEmbedded copies an embedded folder. The files below usr/local are
// programs: embedding does not keep modes.
func copyEmbedded(files embed.FS, folder, to string) error {
	return fs.WalkDir(files, folder, func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		content, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		inside := strings.TrimPrefix(path, folder+"/")
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(inside, "usr/local/") {
			mode = 0o755
		}
		return writeFile(filepath.Join(to, inside), content, mode)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, content, mode)
}

// writeFile writes a file with the folders above it; a symlink in its place is
// replaced and not followed, since it may be one of the guest's.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return fmt.Errorf("make the tree of a guest: %w", err)
	}
	return os.Chmod(path, mode)
}
