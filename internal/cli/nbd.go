package cli

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/nbd"
)

func (a *app) nbdCmd() *cobra.Command {
	var socket string
	var l *looking
	c := &cobra.Command{
		Use:   "nbd TARGET --socket PATH",
		Short: "Serve a disk to other programs over NBD, for reading",
		Long: `Serve a disk, an internal snapshot of it, or with --volume a volume, over the NBD
protocol on a Unix socket, for reading only, until interrupted:

  drydock nbd web.qcow2#before-update --socket /tmp/web.sock &
  nbdcopy nbd+unix:///?socket=/tmp/web.sock web.img

A disk of a backup is served as it was (backup: image), or, with a filesystem that is
made of its files meanwhile, as restore --to-image would make it, in the partition or LVM
volume where it was; the latter takes root.

` + targetHelp,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.nbd(c.Context(), names[0], socket, l) },
	}
	c.Flags().StringVar(&socket, "socket", "", "path of the Unix socket to make")
	l = lookFlags(c)
	return c
}

func (a *app) nbd(ctx context.Context, text, socket string, l *looking) error {
	if socket == "" {
		return usageError("--socket is missing: the path of the Unix socket to make")
	}
	socket, err := filepath.Abs(socket)
	if err != nil {
		return err
	}
	o := &opened{}
	defer o.close()
	// The worker outlives the signal that ends the server, so that answers on
	// their way are not lost.
	d, err := a.openBytes(context.WithoutCancel(ctx), o, text, l)
	if err != nil {
		return err
	}
	listener, err := nbd.Listen(socket)
	if err != nil {
		return err
	}
	uri := url.URL{Scheme: "nbd+unix", Path: "/", RawQuery: "socket=" + url.PathEscape(socket)}
	a.printf("%s\n", uri.String())
	return nbd.Serve(ctx, listener, nbd.Options{
		Exports: []nbd.Export{{Name: "disk", Description: text, Disk: d}},
		Report:  func(err error) { fmt.Fprintf(a.stderr, "drydock: %v\n", err) },
	})
}
