package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/drydock-vm/drydock/internal/tarball"
)

func (a *app) tarCmd() *cobra.Command {
	var strict bool
	var l *looking
	c := &cobra.Command{
		Use:   "tar TARGET",
		Short: "Write a tar of a disk or of a backup to standard output",
		Long: `Write a tar (PAX) of a disk's or a backup's files to standard output, with owners,
xattrs, hardlinks, holes and devices, sorted, so that the same files give the same
tar. A file that cannot be read is left out and named; with --strict it ends it all:

  drydock tar web/data | ssh elsewhere tar -x --xattrs --xattrs-include='*' -C /restore

` + targetHelp,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.tar(c.Context(), names[0], strict, l) },
	}
	c.Flags().BoolVar(&strict, "strict", false, "end at the first file that cannot be read whole")
	l = lookFlags(c)
	return c
}

func (a *app) tar(ctx context.Context, text string, strict bool, l *looking) error {
	if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usageError("a tar is not for a terminal: write it to a file or a program (drydock tar %s > FILE.tar)", text)
	}
	o, err := a.open(ctx, text, l)
	if err != nil {
		return err
	}
	defer o.close()
	rep, err := tarball.Write(ctx, a.stdout, o.fsys, o.path, tarball.Options{Strict: strict})
	if err != nil {
		return err
	}
	for _, w := range rep.Warnings {
		fmt.Fprintf(a.stderr, "drydock: %s\n", w)
	}
	if len(rep.Warnings) > 0 {
		return &exitError{exitWarnings, fmt.Errorf("%d files are not in the tar, or not as they were", len(rep.Warnings))}
	}
	return nil
}
