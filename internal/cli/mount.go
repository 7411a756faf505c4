package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/restore"
)

func (a *app) mountCmd() *cobra.Command {
	var o fusefs.Options
	var l *looking
	c := &cobra.Command{
		Use:   "mount TARGET FOLDER",
		Short: "Show the files of a disk or of a backup as a folder",
		Long: `Show the files of a disk or of a backup as a folder, through FUSE, for reading
only, until interrupted or unmounted (fusermount3 -u FOLDER). Setuid bits and device
nodes mean nothing in it, and a symlink means what it says: one to /etc/passwd leads
to this host's. While a backup is mounted, restic prune waits.

  drydock mount web@ /mnt/web              # all backups, by their times
  diff -r /mnt/web/2026-11-24T03:00:00+01:00/etc /mnt/web/latest/etc

` + targetHelp,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error { return a.mount(c.Context(), names[0], names[1], o, l) },
	}
	f := c.Flags()
	f.BoolVar(&o.AllowOther, "allow-other", false, "let other users of this host in")
	f.BoolVar(&o.NoExec, "noexec", false, "forbid to execute what is in the folder")
	l = lookFlags(c)
	return c
}

func (a *app) mount(ctx context.Context, text, folder string, o fusefs.Options, how *looking) error {
	// The worker outlives the signal that ends the mount, so that it can be
	// unmounted in good order.
	t, err := a.open(context.WithoutCancel(ctx), text, how)
	if err != nil {
		return err
	}
	defer t.close()
	top, err := disk.Lookup(t.fsys, t.path)
	if err != nil {
		return err
	}
	if top.Type() != disk.ModeDir {
		return usageError("%q is a %s, and a folder can be mounted", text, typeName(top.Type()))
	}
	o.FSName = "drydock:" + escape.Line(text)
	o.Report = func(ino uint64, err error) { fmt.Fprintf(a.stderr, "drydock: inode %d: %v\n", ino, err) }
	m, err := fusefs.Mount(folder, restore.Below(t.fsys, top.Ino), o)
	if err != nil {
		return err
	}
	a.printf("%s\n", folder)
	stop := context.AfterFunc(ctx, func() {
		if err := m.Unmount(); err != nil {
			fmt.Fprintf(a.stderr, "drydock: %v (it is detached; what is open stays readable until it is closed)\n", err)
			if err := m.Detach(); err != nil {
				fmt.Fprintf(a.stderr, "drydock: %v\n", err)
			}
		}
	})
	defer stop()
	m.Wait()
	return nil
}
