package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// diskSpec describes a configured disk, whose image is open as f, to a worker.
// snapshot names a qcow2 internal snapshot, or is empty. What it opened itself is
// to be closed once the worker has started.
func diskSpec(c *config.Config, d *config.Disk, f *os.File, format, snapshot string) (sandbox.DiskSpec, func(), error) {
	spec := sandbox.DiskSpec{Name: d.Name, File: f, Format: format, Snapshot: snapshot}
	if d.Backing == nil {
		return spec, func() {}, nil
	}
	b, err := openBacking(c, d)
	if err != nil {
		return spec, nil, err
	}
	spec.Backing = b
	return spec, func() { b.File.Close() }, nil
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

// diskFilesystem opens the filesystem that the configuration says a disk holds:
// in a logical volume, in a partition, or on all of the disk.
func diskFilesystem(ctx context.Context, r *sandbox.Reader, d *config.Disk) (disk.Filesystem, error) {
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	v, err := diskVolume(volumes, d)
	if err != nil {
		return nil, err
	}
	return r.Filesystem(ctx, v.Name)
}
