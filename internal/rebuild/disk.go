package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/newimage"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/restore"
)

// formatQCOW2 is the format that is made by qemu-img; the other is raw.
const formatQCOW2 = image.FormatQCOW2

// disk makes a disk beside its place, and puts it there. After an error nothing is left
// of it but what [restore.Tree.WriteImage] goes on with.
func (x *run) disk(ctx context.Context, it *Item) (err error) {
	dir, err := it.place.folder()
	if err != nil {
		return err
	}
	unlock, err := x.alone(it)
	if err != nil {
		return err
	}
	defer unlock()
	part := filepath.Join(dir, filepath.Base(it.Path)+newEnding+"."+it.disk.Format)
	if err := remove(part); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(part)) }()
	if err := x.make(ctx, it, part); err != nil {
		return err
	}
	if err := own(part, it.disk.Owner); err != nil {
		return err
	}
	if err := x.note(part, it.Path); err != nil {
		return err
	}
	root, err := os.OpenRoot(it.place.base)
	if err != nil {
		return err
	}
	defer root.Close()
	return it.rename(root, filepath.Join(filepath.Dir(it.place.rel), filepath.Base(part)))
}

// own gives a new disk its owner, and has all that was done to it on stable storage:
// its size may have been the last.
func own(path string, o *definition.Owner) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if o != nil {
		if err := f.Chown(int(o.UID), int(o.GID)); err != nil {
			return err
		}
		if err := f.Chmod(fs.FileMode(o.Mode) & fs.ModePerm); err != nil {
			return err
		}
	}
	return f.Sync()
}

// alone holds QEMU's lock on a disk that is replaced: a VM that uses it would go on
// writing to the old one.
func (x *run) alone(it *Item) (func(), error) {
	if it.Action != Replace {
		return func() {}, nil
	}
	f, err := os.OpenFile(it.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if _, err := imagelock.Acquire(f, imagelock.Exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// make makes the disk at part, whole and durable.
func (x *run) make(ctx context.Context, it *Item, part string) error {
	switch it.From {
	case FromFiles:
		return x.fromFiles(ctx, it, part)
	case FromImage:
		return x.fromImage(ctx, it, part)
	case FromVersion:
		return x.fromVersion(ctx, it, part)
	}
	return x.empty(ctx, it, part)
}

// fromImage writes a disk back that the backup has whole.
func (x *run) fromImage(ctx context.Context, it *Item, part string) error {
	o := restore.ImageOptions{Progress: func(r restore.ImageReport) {
		x.tell("writing "+it.What, r.Written+r.Holes+r.Resumed, r.Size)
	}}
	if it.disk.Format == formatQCOW2 {
		whole, err := x.opts.Tree.Image(it.disk.Name)
		if err != nil {
			return err
		}
		return restore.WriteQCOW2(ctx, whole, part, tool(it), o)
	}
	_, err := x.opts.Tree.WriteImage(ctx, it.disk.Name, part, o)
	return err
}

// fromVersion brings the version into the image store, where its digest is checked, and
// makes the disk of it.
func (x *run) fromVersion(ctx context.Context, it *Item, part string) error {
	r := it.disk.Release
	whole, err := x.opts.Tree.Image(it.disk.Name)
	if err != nil {
		return err
	}
	in := io.NewSectionReader(whole, 0, whole.Size())
	v, err := x.opts.Store.Import(ctx, r.Image, r.Version, in, image.Want{Size: r.Size, SHA256: r.SHA256}, image.Meta{Origin: "backup " + x.Backup})
	if err != nil && !errors.Is(err, image.ErrUnchanged) {
		return err
	}
	if err := x.opts.Store.Make(ctx, v, image.Target{Path: part, Format: it.disk.Format}, it.disk.Size); err != nil {
		return err
	}
	if _, err := x.opts.Store.Current(r.Image); errors.Is(err, image.ErrNoVersion) {
		return x.opts.Store.Promote(r.Image, v.ID)
	} else if err != nil {
		return err
	}
	return nil
}

// fromFiles makes a filesystem of what the guest had on the disk.
func (x *run) fromFiles(ctx context.Context, it *Item, part string) error {
	mount, ok := backup.DiskMount(x.opts.Snapshot, it.disk.Name)
	if !ok {
		return fmt.Errorf("%s: %w", it.What, disk.ErrNotExist)
	}
	tree, err := x.opts.Tree.Disk(x.opts.Snapshot, it.disk.Name, mount)
	if err != nil {
		return err
	}
	if len(it.disk.Pieces) > 0 {
		return x.inLayout(ctx, it, tree, part)
	}
	if err := x.filesystem(ctx, it, tree, part); err != nil {
		return err
	}
	if it.disk.Size <= it.was.Size {
		return nil
	}
	if it.disk.Format == formatQCOW2 {
		return tool(it).Resize(ctx, part, it.disk.Size)
	}
	return os.Truncate(part, it.disk.Size)
}

// filesystem makes the image with the filesystem.
func (x *run) filesystem(ctx context.Context, it *Item, tree disk.Filesystem, target string) error {
	o := newimage.Options{
		Filesystem: it.was.Type, Size: it.was.Size, UUID: it.was.UUID, Label: it.was.Label,
		Writer: x.opts.Writer, Read: x.opts.Read, Convert: tool(it).ConvertRaw,
		Progress: func(p newimage.Progress) { x.tell(it.What+": "+p.Step, p.Bytes, p.Of) },
		Differs: func(c *diff.Change) {
			x.warn("%s: %s is not as it is in the backup", it.What, escape.Bytes(c.Path))
		},
		Warn: func(path []byte, text string) { x.warn("%s: %s: %s", it.What, escape.Bytes(path), text) },
		Damaged: func(path []byte, err error) {
			x.warn("%s: %s could not be read: %s", it.What, escape.Bytes(path), escape.Line(err.Error()))
		},
	}
	_, err := newimage.Make(ctx, tree, target, o)
	if errors.Is(err, newimage.ErrSize) {
		err = fmt.Errorf("%w: it has the size that it had, and what shared its blocks, as snapshots do, or was compressed, does so no more (%s)", err, x.larger(it.disk))
	}
	return err
}

// larger says how a disk comes back that is too small.
func (x *run) larger(d *definition.Disk) string {
	if d.Partition == 0 && d.Volume == "" {
		return "--size " + d.Name + "=SIZE makes it larger"
	}
	return fmt.Sprintf("--without %[1]s leaves it out; drydock restore %[2]s/%[1]s@%[3]s --to-image FILE --size SIZE makes a larger filesystem of its files alone", d.Name, x.VM, x.opts.Snapshot.ID.Short())
}

// empty makes a disk without content.
func (x *run) empty(ctx context.Context, it *Item, part string) error {
	raw := part
	if it.disk.Format == formatQCOW2 {
		raw = part + ".raw"
		defer os.Remove(raw)
	}
	f, err := os.OpenFile(raw, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(it.disk.Size), f.Sync(), f.Close()); err != nil {
		return err
	}
	if raw == part {
		return nil
	}
	return tool(it).ConvertRaw(ctx, raw, part)
}

// tool makes qcow2 images with clusters as the disk had them.
func tool(it *Item) *qemuimg.Tool {
	return qemuimg.New(qemuimg.Options{ClusterSize: it.disk.ClusterSize})
}

// remove removes a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
