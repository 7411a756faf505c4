package cli

import (
	"bytes"
	"context"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// opened is a TARGET that can be read. What it holds is closed together.
type opened struct {
	fsys    disk.Filesystem
	path    []byte               // in fsys
	backup  *repository.Snapshot // that fsys is of, or nil
	closers []func()

	// Of a backup: its tree, and the disk if the TARGET is one that it has whole.
	tree    *restore.Tree
	whole   disk.Sparse
	defined *definition.Definition // once it was asked for

	leftOut int // files that are damaged, and not on the disk that was made of files
}

func (o *opened) close() {
	for i := len(o.closers) - 1; i >= 0; i-- {
		o.closers[i]()
	}
}

// open is openTarget for a TARGET as the user wrote it.
func (a *app) open(ctx context.Context, text string, l *looking) (*opened, error) {
	t, err := parseTarget(text)
	if err != nil {
		return nil, err
	}
	return a.openTarget(ctx, t, l)
}

// openFileAt opens a TARGET, and looks up the file that its path names.
func (a *app) openFileAt(ctx context.Context, text string, l *looking) (*opened, disk.Inode, error) {
	o, err := a.open(ctx, text, l)
	if err != nil {
		return nil, disk.Inode{}, err
	}
	inode, err := disk.Lookup(o.fsys, o.path)
	if err != nil {
		o.close()
		return nil, disk.Inode{}, err
	}
	return o, inode, nil
}

// openTarget opens the filesystem that a TARGET names.
func (a *app) openTarget(ctx context.Context, t target, l *looking) (_ *opened, err error) {
	o := &opened{path: t.path}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if err := l.check(t); err != nil {
		return nil, err
	}
	switch {
	case t.ofBackup():
		err = a.openBackup(ctx, o, t, l)
	case t.image == "":
		err = a.openLive(ctx, o, t, l)
	default:
		var r *sandbox.Reader
		if r, err = a.openReader(ctx, o, t, l); err == nil {
			o.fsys, err = a.openInside(ctx, r, l)
		}
	}
	if err != nil {
		return nil, err
	}
	a.remark(o.fsys)
	return o, nil
}

// openInside opens the volume on disks that the user names, or what the guest sees.
func (a *app) openInside(ctx context.Context, r *sandbox.Reader, l *looking) (disk.Filesystem, error) {
	if l.volume != "" {
		return openVolume(ctx, r, l.volume)
	}
	return a.openTree(ctx, r, l.all)
}

// openLive opens a disk of a VM that is off, or an internal snapshot of one.
func (a *app) openLive(ctx context.Context, o *opened, t target, l *looking) error {
	c, d, err := a.liveDisk(t)
	if err != nil {
		return err
	}
	if t.disk == "" && l.volume == "" {
		o.path = append([]byte("/"), bytes.TrimLeft(bytes.TrimPrefix(o.path, []byte(d.Mount)), "/")...)
	}
	r, err := a.startLive(ctx, o, c, t, d)
	if err != nil {
		return err
	}
	if l.volume != "" {
		o.fsys, err = openVolume(ctx, r, l.volume)
	} else {
		o.fsys, err = diskFilesystem(ctx, r, d)
	}
	return err
}

// startLive opens configured disks of a target's VM in a worker.
func (a *app) startLive(ctx context.Context, o *opened, c *config.Config, t target, disks ...*config.Disk) (*sandbox.Reader, error) {
	var specs []sandbox.DiskSpec
	for _, d := range disks {
		f, err := o.openFile(d.Path)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", t.vm, d.Name, err)
		}
		if err := lockForReading(f, t); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", t.vm, d.Name, err)
		}
		spec, closeBelow, err := diskSpec(c, d, f, d.Format, t.snapshot)
		if err != nil {
			return nil, err
		}
		defer closeBelow()
		specs = append(specs, spec)
	}
	name := t.vm
	if len(disks) == 1 {
		name += "/" + disks[0].Name
	}
	return a.start(ctx, o, sandboxOptions(c, name), specs...)
}

// liveDisk finds the disk of a VM that a TARGET names: by its name, or as the
// one that the guest mounts at the target's path or above.
func (a *app) liveDisk(t target) (*config.Config, *config.Disk, error) {
	c, v, err := a.liveVM(t)
	if err != nil {
		return nil, nil, err
	}
	if t.disk != "" {
		d, ok := v.Disks[t.disk]
		if !ok {
			return nil, nil, usageError("%s has no disk %q in %s", t.vm, t.disk, a.configPath)
		}
		return c, d, nil
	}
	var best *config.Disk
	for _, d := range v.SortedDisks() {
		if d.Mount != "" && covers(d.Mount, string(t.path)) {
			best = d // sorted: a later one that covers the path lies deeper
		}
	}
	if best == nil {
		return nil, nil, usageError("no disk of %s is mounted at %q or above: name the disk (%s/DISK)", t.vm, t.path, t.vm)
	}
	return c, best, nil
}

// liveVM finds the VM that a TARGET names.
func (a *app) liveVM(t target) (*config.Config, *config.VM, error) {
	c, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	v, ok := c.VMs[t.vm]
	if !ok {
		return nil, nil, usageError("there is no VM %q in %s, and %q ends in none of .qcow2, .raw, .img and .iso", t.vm, a.configPath, t.vm)
	}
	return c, v, nil
}

// covers reports whether the folder at mount holds p.
func covers(mount, p string) bool {
	if mount == "/" {
		return true
	}
	rest, ok := bytes.CutPrefix([]byte(p), []byte(mount))
	return ok && (len(rest) == 0 || rest[0] == '/')
}
