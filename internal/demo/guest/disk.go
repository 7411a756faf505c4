package guest

import (
	"context"
	"os"
	"path/filepath"
)

// Sizes of the disks in bytes. They are sparse.
const (
	rootSize   = 512 << 20
	dataSize   = 256 << 20
	outputSize = 3 << 30 // buildah's storage, two versions of web, and room
	specSize   = 1 << 20 // while it is blank
)

// filesystem makes the file of a disk that holds an ext4 filesystem, with the
// tree in it if one is given.
func (m *maker) filesystem(ctx context.Context, disk Disk, size int64, tree string) error {
	raw := disk.Path
	if disk.Format != "raw" {
		raw = filepath.Join(m.work, filepath.Base(disk.Path)+".raw")
	}
	if err := createSized(raw, size); err != nil {
		return err
	}
	arguments := []string{"-q", "-F", "-t", "ext4", "-m", "0", "-L", disk.Name, "-E", "root_owner=0:0"}
	if tree != "" {
		arguments = append(arguments, "-d", tree)
	}
	if err := runAsRoot(ctx, "mke2fs", append(arguments, raw)...); err != nil {
		return err
	}
	if raw == disk.Path {
		return nil
	}
	return run(ctx, "qemu-img", "convert", "-f", "raw", "-O", disk.Format, raw, disk.Path)
}

func createSized(path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}
