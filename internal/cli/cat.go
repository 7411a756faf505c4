package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/escape"
)

func (a *app) catCmd() *cobra.Command {
	var raw bool
	var l *looking
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
				return a.catRaw(c.Context(), names[0], l)
			}
			return a.cat(c.Context(), names[0], l)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "the whole disk, or with --volume a volume, raw")
	l = lookFlags(c)
	return c
}

func (a *app) cat(ctx context.Context, text string, l *looking) error {
	o, inode, err := a.openFileAt(ctx, text, l)
	if err != nil {
		return err
	}
	defer o.close()
	if inode.Type() != disk.ModeRegular {
		return fmt.Errorf("%s is a %s and not a regular file", escape.Bytes(o.path), typeName(inode.Type()))
	}
	f, err := o.fsys.Open(inode.Ino)
	if err != nil {
		return err
	}
	return copyTo(ctx, a.stdout, f)
}

func (a *app) catRaw(ctx context.Context, text string, l *looking) error {
	o := &opened{}
	defer o.close()
	d, err := a.openBytes(ctx, o, text, l)
	if err != nil {
		return err
	}
	return copyTo(ctx, a.stdout, d)
}

// openBytes opens a disk, or the volume on it that l names, as the bytes that the
// guest sees.
func (a *app) openBytes(ctx context.Context, o *opened, text string, l *looking) (disk.Sparse, error) {
	t, err := parseTarget(text)
	if err != nil {
		return nil, err
	}
	if t.backup != "" && l.volume == "" {
		return a.openBackedUp(ctx, o, t, l)
	}
	r, err := a.openDisks(ctx, o, t, l)
	if err != nil {
		return nil, err
	}
	if l.volume == "" {
		return r.Disks()[0], nil
	}
	v, err := findVolume(ctx, r, l.volume)
	if err != nil {
		return nil, err
	}
	return r.Volume(ctx, v.Name)
}

// openBackedUp opens a disk of a backup: as it has it, or made up of its files.
func (a *app) openBackedUp(ctx context.Context, o *opened, t target, l *looking) (disk.Sparse, error) {
	switch {
	case t.disk == "":
		return nil, usageError("a backup of %s is no disk: name one of its disks (%s/DISK@%s)", t.vm, t.vm, t.backup)
	case t.pathed:
		return nil, usageError("that is a file on a disk, and not the disk: leave the path out (%s/%s@%s)", t.vm, t.disk, t.backup)
	}
	if err := l.check(t); err != nil {
		return nil, err
	}
	if _, err := a.openStored(ctx, o, t); err != nil {
		return nil, err
	}
	switch {
	case o.whole != nil:
		return o.whole, nil
	case !wholedisk.HasLayout(o.backup, t.disk): // it fills the disk, or all that is there is the filesystem
		return a.filesystemDisk(ctx, o, t, madeDisk{})
	}
	k, err := definedDisk(o, t.disk)
	if err != nil {
		return nil, err
	}
	return a.filesDisk(ctx, o, t, k, madeDisk{})
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
