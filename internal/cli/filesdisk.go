package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backupdisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/newimage"
	"github.com/drydock-vm/drydock/internal/rebuild"
)

// definition is that in the backup; an older backup has none, and it is empty.
func (o *opened) definition() (*definition.Definition, error) {
	if o.defined != nil {
		return o.defined, nil
	}
	d, err := definition.Load(o.tree, o.backup)
	if errors.Is(err, definition.ErrNone) {
		d, err = &definition.Definition{}, nil
	}
	if err == nil {
		o.defined = d
	}
	return d, err
}

// definedDisk is what a backup says of one of its disks; an older backup says no more
// than its name.
func definedDisk(src *opened, name string) (*definition.Disk, error) {
	d, err := src.definition()
	if err != nil {
		return nil, err
	}
	if k := d.Disk(name); k != nil {
		return k, nil
	}
	return &definition.Disk{Name: name}, nil
}

// madeDisk is how a disk is made of the files that a backup has of it.
type madeDisk struct {
	// keep is the path at which is kept what the filesystem has beside content, and
	// taken from if it is there; "" keeps nothing.
	keep string
	// begun: what is kept is there, since a guest has been given a disk of it. Another
	// one would have the files elsewhere.
	begun bool
	size  int64 // of the filesystem, if not that which it had
	grow  bool  // it may become larger than it was, if the files do not fit
	// inside: it lies in something that has the size that it had.
	inside bool
}

// filesDisk shows a disk of which a backup has the files: the filesystem that restore
// --to-image would make, in what is around it as k says.
func (a *app) filesDisk(ctx context.Context, src *opened, t target, k *definition.Disk, how madeDisk) (disk.Sparse, error) {
	size := int64(0)
	if was, ok := backup.FilesystemOf(src.backup, t.disk); ok {
		size = was.Size
	}
	if err := rebuild.CheckLayout(src.backup, k, size); err != nil {
		return nil, fmt.Errorf("put disk %s together: %w (back it up again, or as an image: backup: image)", t.disk, err)
	}
	if len(k.Pieces) == 0 {
		return a.filesystemDisk(ctx, src, t, how)
	}
	layout, err := src.tree.Image(t.disk)
	if err != nil {
		return nil, err
	}
	how.grow, how.inside = false, true
	d, err := a.filesystemDisk(ctx, src, t, how)
	if err != nil {
		return nil, err
	}
	return backupdisk.NewInLayout(layout, d, k)
}

// filesystemDisk shows the bare filesystem, as restore --to-image would make it.
func (a *app) filesystemDisk(ctx context.Context, src *opened, t target, how madeDisk) (disk.Sparse, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the backup has the files of disk %s: to make a disk of them gives files their owners, and takes root", t.disk)
	}
	c, err := config.Load(a.configPath)
	if err != nil {
		return nil, err
	}
	src.path = []byte(path.Clean(string(src.path)))
	tree, err := imageTree(t, src)
	if err != nil {
		return nil, err
	}
	opts, err := a.imageOptions(t, src, imageFlags{})
	if err != nil {
		return nil, err
	}
	opts.Damaged = func(path []byte, err error) {
		src.leftOut++
		fmt.Fprintf(a.stderr, "drydock: not on the disk, since it is damaged: %s: %s\n", escape.Bytes(path), escape.Line(err.Error()))
	}
	opts.Warn = func(path []byte, text string) {
		fmt.Fprintf(a.stderr, "drydock: not on the disk as it was: %s: %s\n", escape.Bytes(path), text)
	}
	opts.Keep, opts.Grow = how.keep, how.grow
	opts.Size = cmp.Or(how.size, opts.Size)
	made, err := skeleton(ctx, tree, filepath.Join(c.State, "work", t.vm+"."+t.disk), opts, how.begun)
	if errors.Is(err, newimage.ErrSize) || errors.Is(err, newimage.ErrFilesystem) {
		return nil, fmt.Errorf("%w: %s", err, how.others())
	}
	if err != nil {
		return nil, err
	}
	d := backupdisk.New(made, tree)
	src.closers = append(src.closers, func() { d.Close() })
	return d, nil
}

// others says what to do about a filesystem that cannot be made as it was.
func (m madeDisk) others() string {
	if m.inside {
		return "it lies in a partition or volume, which has the size that it had (backup: image needs no other; of this backup drydock restore --to-image FILE --size SIZE makes the filesystem alone)"
	}
	return "here it has the type and the size that it had (drydock restore --to-image takes others, drydock start-from-backup --size another size; backup: image needs none)"
}

// errNoSkeleton is of a filesystem that was to be kept, and is gone.
var errNoSkeleton = errors.New("what was made of the backup is gone")

// skeleton opens the filesystem that was kept, or makes it below the name at unless a guest
// was given a disk of it.
func skeleton(ctx context.Context, tree disk.Filesystem, at string, opts newimage.Options, begun bool) (*newimage.Skeleton, error) {
	if opts.Keep != "" {
		_, err := os.Stat(opts.Keep)
		switch gone := errors.Is(err, fs.ErrNotExist); {
		case err == nil:
			return newimage.OpenSkeleton(ctx, tree, opts.Keep, opts)
		case !gone:
			return nil, err
		case begun:
			return nil, errNoSkeleton
		}
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return nil, err
	}
	return newimage.MakeSkeleton(ctx, tree, at, opts)
}
