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
	var image imageFlags
	var look looking
	var o restore.Options
	c := &cobra.Command{
		Use:   "restore VM@BACKUP[:/PATH] (--to FOLDER | --to-image FILE) | VM/DISK@BACKUP (--to FILE | --in-place)",
		Short: "Bring files, folders and whole disks back from a backup",
		Long: `Bring a file, a folder or everything back from a backup, into a folder: what was
/var/lib/app/letter.txt in the guest becomes FOLDER/var/lib/app/letter.txt.

The guest was hostile, so setuid bits, device nodes and chattr's flags come back
only when they are asked for, and nothing is ever written outside FOLDER. With --to -
everything goes to standard output, as a tar.

With --to-image the files come, with owners and all, into a new disk image, whose
filesystem has the type, size, UUID and label that the disk's had:

  drydock restore web/data@latest --to-image data.qcow2

It is read back and compared with the backup. What is not in it as it was is named,
and the exit code is 3. XFS and btrfs are written by a machine that lives for that
alone, since this host does not mount the image: it takes QEMU, and a kernel with its
modules.

A disk that is backed up as an image (backup: image) is written to FILE, whose name
ends in .raw, .img or .qcow2. FILE is there when it is whole; a restore to .raw that
was cut off is gone on with. With a path behind it (web/data@latest:/var, or :/ for
all), or --volume, files come out of the image, as above. With --in-place the disk takes
the place of the one in the configuration, whose VM must be off; the old one is kept
beside it.

drydock restore vm brings a whole VM back, with its unit and its configuration.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			image.overwrite = o.Overwrite
			return a.restore(c.Context(), names[0], restoreTo{to, inPlace, image}, o, &look)
		},
	}
	c.AddCommand(a.restoreVMCmd())
	f := c.Flags()
	f.StringVar(&to, "to", "", "folder to restore to; absent or empty, unless --overwrite is given; of a whole disk, the file")
	f.BoolVar(&inPlace, "in-place", false, "put a whole disk into the place of the one in the configuration")
	f.BoolVar(&o.Overwrite, "overwrite", false, "replace what is in the folder already, or the file")
	f.BoolVar(&o.Resume, "resume", false, "go on with a restore of the same backup that was cut off: whole files are kept")
	f.BoolVar(&o.Setuid, "setuid", false, "restore setuid and setgid bits")
	f.BoolVar(&o.Devices, "devices", false, "restore device nodes (needs root)")
	f.BoolVar(&o.Flags, "flags", false, "restore the flags a, d and i of chattr (needs root)")
	f.StringVar(&image.path, "to-image", "", "disk image to make, with a new filesystem that has the files (needs root)")
	f.StringVar(&image.filesystem, "fs", "", "filesystem of the image, ext4, xfs or btrfs; by default what the disk had")
	f.StringVar(&image.size, "size", "", "size of the image, such as 20G; by default what the filesystem had")
	f.StringVar(&image.writer.Kernel, "kernel", "", "kernel of the machine that writes XFS and btrfs; by default this host's")
	f.StringVar(&image.writer.Modules, "modules", "", "folder of that kernel's modules; by default that in /lib/modules")
	f.StringVar(&look.volume, "volume", "", "of a disk that is backed up as an image: the volume whose files are restored")
	f.StringArrayVar(&look.with, "with", nil, "another disk that the backup has as an image, on which the volume lies too; may be repeated")
	return c
}

// restoreTo is where to; exactly one of its fields is given.
type restoreTo struct {
	path    string // a folder, or the file of a whole disk; "-" is a tar
	inPlace bool
	image   imageFlags
}

func (to restoreTo) check() error {
	given := 0
	for _, is := range []bool{to.path != "", to.inPlace, to.image.path != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return usageError("--to is missing: the folder to restore to, or - for a tar; or --to-image, for a new disk image; for a whole disk, a file, or --in-place (one of them)")
	}
	return nil
}

func (a *app) restore(ctx context.Context, text string, to restoreTo, o restore.Options, l *looking) error {
	t, err := parseTarget(text)
	if err != nil {
		return err
	}
	if t.backup == "" {
		return usageError("%q names no backup: VM@BACKUP, where BACKUP is latest, an ID or a date (drydock backups list)", text)
	}
	if err := to.check(); err != nil {
		return err
	}
	if o.Resume && (to.inPlace || to.image.path != "" || to.path == "-") {
		return usageError("--resume is for a restore of files --to a folder: all others begin anew")
	}
	if to.path == "-" {
		return a.tar(ctx, text, false, l)
	}
	if err := l.check(t); err != nil {
		return err
	}
	if t.wholeDisk() && !t.pathed && l.volume == "" {
		if done, err := a.restoreWhole(ctx, t, to, o.Overwrite); done || err != nil {
			return err
		}
	}
	if to.inPlace {
		return usageError("--in-place is for a disk that is backed up as an image (backup: image): restore files --to a folder")
	}
	l.all = to.image.path != "" // it gets the subvolumes
	src, err := a.openTarget(ctx, t, l)
	if err != nil {
		return err
	}
	defer src.close()
	if to.image.path != "" {
		return a.restoreImage(ctx, t, src, to.image)
	}
	return a.restoreFiles(ctx, src, to.path, o)
}

// restoreWhole restores a disk, unless the backup has its files.
func (a *app) restoreWhole(ctx context.Context, t target, to restoreTo, overwrite bool) (done bool, err error) {
	src := &opened{}
	defer src.close()
	if ctx, err = a.openStored(ctx, src, t); err != nil || src.whole == nil {
		return false, err
	}
	if to.image.path != "" {
		return true, usageError("backup %s has disk %s as an image already: write it --to a file, or name a path in it (:/) for its files", src.backup.ID.Short(), t.disk)
	}
	return true, a.restoreDisk(ctx, src, t, to.path, overwrite)
}

func (a *app) restoreFiles(ctx context.Context, src *opened, to string, o restore.Options) error {
	if string(src.path) != "/" {
		o.Paths = [][]byte{src.path}
	}
	est := newEstimate(a)
	whole := int64(0) // bytes, where that is known
	if s := src.backup.Summary; s != nil && src.whole == nil && string(src.path) == "/" {
		whole = int64(min(s.TotalBytesProcessed, 1<<62))
	}
	o.Progress = func(r restore.Report) { est.tell("restoring", r.Bytes, whole) }
	rep, err := restore.Run(ctx, src.fsys, to, o)
	if err != nil {
		return err
	}
	if err := a.printResult(rep, "restored %d files, %s, to %s", rep.Files, round.Bytes(rep.Bytes), to); err != nil {
		return err
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
