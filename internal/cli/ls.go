package cli

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// fileLine is one file in drydock ls.
type fileLine struct {
	Name   string    `json:"name"` // escaped where it is not plain text
	Type   string    `json:"type"`
	Mode   string    `json:"mode"` // octal permission bits
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Links  uint32    `json:"links"`
	Size   int64     `json:"size"`
	Modify time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"` // of a symlink, escaped
	Flags  []string  `json:"flags,omitempty"`
}

func (a *app) lsCmd() *cobra.Command {
	var recursive bool
	var l *looking
	c := &cobra.Command{
		Use:   "ls TARGET",
		Short: "List files of a disk or of a backup",
		Long:  "List files of a disk or of a backup.\n\n" + targetHelp,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.ls(c.Context(), names[0], recursive, l)
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "list folders below as well")
	l = lookFlags(c)
	return c
}

func (a *app) ls(ctx context.Context, text string, recursive bool, how *looking) error {
	o, inode, err := a.openFileAt(ctx, text, how)
	if err != nil {
		return err
	}
	defer o.close()
	l := &lister{app: a, fsys: o.fsys, recursive: recursive, lines: []fileLine{}}
	if inode.Type() == disk.ModeDir {
		err = l.dir(ctx, inode.Ino, "", 0)
	} else {
		err = l.file(ctx, path.Base(string(o.path)), inode, 0)
	}
	if err == nil && a.json {
		err = a.printJSON(l.lines)
	}
	if err == nil && l.damaged > 0 {
		err = &exitError{exitWarnings, fmt.Errorf("%d files could not be read", l.damaged)}
	}
	return err
}

// lister prints files as it comes to them, or collects them for JSON.
type lister struct {
	app       *app
	fsys      disk.Filesystem
	recursive bool
	lines     []fileLine
	damaged   int
}

// maxListDepth ends a recursive listing of a filesystem that loops.
const maxListDepth = 4096

func (l *lister) dir(ctx context.Context, ino uint64, prefix string, depth int) error {
	if depth > maxListDepth {
		return fmt.Errorf("%s: more than %d folders deep", escape.Line(prefix), maxListDepth)
	}
	entries, err := disk.List(l.fsys, ino)
	if err != nil {
		return err
	}
	for _, e := range entries {
		inode, err := l.fsys.Inode(e.Ino)
		if err != nil {
			// One damaged file must not hide the others.
			l.damaged++
			fmt.Fprintf(l.app.stderr, "drydock: %s: %v\n", escape.Bytes([]byte(prefix+string(e.Name))), err)
			continue
		}
		if err := l.file(ctx, prefix+string(e.Name), inode, depth); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) file(ctx context.Context, name string, inode disk.Inode, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	line := fileLine{
		Name: escape.Bytes([]byte(name)), Type: typeName(inode.Type()), Mode: fmt.Sprintf("%04o", inode.Mode&0o7777),
		UID: inode.UID, GID: inode.GID, Links: inode.Links, Size: inode.Size,
		Modify: timeOf(inode.Modify), Flags: inode.Flags.Names(),
	}
	if inode.Type() == disk.ModeSymlink {
		if target, err := l.fsys.Readlink(inode.Ino); err == nil {
			line.Target = escape.Bytes(target)
		}
	}
	if l.app.json {
		l.lines = append(l.lines, line)
	} else {
		l.app.printf("%s\n", line.text(inode.Mode))
	}
	if l.recursive && inode.Type() == disk.ModeDir {
		return l.dir(ctx, inode.Ino, name+"/", depth+1)
	}
	return nil
}

func (f *fileLine) text(mode uint32) string {
	s := fmt.Sprintf("%s %3d %5d %5d %12d %s %s", modeText(mode), f.Links, f.UID, f.GID, f.Size,
		f.Modify.Format("2006-01-02 15:04"), f.Name)
	if f.Target != "" {
		s += " -> " + f.Target
	}
	return s
}

func typeName(t uint32) string {
	switch t {
	case disk.ModeRegular:
		return "file"
	case disk.ModeDir:
		return "dir"
	case disk.ModeSymlink:
		return "symlink"
	case disk.ModeBlock:
		return "block"
	case disk.ModeChar:
		return "char"
	case disk.ModeFIFO:
		return "fifo"
	case disk.ModeSocket:
		return "socket"
	}
	return "unknown"
}
