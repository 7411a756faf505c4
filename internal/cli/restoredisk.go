package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/vm"
)

// diskRestored is what a restored disk is reported as.
type diskRestored struct {
	Disk string `json:"disk"`
	Path string `json:"path"`
	Kept string `json:"kept,omitempty"` // where the disk is that was there before
	Size int64  `json:"size"`
}

// restoreDisk writes a disk that a backup has whole to the file to, or, where that
// is empty, into its place.
func (a *app) restoreDisk(ctx context.Context, src *opened, t target, to string, overwrite bool) error {
	out := diskRestored{Disk: t.vm + "/" + t.disk, Path: to, Size: src.whole.Size()}
	var err error
	switch {
	case to == "":
		err = a.restoreInPlace(ctx, src, t, &out)
	default:
		format, ok := formats[filepath.Ext(to)]
		if !ok {
			return usageError("--to %s: the backup has this disk as an image; the file's name ends in .raw, .img or .qcow2 (for files in it, name their path: %s/%s@%s:/)", to, t.vm, t.disk, t.backup)
		}
		err = a.writeDisk(ctx, src, t.disk, to, format, overwrite)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	a.printf("restored %s, %s, to %s\n", out.Disk, round.Bytes(out.Size), out.Path)
	if out.Kept != "" {
		a.printf("the disk that was there is kept: %s (remove it when the VM works)\n", out.Kept)
	}
	return nil
}

// writeDisk writes the disk as an image of a format.
func (a *app) writeDisk(ctx context.Context, src *opened, name, path, format string, overwrite bool) error {
	opts := restore.ImageOptions{Overwrite: overwrite, Progress: paced(func(r restore.ImageReport) {
		fmt.Fprintf(a.stderr, "drydock: %s of %s\n", round.Bytes(r.Written+r.Holes+r.Resumed), round.Bytes(r.Size))
	})}
	if format == config.FormatQCOW2 {
		return restore.WriteQCOW2(ctx, src.whole, path, qemuimg.New(qemuimg.Options{}), opts)
	}
	_, err := src.tree.WriteImage(ctx, name, path, opts)
	return err
}

// restoreInPlace puts the disk into the place of the one that the configuration
// names. The VM is off, and cannot start meanwhile.
func (a *app) restoreInPlace(ctx context.Context, src *opened, t target, out *diskRestored) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	recorded, err := definedDisk(src, t.disk)
	if err != nil {
		return err
	}
	_, d, err := a.liveDisk(target{vm: t.vm, disk: t.disk})
	if err != nil {
		return err
	}
	if d.Backing != nil {
		return fmt.Errorf("%s lies on a backing file: restore it --to a file, and configure that", out.Disk)
	}
	vms, err := h.pick([]string{t.vm})
	if err != nil {
		return err
	}
	if why := vms[0].Hold; why != "" {
		return fmt.Errorf("%s: %s", t.vm, why)
	}
	lock, err := h.lock("restore")
	if err != nil {
		return err
	}
	defer lock.Release()
	state, err := vms[0].Machine.State(ctx)
	if err != nil {
		return err
	}
	if state.UsesDisks() {
		return fmt.Errorf("%s is %s: stop it first (drydock stop %s)", t.vm, state, t.vm)
	}
	if m, ok := vms[0].Machine.(vm.Attacher); ok {
		if err := m.Attached(ctx, d.Path); err != nil {
			return err
		}
	}
	if out.Path, err = filepath.EvalSymlinks(d.Path); err != nil {
		return fmt.Errorf("%w (restore --to that path brings a disk back that is gone)", err)
	}
	old, err := os.OpenFile(out.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if _, err := imagelock.Acquire(old, imagelock.Exclusive); err != nil {
		return err
	}
	restored := out.Path + ".restored"
	if err := a.writeDisk(ctx, src, t.disk, restored, d.Format, true); err != nil {
		return err
	}
	out.Kept = out.Path + ".before-" + strings.ReplaceAll(a.now().UTC().Format("20060102-150405.000"), ".", "-")
	return h.putRestored(d, recorded, t.vm, func() error {
		if err := restore.Replace(out.Path, restored, out.Kept); err != nil {
			return fmt.Errorf("put %s in its place: %w", restored, err)
		}
		return nil
	})
}

// putRestored puts a disk in its place that came out of a backup which says k of it. What
// the image store has on record is of the disk that was there before: a round would take
// the two for the same version. In between there is no record.
func (h *host) putRestored(d *config.Disk, k *definition.Disk, vm string, put func() error) error {
	if d.Image == "" {
		return put()
	}
	if err := h.images.Forget(vm, d.Name); err != nil {
		return err
	}
	if err := put(); err != nil {
		return err
	}
	r := definition.Release{}
	if k.Release != nil {
		r = *k.Release
	}
	return h.images.Restored(vm, d.Name, d.Path, r.Image, r.SHA256)
}
