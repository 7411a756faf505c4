//go:build linux

package qemu

import (
	"context"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// dropTimeout is how long QEMU may take to delete a snapshot. It goes through
// the tables of the whole image, and the guest waits meanwhile.
const dropTimeout = 2 * time.Minute

// DeleteSnapshot deletes the internal snapshot called name from the disk whose
// image file is at path, while the machine runs. A snapshot that is not there
// is none of its worries.
func (m *Machine) DeleteSnapshot(ctx context.Context, path, name string) error {
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	c, err := qmp.Dial(ctx, m.path(qmpSocket))
	if err == nil {
		defer c.Close()
		err = deleteSnapshot(ctx, c, path, name)
	}
	if err != nil {
		return m.fail("delete a snapshot", err, "")
	}
	return nil
}

func deleteSnapshot(ctx context.Context, c *qmp.Client, path, name string) error {
	disk, err := qmp.FindDisk(ctx, c, path)
	if err != nil {
		return err
	}
	has := func(s qmp.Snapshot) bool { return s.Name == name }
	if !slices.ContainsFunc(disk.Image.Snapshots, has) {
		return nil
	}
	return c.Execute(ctx, "blockdev-snapshot-delete-internal-sync",
		map[string]string{"device": disk.NodeName, "name": name}, nil)
}
