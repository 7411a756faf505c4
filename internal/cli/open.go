package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// opened is a TARGET that can be read. What it holds is closed together.
type opened struct {
	fsys    disk.Filesystem
	path    []byte // in fsys
	closers []func()
}

func (o *opened) close() {
	for i := len(o.closers) - 1; i >= 0; i-- {
		o.closers[i]()
	}
}

// open is openTarget for a TARGET as the user wrote it.
func (a *app) open(ctx context.Context, text string, partition int) (*opened, error) {
	t, err := parseTarget(text)
	if err != nil {
		return nil, err
	}
	return a.openTarget(ctx, t, partition)
}

// openTarget opens the filesystem that a TARGET names. partition is that of a
// disk image that has several; 0 is the only one that can be read.
func (a *app) openTarget(ctx context.Context, t target, partition int) (_ *opened, err error) {
	o := &opened{path: t.path}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	switch {
	case t.image != "":
		w, err := a.openImage(ctx, o, t)
		if err != nil {
			return nil, err
		}
		o.fsys, err = onlyFilesystem(ctx, w, partition)
		return o, err
	case t.backup != "":
		return o, a.openBackup(ctx, o, t)
	}
	return o, a.openLive(ctx, o, t)
}

// openImage opens a disk image that the user names by its path, in a worker.
func (a *app) openImage(ctx context.Context, o *opened, t target) (*sandbox.Disk, error) {
	f, err := os.Open(t.image)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, func() { f.Close() })
	if err := lockForReading(f, t); err != nil {
		return nil, err
	}
	// The configuration is asked for the sandbox alone, and need not exist: an
	// image is looked into by anybody.
	var opts sandbox.Options
	if c, err := config.Load(a.configPath); err == nil {
		opts = sandboxOptions(c)
	}
	w, err := sandbox.Start(ctx, opts, sandbox.DiskSpec{Name: t.image, File: f, Format: t.format, Snapshot: t.snapshot})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, func() { w.Close() })
	return w, nil
}

// lockForReading keeps a QEMU from starting on the disk while it is read. An
// internal snapshot does not change, so it needs no lock.
func lockForReading(f *os.File, t target) error {
	if t.snapshot != "" {
		return nil
	}
	_, err := imagelock.Acquire(f, imagelock.ReadShared)
	if errors.Is(err, imagelock.ErrInUse) {
		return fmt.Errorf("%w: look into a backup (VM@latest), or an internal snapshot of it (#NAME)", err)
	}
	return err
}

// onlyFilesystem opens the filesystem on a partition, or the only one that can
// be read.
func onlyFilesystem(ctx context.Context, w *sandbox.Disk, partition int) (disk.Filesystem, error) {
	if partition > 0 {
		return w.Filesystem(ctx, partition)
	}
	volumes, err := w.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	found := -1
	for _, v := range volumes {
		if !v.Readable {
			continue
		}
		if found >= 0 {
			return nil, usageError("%s has several filesystems: name one with --partition%s", w.Name(), volumesHint(ctx, w, -1))
		}
		found = v.Number
	}
	if found < 0 {
		return nil, fmt.Errorf("%s has no filesystem that drydock reads%s", w.Name(), volumesHint(ctx, w, -1))
	}
	return w.Filesystem(ctx, found)
}

// openBackup opens the tree of a backup, or the part of it that is one disk's.
func (a *app) openBackup(ctx context.Context, o *opened, t target) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	// A prune meanwhile could take away what is being read.
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return err
	}
	o.closers = append(o.closers, func() {
		if err := lock.Unlock(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintf(a.stderr, "drydock: %v\n", err)
		}
	})
	ctx = lock.Context()
	s, err := restore.Find(ctx, repo, t.vm, t.backup)
	if err != nil {
		return err
	}
	if t.disk != "" {
		mount, ok := backup.DiskMount(s, t.disk)
		if !ok {
			return fmt.Errorf("backup %s of %s has no disk %q", s.ID.Short(), t.vm, t.disk)
		}
		o.path = []byte(path.Join("/", mount) + string(o.path))
	}
	o.fsys, err = restore.OpenTree(ctx, repo, s)
	return err
}

// openLive opens a disk of a VM that is off, or an internal snapshot of one.
func (a *app) openLive(ctx context.Context, o *opened, t target) error {
	c, d, err := a.liveDisk(t)
	if err != nil {
		return err
	}
	if t.disk == "" {
		o.path = append([]byte("/"), bytes.TrimLeft(bytes.TrimPrefix(o.path, []byte(d.Mount)), "/")...)
	}
	w, err := a.startLive(ctx, o, c, d, t)
	if err != nil {
		return err
	}
	o.fsys, err = w.Filesystem(ctx, d.Partition)
	if err != nil {
		return fmt.Errorf("%w%s", err, volumesHint(ctx, w, d.Partition))
	}
	return nil
}

// startLive opens a configured disk in a worker.
func (a *app) startLive(ctx context.Context, o *opened, c *config.Config, d *config.Disk, t target) (*sandbox.Disk, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", t.vm, d.Name, err)
	}
	o.closers = append(o.closers, func() { f.Close() })
	if err := lockForReading(f, t); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", t.vm, d.Name, err)
	}
	w, err := startWorker(ctx, c, t.vm, d, f, d.Format, t.snapshot)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, func() { w.Close() })
	return w, nil
}

// liveDisk finds the disk of a VM that a TARGET names: by its name, or as the
// one that the guest mounts at the target's path or above.
func (a *app) liveDisk(t target) (*config.Config, *config.Disk, error) {
	c, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	v, ok := c.VMs[t.vm]
	if !ok {
		return nil, nil, usageError("there is no VM %q in %s, and %q ends in none of .qcow2, .raw and .img", t.vm, a.configPath, t.vm)
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

// covers reports whether the folder at mount holds p.
func covers(mount, p string) bool {
	if mount == "/" {
		return true
	}
	rest, ok := bytes.CutPrefix([]byte(p), []byte(mount))
	return ok && (len(rest) == 0 || rest[0] == '/')
}
