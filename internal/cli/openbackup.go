package cli

import (
	"context"
	"fmt"
	"path"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// openBackup opens the tree of a backup, or the part of it that is one disk's. A
// disk that the backup has whole is looked into like any other.
func (a *app) openBackup(ctx context.Context, o *opened, t target, l *looking) error {
	ctx, err := a.openStored(ctx, o, t)
	if err != nil {
		return err
	}
	if o.whole == nil {
		return l.checkFiles(o, t)
	}
	r, err := a.startStored(ctx, o, t, l)
	if err != nil {
		return err
	}
	o.fsys, err = a.openInside(ctx, r, l)
	return err
}

// openStored opens what the repository has for a TARGET, and does not look into
// disks that it has whole. The context that it returns ends with the lock.
func (a *app) openStored(ctx context.Context, o *opened, t target) (context.Context, error) {
	repo, ctx, unlock, err := a.lockRepository(ctx)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, unlock)
	if t.history {
		all, err := backup.Find(ctx, repo, t.vm)
		if err != nil {
			fmt.Fprintf(a.stderr, "drydock: some backups are not shown: %s\n", escape.Line(err.Error()))
		}
		o.fsys, err = restore.OpenHistory(ctx, repo, all)
		return ctx, err
	}
	s, err := restore.Find(ctx, repo, t.vm, t.backup)
	if err != nil {
		return nil, err
	}
	if o.tree, err = restore.OpenTree(ctx, repo, s); err != nil {
		return nil, err
	}
	o.fsys, o.backup = o.tree, s
	if t.disk != "" && wholedisk.Has(s, t.disk) {
		o.whole, err = o.tree.Image(t.disk)
		return ctx, err
	}
	if t.disk != "" {
		mount, ok := backup.DiskMount(s, t.disk)
		if !ok {
			return nil, fmt.Errorf("backup %s of %s has no disk %q", s.ID.Short(), t.vm, t.disk)
		}
		if root := path.Join("/", mount); root != "/" || len(o.path) == 0 {
			o.path = []byte(root + string(o.path))
		}
	}
	return ctx, nil
}

// startStored starts a worker that reads the disk which the backup has whole, and
// the others that the user names. Their bytes come from the repository.
func (a *app) startStored(ctx context.Context, o *opened, t target, l *looking) (*sandbox.Reader, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	specs := []sandbox.DiskSpec{{Name: t.disk, Content: o.whole, Format: sandbox.Raw}}
	for _, name := range l.with {
		if !wholedisk.Has(o.backup, name) {
			return nil, usageError("--with %s: backup %s of %s has no disk of that name as an image", name, o.backup.ID.Short(), t.vm)
		}
		other, err := o.tree.Image(name)
		if err != nil {
			return nil, err
		}
		specs = append(specs, sandbox.DiskSpec{Name: name, Content: other, Format: sandbox.Raw})
	}
	return a.start(ctx, o, sandboxOptions(c, fmt.Sprintf("%s/%s@%s", t.vm, t.disk, t.backup)), specs...)
}
