package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// treeNode is a file in drydock tree --json. Name and Target are escaped.
type treeNode struct {
	Name   string     `json:"name"`
	Type   string     `json:"type"`
	Size   int64      `json:"size,omitempty"` // bytes, of a regular file
	Target string     `json:"target,omitempty"`
	Files  []treeNode `json:"files,omitempty"`
}

func (a *app) treeCmd() *cobra.Command {
	var depth int
	var l *looking
	c := &cobra.Command{
		Use:   "tree TARGET",
		Short: "Draw the folders and files of a disk or of a backup",
		Long:  "Draw the folders and files of a disk or of a backup as a tree.\n\n" + targetHelp,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			if depth < 0 {
				return usageError("--depth %d: a depth is 1 or more", depth)
			}
			return a.tree(c.Context(), names[0], depth, l)
		},
	}
	c.Flags().IntVarP(&depth, "depth", "L", 0, "how many folders deep; 0 is all")
	l = lookFlags(c)
	return c
}

func (a *app) tree(ctx context.Context, text string, depth int, how *looking) error {
	o, inode, err := a.openFileAt(ctx, text, how)
	if err != nil {
		return err
	}
	defer o.close()
	return a.draw(ctx, o.fsys, o.path, inode, depth)
}

func (a *app) draw(ctx context.Context, fsys disk.Filesystem, path []byte, inode disk.Inode, depth int) (err error) {
	if depth == 0 || depth > maxListDepth {
		depth = maxListDepth
	}
	d := &drawing{app: a, fsys: fsys, visited: make(map[uint64]bool)}
	root := treeNode{Name: escape.Bytes(path), Type: typeName(inode.Type())}
	if !a.json {
		a.printf("%s\n", root.Name)
	}
	if inode.Type() == disk.ModeDir {
		if root.Files, err = d.dir(ctx, inode.Ino, "", depth); err != nil {
			return err
		}
	}
	if a.json {
		if err := a.printJSON(root); err != nil {
			return err
		}
	}
	return d.result()
}

// drawing draws folders as it comes to them, or collects them for JSON.
type drawing struct {
	app     *app
	fsys    disk.Filesystem
	visited map[uint64]bool // folders: a damaged disk may hold one in itself
	damaged int
}

// result is the error of a drawing that is not all.
func (d *drawing) result() error {
	if d.damaged == 0 {
		return nil
	}
	return &exitError{exitWarnings, fmt.Errorf("%d files or folders could not be read", d.damaged)}
}

func (d *drawing) dir(ctx context.Context, ino uint64, indent string, depth int) ([]treeNode, error) {
	if depth == 0 {
		return nil, nil
	}
	if d.visited[ino] {
		d.warn("%sfolder %d is in itself, or in two places", indent, ino)
		return nil, nil
	}
	d.visited[ino] = true
	entries, err := disk.List(d.fsys, ino)
	if err != nil {
		d.warn("%v", err)
	}
	var nodes []treeNode
	for i, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		branch, below := "├── ", "│   "
		if i == len(entries)-1 {
			branch, below = "└── ", "    "
		}
		inode, err := d.fsys.Inode(e.Ino)
		if err != nil {
			d.warn("%s: %v", escape.Bytes(e.Name), err)
			continue
		}
		node := d.node(&inode, e.Name)
		if !d.app.json {
			d.app.printf("%s%s%s\n", indent, branch, node.text())
		}
		if inode.Type() == disk.ModeDir {
			if node.Files, err = d.dir(ctx, e.Ino, indent+below, depth-1); err != nil {
				return nil, err
			}
		}
		if d.app.json {
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

func (d *drawing) node(inode *disk.Inode, name []byte) treeNode {
	n := treeNode{Name: escape.Bytes(name), Type: typeName(inode.Type())}
	switch inode.Type() {
	case disk.ModeRegular:
		n.Size = inode.Size
	case disk.ModeSymlink:
		if target, err := d.fsys.Readlink(inode.Ino); err == nil {
			n.Target = escape.Bytes(target)
		} else {
			d.warn("%s: %v", n.Name, err)
		}
	}
	return n
}

func (n *treeNode) text() string {
	switch n.Type {
	case "dir":
		return n.Name + "/"
	case "symlink":
		return n.Name + " -> " + n.Target
	}
	return n.Name
}

func (d *drawing) warn(format string, args ...any) {
	d.damaged++
	fmt.Fprintf(d.app.stderr, "drydock: "+format+"\n", args...)
}
