package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/newimage"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// imageFlags say what image is made of the files of a backup.
type imageFlags struct {
	path       string
	filesystem string
	size       string
	overwrite  bool
	writer     config.Writer // what the command line says of it
}

// restoreImage makes a disk image with a new filesystem of what a backup has.
func (a *app) restoreImage(ctx context.Context, t target, src *opened, flags imageFlags) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("--to-image gives files their owners, and takes root")
	}
	if ending := path.Ext(flags.path); formats[ending] == "" {
		return usageError("--to-image %s: the name of a disk image ends in .qcow2, .raw or .img", flags.path)
	}
	src.path = []byte(path.Clean(string(src.path)))
	tree, err := imageTree(t, src)
	if err != nil {
		return err
	}
	opts, err := a.imageOptions(t, src, flags)
	if err != nil {
		return err
	}
	shown := &diffPrinter{app: &app{stdout: a.stderr, stderr: a.stderr}}
	opts.Warn = func(path []byte, text string) {
		fmt.Fprintf(a.stderr, "drydock: %s: %s\n", escape.Bytes(path), text)
	}
	differs := 0
	opts.Differs = func(c *diff.Change) {
		if differs++; differs <= maxDiffersShown {
			_ = shown.change(c) // it says itself that something differs
		}
	}
	opts.Damaged = shown.damaged
	rep, err := newimage.Make(ctx, tree, flags.path, opts)
	if err != nil {
		return err
	}
	err = a.printResult(rep, "restored %d files, %s, to %s: %s of %s",
		rep.Files, round.Bytes(rep.Bytes), flags.path, opts.Filesystem, round.Bytes(rep.Size))
	if err != nil {
		return err
	}
	if differs > maxDiffersShown {
		fmt.Fprintf(a.stderr, "drydock: and %d more\n", differs-maxDiffersShown)
	}
	if differs > 0 || rep.Damaged > 0 || rep.Differs.Damaged > 0 {
		return &exitError{exitWarnings, fmt.Errorf("restored, but %d files are not in the image as they are in the backup, and %d could not be read", differs, rep.Damaged+rep.Differs.Damaged)}
	}
	return nil
}

// maxDiffersShown is how many files are named that are not as they should be.
const maxDiffersShown = 20

// imageTree is what comes into the image: the folder that the target names, without
// what other disks hold in it if the target names a disk.
func imageTree(t target, src *opened) (disk.Filesystem, error) {
	top, err := disk.Lookup(src.fsys, src.path)
	if err != nil {
		return nil, err
	}
	if top.Type() != disk.ModeDir {
		return nil, usageError("%s is a %s, and --to-image takes a folder", escape.Bytes(src.path), typeName(top.Type()))
	}
	if src.whole != nil {
		return restore.Below(src.fsys, top.Ino), nil
	}
	if t.disk != "" {
		return src.tree.Disk(src.backup, t.disk, string(src.path))
	}
	guest, err := src.tree.Guest(src.backup)
	if err != nil {
		return nil, err
	}
	return restore.Below(guest, top.Ino), nil
}

// imageOptions takes what the user does not say from what the backup tells of the
// disk's filesystem.
func (a *app) imageOptions(t target, src *opened, flags imageFlags) (newimage.Options, error) {
	name := t.disk
	for _, tag := range src.backup.Tags {
		if disk, mount, ok := strings.Cut(strings.TrimPrefix(tag, "disk:"), "="); ok && strings.HasPrefix(tag, "disk:") && name == "" && mount == string(src.path) {
			name = disk
		}
	}
	was, known := backup.FilesystemOf(src.backup, name)
	if src.whole != nil {
		info := src.fsys.Info()
		was = backup.DiskFilesystem{Type: info.Type, UUID: info.UUID, Size: info.Size, Label: info.Label}
	}
	o := newimage.Options{Filesystem: cmp.Or(flags.filesystem, was.Type), Size: was.Size, Overwrite: flags.overwrite}
	// Below a disk's root it is another filesystem, and UUIDs are unique.
	mount, ok := backup.DiskMount(src.backup, name)
	if ok && known && bytes.Equal(src.path, []byte(mount)) || src.whole != nil && string(src.path) == "/" {
		o.UUID, o.Label = was.UUID, was.Label
	}
	if o.Filesystem == "" {
		return o, usageError("the backup does not tell what filesystem it was: choose one with --fs (ext4, xfs or btrfs)")
	}
	if flags.size != "" {
		n, err := parseSize(flags.size)
		if err != nil {
			return o, usageError("--size %q: a size is 500M, 20G or 1T", flags.size)
		}
		o.Size = int64(n)
	}
	if o.Size == 0 {
		return o, usageError("the backup does not tell how large the filesystem was: choose a size with --size (20G)")
	}
	var err error
	if o.Writer, err = a.writer(flags.writer); err != nil {
		return o, err
	}
	o.Read = a.readImage
	o.Convert = qemuimg.New(qemuimg.Options{}).ConvertRaw
	est := newEstimate(a)
	o.Progress = func(p newimage.Progress) { est.tell(p.Step, p.Bytes, p.Of) }
	return o, nil
}

// writer is the machine that writes filesystems, as the command line and the
// configuration say.
func (a *app) writer(w config.Writer) (writervm.Options, error) {
	c, err := a.load()
	if err != nil {
		return writervm.Options{}, err
	}
	return writerOf(c, w)
}

// writerOf is what c says, where w says nothing else.
func writerOf(c *config.Config, w config.Writer) (writervm.Options, error) {
	if w.Kernel == "" {
		if w.Modules != "" {
			return writervm.Options{}, usageError("--modules %s: --kernel is missing, the kernel that they are of", w.Modules)
		}
		w.Kernel, w.Modules = c.Writer.Kernel, c.Writer.Modules
	}
	o := writervm.Options{Kernel: writervm.Kernel{Image: w.Kernel, Modules: w.Modules}}
	switch c.Writer.Accelerator {
	case config.AcceleratorKVM:
		o.Accelerator = writervm.KVM
	case config.AcceleratorTCG:
		o.Accelerator = writervm.TCG
	}
	return o, nil
}

// readImage opens the filesystem of a new image in a confined reader.
func (a *app) readImage(ctx context.Context, image *os.File) (disk.Filesystem, func(), error) {
	c, err := config.Load(a.configPath)
	if err != nil {
		return nil, nil, err
	}
	return a.readImageAs(ctx, sandboxOptions(c, "restore"), image)
}

// readImageAs does that with a reader that is confined so.
func (a *app) readImageAs(ctx context.Context, o sandbox.Options, image *os.File) (disk.Filesystem, func(), error) {
	r, err := sandbox.Start(ctx, o, sandbox.DiskSpec{Name: "image", File: image, Format: "raw"})
	if err != nil {
		return nil, nil, err
	}
	fsys, err := a.openTree(ctx, r, true)
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return fsys, func() { r.Close() }, nil
}
