//go:build linux

package qmp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoDisk says that the machine does not have the disk.
var ErrNoDisk = errors.New("the machine has no qcow2 disk in this file")

// Node is what is used of BlockDeviceInfo (qapi/block-core.json).
type Node struct {
	NodeName string `json:"node-name"`
	Driver   string `json:"drv"`
	File     string `json:"file"`
	Backing  string `json:"backing_file"` // what it lies on; "" if on nothing
	Image    struct {
		Snapshots []Snapshot `json:"snapshots"`
	} `json:"image"`
}

// Snapshot is an internal snapshot of a disk; its name is hostile.
type Snapshot struct {
	Name string `json:"name"`
}

// FindDisk returns the node that reads the qcow2 in the file at path. It may be
// below another one, such as a throttle: then QEMU refuses to delete, and the
// snapshot has to wait until the machine is off.
func (c *Client) FindDisk(ctx context.Context, path string) (Node, error) {
	want, err := os.Stat(path)
	if err != nil {
		return Node{}, err
	}
	var nodes []Node
	// flat leaves out the backing chains, which are nodes of their own.
	if err := c.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes); err != nil {
		return Node{}, err
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
	return Node{}, fmt.Errorf("%s: %w", path, ErrNoDisk)
}
