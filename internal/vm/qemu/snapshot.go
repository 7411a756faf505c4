//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	disk, err := findDisk(ctx, c, path)
	if err != nil {
		return err
	}
	has := func(s snapshotInfo) bool { return s.Name == name }
	if !slices.ContainsFunc(disk.Image.Snapshots, has) {
		return nil
	}
	return c.Execute(ctx, "blockdev-snapshot-delete-internal-sync",
		map[string]string{"device": disk.NodeName, "name": name}, nil)
}

// errNoDisk says that the machine does not have the disk.
var errNoDisk = errors.New("the machine has no qcow2 disk in this file")

// blockNode is what is used of BlockDeviceInfo (qapi/block-core.json).
type blockNode struct {
	NodeName string `json:"node-name"`
	Driver   string `json:"drv"`
	File     string `json:"file"`
	Image    struct {
		Snapshots []snapshotInfo `json:"snapshots"`
	} `json:"image"`
}

type snapshotInfo struct {
	Name string `json:"name"`
}

// findDisk returns the node that reads the qcow2 in the file at path. It may be
// below another one, such as a throttle: then QEMU refuses to delete, and the
// snapshot has to wait until the machine is off.
func findDisk(ctx context.Context, c *qmp.Client, path string) (blockNode, error) {
	want, err := os.Stat(path)
	if err != nil {
		return blockNode{}, err
	}
	var nodes []blockNode
	// flat leaves out the backing chains, which are nodes of their own.
	if err := c.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes); err != nil {
		return blockNode{}, err
	}
	for _, n := range nodes {
		// What is no plain path ("json:…", "nbd://…") is no file that drydock
		// has a snapshot of. QEMU's own name of the file only ever leads to
		// the file that the caller named.
		if n.Driver != "qcow2" || !filepath.IsAbs(n.File) {
			continue
		}
		if got, err := os.Stat(n.File); err == nil && os.SameFile(got, want) {
			return n, nil
		}
	}
	return blockNode{}, fmt.Errorf("%s: %w", path, errNoDisk)
}
