package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) restoreCmd() *cobra.Command {
	var to string
	var inPlace bool
	var o restore.Options
	c := &cobra.Command{
		Use:   "restore VM@BACKUP[:/PATH] --to FOLDER | VM/DISK@BACKUP (--to FILE | --in-place)",
		Short: "Bring files, folders and whole disks back from a backup",
		Long: `Bring a file, a folder or everything back from a backup, into a folder: what was
/var/lib/app/letter.txt in the guest becomes FOLDER/var/lib/app/letter.txt.

The guest was hostile, so setuid bits, device nodes and chattr's flags come back
only when they are asked for, and nothing is ever written outside FOLDER.

A disk that is backed up as an image (backup: image) is written to FILE, whose name
ends in .raw, .img or .qcow2. FILE is there when it is whole; a restore to .raw that
was cut off is gone on with. With --in-place the disk takes the place of the one in
the configuration, whose VM must be off; the old one is kept beside it.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.restore(c.Context(), names[0], to, inPlace, o) },
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "folder to restore to; absent or empty, unless --overwrite is given; of a whole disk, the file")
	f.BoolVar(&inPlace, "in-place", false, "put a whole disk into the place of the one in the configuration")
	f.BoolVar(&o.Overwrite, "overwrite", false, "replace what is in the folder already, or the file")
	f.BoolVar(&o.Setuid, "setuid", false, "restore setuid and setgid bits")
	f.BoolVar(&o.Devices, "devices", false, "restore device nodes (needs root)")
	f.BoolVar(&o.Flags, "flags", false, "restore the flags a, d and i of chattr (needs root)")
	return c
}

func (a *app) restore(ctx context.Context, text, to string, inPlace bool, o restore.Options) error {
	t, err := parseTarget(text)
	if err != nil {
		return err
	}
	if t.backup == "" {
		return usageError("%q names no backup: VM@BACKUP, where BACKUP is latest, an ID or a date (drydock backups list)", text)
	}
	if (to == "") != inPlace {
		return usageError("--to is missing: the folder to restore to; or, for a whole disk, a file, or --in-place")
	}
	src, err := a.openTarget(ctx, t, new(looking))
	if err != nil {
		return err
	}
	defer src.close()
	if src.whole != nil {
		return a.restoreDisk(ctx, src, t, to, o.Overwrite)
	}
	if inPlace {
		return usageError("--in-place is for a disk that is backed up as an image (backup: image): restore files --to a folder")
	}
	if string(src.path) != "/" {
		o.Paths = [][]byte{src.path}
	}
	rep, err := restore.Run(ctx, src.fsys, to, o)
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(rep); err != nil {
			return err
		}
	} else {
		a.printf("restored %d files, %s, to %s\n", rep.Files, round.Bytes(rep.Bytes), to)
	}
	for _, w := range rep.Warnings {
		fmt.Fprintf(a.stderr, "drydock: %s\n", w)
	}
	for _, l := range leftOut(rep) {
		fmt.Fprintf(a.stderr, "drydock: %s\n", l)
	}
	if rep.WarningsTotal > 0 {
		return &exitError{exitWarnings, fmt.Errorf("restored, with %d warnings", rep.WarningsTotal)}
	}
	return nil
}

// leftOut says what a restore leaves out unless it is asked for.
func leftOut(r restore.Report) []string {
	var out []string
	say := func(n int64, what, how string) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%d %s were left out (%s)", n, what, how))
		}
	}
	say(int64(r.LeftOut.Setuid), "setuid or setgid bits", "--setuid brings them back")
	say(int64(r.LeftOut.Capabilities), "file capabilities", "--setuid brings them back")
	say(int64(r.LeftOut.Devices), "device nodes", "--devices brings them back")
	say(int64(r.LeftOut.Flags), "files' chattr flags", "--flags brings them back")
	say(int64(r.LeftOut.Xattrs), "extended attributes", "they need root")
	return out
}
