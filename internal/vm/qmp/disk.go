//go:build linux

package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
		Backing   string     `json:"backing-filename"` // what the image's header says that it lies on
	} `json:"image"`
}

// Snapshot is an internal snapshot of a disk; its name is hostile.
type Snapshot struct {
	Name string `json:"name"`
}

// nodes are those of a machine. The nodes that an image lies on are among them.
func nodes(ctx context.Context, m Monitor) ([]Node, error) {
	var list []Node
	// flat leaves out the backing chains, which are nodes of their own.
	err := m.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &list)
	return list, err
}

// FindDisk returns the node that reads the qcow2 in the file at path. It may be
// below another one, such as a throttle: then QEMU refuses to delete, and the
// snapshot has to wait until the machine is off.
func FindDisk(ctx context.Context, m Monitor, path string) (Node, error) {
	want, err := os.Stat(path)
	if err != nil {
		return Node{}, err
	}
	list, err := nodes(ctx, m)
	if err != nil {
		return Node{}, err
	}
	for _, n := range list {
		// What is in no file has no path that drydock knows of. QEMU's own name of
		// the file only ever leads to the file that the caller named.
		file := n.file()
		if n.Driver != "qcow2" || !filepath.IsAbs(file) {
			continue
		}
		if got, err := os.Stat(file); err == nil && os.SameFile(got, want) {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("%s: %w", path, ErrNoDisk)
}

// file is the path of the file that a node reads, or no path. Where QEMU was told what an
// image lies on, the path is one of several options.
func (n Node) file() string {
	options, ok := strings.CutPrefix(n.File, "json:")
	if !ok {
		return n.File
	}
	var has struct {
		File struct {
			Filename string `json:"filename"`
		} `json:"file"`
	}
	if json.Unmarshal([]byte(options), &has) != nil {
		return ""
	}
	return has.File.Filename
}
