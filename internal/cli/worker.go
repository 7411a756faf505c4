package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// startWorker starts the confined reader of one configured disk, whose image
// is open as f. snapshot names a qcow2 internal snapshot, or is empty.
func startWorker(ctx context.Context, c *config.Config, vmName string, d *config.Disk, f *os.File, format, snapshot string) (*sandbox.Disk, error) {
	spec := sandbox.DiskSpec{Name: vmName + "/" + d.Name, File: f, Format: format, Snapshot: snapshot}
	if d.Backing != nil {
		b, err := openBacking(c, d)
		if err != nil {
			return nil, err
		}
		defer b.File.Close()
		spec.Backing = b
	}
	return sandbox.Start(ctx, sandboxOptions(c), spec)
}

// openBacking opens the backing file that the configuration declares, if it
// lies in one of the folders that the configuration allows.
func openBacking(c *config.Config, d *config.Disk) (*sandbox.DiskSpec, error) {
	real, err := filepath.EvalSymlinks(d.Backing.Path)
	if err != nil {
		return nil, fmt.Errorf("backing file of disk %s: %w", d.Name, err)
	}
	if !within(real, c.DiskFolders) {
		return nil, fmt.Errorf("backing file %s of disk %s is in none of disk_folders: add its folder there", real, d.Name)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, fmt.Errorf("backing file of disk %s: %w", d.Name, err)
	}
	return &sandbox.DiskSpec{Name: real, File: f, Format: d.Backing.Format}, nil
}

func within(path string, folders []string) bool {
	for _, f := range folders {
		real, err := filepath.EvalSymlinks(f)
		if err == nil && strings.HasPrefix(path, strings.TrimSuffix(real, "/")+"/") {
			return true
		}
	}
	return false
}
