package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/tarball"
)

const targetHelp = `TARGET is a disk image (PATH.qcow2, PATH.raw), a VM that is off (VM, VM/DISK), or a
backup (VM@BACKUP, VM/DISK@BACKUP, where BACKUP is latest, an ID or a date).
Behind it #NAME picks an internal snapshot of a qcow2 disk, and :/PATH a path in
the guest. The disk is read in a confined process; nothing is mounted, and no
root is needed but for the files themselves.`

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
}

func (a *app) lsCmd() *cobra.Command {
	var recursive bool
	var partition int
	c := &cobra.Command{
		Use:   "ls TARGET",
		Short: "List files of a disk or of a backup",
		Long:  "List files of a disk or of a backup.\n\n" + targetHelp,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.ls(c.Context(), names[0], recursive, partition)
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "list folders below as well")
	c.Flags().IntVar(&partition, "partition", 0, "partition of a disk image that has several")
	return c
}

func (a *app) ls(ctx context.Context, text string, recursive bool, partition int) error {
	o, err := a.open(ctx, text, partition)
	if err != nil {
		return err
	}
	defer o.close()
	inode, err := disk.Lookup(o.fsys, o.path)
	if err != nil {
		return err
	}
	l := &lister{app: a, fsys: o.fsys, recursive: recursive, lines: []fileLine{}}
	if inode.Type() == disk.ModeDir {
		err = l.dir(ctx, inode.Ino, "", 0)
	} else {
		err = l.file(ctx, path.Base(string(o.path)), inode, 0)
	}
	if err == nil && a.json {
		err = a.printJSON(l.lines)
	}
	return err
}

// lister prints files as it comes to them, or collects them for JSON.
type lister struct {
	app       *app
	fsys      disk.Filesystem
	recursive bool
	lines     []fileLine
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
		Modify: time.Unix(inode.Modify.Sec, int64(inode.Modify.Nsec)),
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
	s := fmt.Sprintf("%s %3d %5d %5d %12d %s %s", repository.FileMode(mode), f.Links, f.UID, f.GID, f.Size,
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

func (a *app) catCmd() *cobra.Command {
	var raw bool
	var partition int
	c := &cobra.Command{
		Use:   "cat TARGET",
		Short: "Write a file of a disk or of a backup, or a whole disk, to standard output",
		Long: `Write a file of a disk or of a backup to standard output; with --raw the whole
disk as the guest sees it, decompressed on the way:

  drydock cat --raw web/data | restic backup --stdin

` + targetHelp,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			if raw {
				return a.catRaw(c.Context(), names[0])
			}
			return a.cat(c.Context(), names[0], partition)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "the whole disk, raw")
	c.Flags().IntVar(&partition, "partition", 0, "partition of a disk image that has several")
	return c
}

func (a *app) cat(ctx context.Context, text string, partition int) error {
	o, err := a.open(ctx, text, partition)
	if err != nil {
		return err
	}
	defer o.close()
	inode, err := disk.Lookup(o.fsys, o.path)
	if err != nil {
		return err
	}
	if inode.Type() != disk.ModeRegular {
		return fmt.Errorf("%s is a %s and not a regular file", escape.Bytes(o.path), typeName(inode.Type()))
	}
	f, err := o.fsys.Open(inode.Ino)
	if err != nil {
		return err
	}
	return copyTo(ctx, a.stdout, f)
}

func (a *app) catRaw(ctx context.Context, text string) error {
	t, err := parseTarget(text)
	if err != nil {
		return err
	}
	if t.backup != "" || string(t.path) != "/" || t.image == "" && t.disk == "" {
		return usageError("--raw takes PATH.qcow2, PATH.raw or VM/DISK, with no path in the guest")
	}
	o := &opened{}
	defer o.close()
	if t.image != "" {
		w, err := a.openImage(ctx, o, t)
		if err != nil {
			return err
		}
		return copyTo(ctx, a.stdout, w)
	}
	c, d, err := a.liveDisk(t)
	if err != nil {
		return err
	}
	w, err := a.startLive(ctx, o, c, d, t)
	if err != nil {
		return err
	}
	return copyTo(ctx, a.stdout, w)
}

// copySize is the size of one read, in bytes.
const copySize = 1 << 20

func copyTo(ctx context.Context, w io.Writer, d disk.Sparse) error {
	buf := make([]byte, copySize)
	for off := int64(0); off < d.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := d.ReadAt(buf[:min(copySize, d.Size()-off)], off)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			off += int64(n)
		}
		if err != nil && off < d.Size() {
			return err
		}
	}
	return nil
}

func (a *app) tarCmd() *cobra.Command {
	var partition int
	c := &cobra.Command{
		Use:   "tar TARGET",
		Short: "Write a tar of a disk or of a backup to standard output",
		Long: `Write a tar (PAX) of a disk's or a backup's files to standard output, with owners,
xattrs, hardlinks and devices, sorted, so that the same files give the same tar:

  drydock tar web/data | ssh elsewhere tar -x --xattrs --xattrs-include='*' -C /restore

` + targetHelp,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.tar(c.Context(), names[0], partition) },
	}
	c.Flags().IntVar(&partition, "partition", 0, "partition of a disk image that has several")
	return c
}

func (a *app) tar(ctx context.Context, text string, partition int) error {
	if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usageError("a tar is not for a terminal: write it to a file or a program (drydock tar %s > FILE.tar)", text)
	}
	o, err := a.open(ctx, text, partition)
	if err != nil {
		return err
	}
	defer o.close()
	rep, err := tarball.Write(ctx, a.stdout, o.fsys, o.path, tarball.Options{})
	if err != nil {
		return err
	}
	for _, w := range rep.Warnings {
		fmt.Fprintf(a.stderr, "drydock: %s\n", w)
	}
	if len(rep.Warnings) > 0 {
		return &exitError{exitWarnings, fmt.Errorf("%d files are not in the tar, or not as they were", len(rep.Warnings))}
	}
	return nil
}
