package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/fill"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

func (a *app) startFromBackupCmd() *cobra.Command {
	var sizes []string
	c := &cobra.Command{
		Use:   "start-from-backup VM[@BACKUP]",
		Short: "Start a VM from a backup at once, and fill its disks in while it runs",
		Long: `Start a VM from a backup (by default latest) without restoring it first. In the
place of each disk that the backup has comes an empty qcow2 image, whose content is
read from the repository when the guest asks for it; the image that was there is
kept beside it. While the VM runs, its disks are filled in; when they stand on their
own, drydock ends. Rounds leave the VM alone until then.

Until then drydock serves the disks. If it is interrupted or killed, what the guest
wrote is safe, and its reads of what is not there yet wait for up to an hour: the
same command goes on. Disks that the backup has as files take root.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.startFromBackup(c.Context(), names[0], sizes) },
	}
	c.Flags().StringArrayVar(&sizes, "size", nil, "DISK=SIZE, such as data=20G: a larger filesystem than the disk had (can be given again)")
	return c
}

// filling is a VM that is started from a backup.
type filling struct {
	h       *host
	v       *config.VM
	round   round.VM
	machine vm.Filler
	sizes   map[string]int64 // of disks that shall be larger than they were
	src     *opened
	record  *fromBackup
	runner  *fill.Owner // who runs QEMU, if not root
	files   fill.Files
	disks   []fill.Disk
}

func (f *filling) skeleton(disk string) string {
	return filepath.Join(f.h.fromFolder(f.v.Name), disk+".skeleton")
}

func (a *app) startFromBackup(ctx context.Context, text string, larger []string) (err error) {
	name, which, _ := strings.Cut(text, "@")
	sizes, err := diskSizes(larger)
	if err != nil {
		return err
	}
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick([]string{name})
	if err != nil {
		return err
	}
	machine, ok := vms[0].Machine.(vm.Filler)
	if !ok {
		return fmt.Errorf("%s: its driver cannot fill disks in", name)
	}
	own, err := state.AcquireLock(h.fromFolder(name), "start-from-backup "+name)
	if err != nil {
		return err
	}
	defer own.Release()
	defer h.forgetUnbegun(name)
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return err
	}
	f := &filling{h: h, v: h.config.VMs[name], round: vms[0], machine: machine, sizes: sizes, src: &opened{}, files: fill.Files{
		Socket: filepath.Join(h.config.Runtime, "from-backup", name+".sock"), Tool: qemuimg.New(qemuimg.Options{}),
	}}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	defer f.src.close()
	if err := f.open(lock.Context(), repo, which); err != nil {
		return err
	}
	return f.run(lock.Context())
}

// open opens the backup: the one that was begun with, the one that is asked for, or the
// newest.
func (f *filling) open(ctx context.Context, repo *repository.Repository, which string) (err error) {
	name := f.v.Name
	if f.record, err = f.h.fromBackup(name); err != nil {
		return err
	}
	if f.record != nil && (which != "" || len(f.sizes) > 0) {
		return fmt.Errorf("%s: %s", name, f.record.hold())
	}
	if f.record != nil {
		f.src.backup, err = f.record.find(ctx, repo)
	} else {
		f.src.backup, err = restore.Find(ctx, repo, name, cmp.Or(which, "latest"))
	}
	if err != nil {
		return err
	}
	f.src.tree, err = restore.OpenTree(ctx, repo, f.src.backup)
	return err
}

func (f *filling) run(ctx context.Context) error {
	lock, err := f.h.lock("start-from-backup")
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := f.findRunner(ctx); err != nil {
		return err
	}
	if err := f.prepare(ctx); err != nil {
		return err
	}
	server, err := f.files.Listen(f.disks, func(err error) { f.h.app.warn(fmt.Errorf("%s: %w", f.v.Name, err)) })
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }() // report was told why it ended
	if err := f.put(ctx); err != nil {
		return f.giveUp(err)
	}
	a := f.h.app
	told := *a // with --json what happens on the way goes to standard error
	if a.json {
		told.stdout = a.stderr
	}
	unhealthy := told.startVM(ctx, f.h, f.round)
	if st, err := f.round.Machine.State(ctx); err != nil || !st.UsesDisks() {
		return errors.Join(unhealthy, err, f.unfilled(st))
	}
	if err := lock.Release(); err != nil {
		return err
	}
	if err := f.fill(ctx); err != nil {
		st, stateErr := f.round.Machine.State(context.WithoutCancel(ctx))
		if stateErr == nil && !st.UsesDisks() {
			err = fmt.Errorf("%w: %w", f.unfilled(st), err)
		}
		return errors.Join(unhealthy, err)
	}
	if err := f.h.forget(f.v.Name); err != nil {
		return err
	}
	return errors.Join(unhealthy, f.told())
}

// unfilled says of a VM that is off what state its disks are in: a guest fills none in.
func (f *filling) unfilled(st vm.State) error {
	return fmt.Errorf("%s is %s, and its disks are not filled in: what the guest wrote is in them, and the rest is in backup %s alone (drydock start-from-backup %s starts it again, and goes on; nothing else can)",
		f.v.Name, cmp.Or(st, "in a state that is not known"), f.src.backup.ID.Short(), f.v.Name)
}

// told says that it is done, and what is kept.
func (f *filling) told() error {
	a := f.h.app
	if a.json {
		return a.printJSON(f.record)
	}
	a.printf("%s stands on its own: nothing is read from the repository any more\n", f.v.Name)
	for _, d := range f.record.Disks {
		if _, err := os.Lstat(d.Kept); err == nil {
			a.printf("the disk that was there is kept: %s (remove it when the VM works)\n", d.Kept)
		}
	}
	return nil
}

// prepare opens what the disks shall have, and writes down what will be done.
func (f *filling) prepare(ctx context.Context) error {
	if f.record == nil {
		found, err := f.round.Machine.State(ctx)
		if err != nil {
			return err
		}
		if found.UsesDisks() {
			return fmt.Errorf("%s is %s: stop it first (drydock stop %s)", f.v.Name, found, f.v.Name)
		}
		if f.record, err = f.plan(ctx); err != nil {
			return err
		}
		if err := f.unknown(); err != nil {
			return err
		}
		for _, d := range f.record.Disks { // of another backup, by a process that was killed
			if err := os.Remove(f.skeleton(d.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, d := range f.record.Disks {
		c := f.v.Disks[d.Name]
		if c == nil || c.Path != d.Path {
			return fmt.Errorf("disk %s at %s is not in the configuration any more: put it back until it is filled in", d.Name, d.Path)
		}
		begun, err := f.begun(d)
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		content, err := f.h.app.backupDisk(ctx, f.src, f.v, c, madeDisk{keep: f.skeleton(d.Name), begun: begun, size: f.sizes[d.Name]})
		if errors.Is(err, errNoSkeleton) {
			err = f.lost(d)
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		_, files := backup.DiskMount(f.src.backup, d.Name)
		if was, _ := backup.FilesystemOf(f.src.backup, d.Name); files && was.Type == "btrfs" {
			f.h.app.warn(fmt.Errorf("disk %s: btrfs will have no checksums of the files that it gets from the backup (drydock restore makes one that has)", d.Name))
		}
		owner, err := f.owner(d.Name)
		if err != nil {
			return err
		}
		f.disks = append(f.disks, fill.Disk{Name: d.Name, Path: d.Path, Kept: d.Kept, Content: content, Owner: owner})
	}
	return f.h.writeFromBackup(f.record)
}

// unknown refuses a disk that lies on a backup already of which there is no record: with
// the content of another one, what the guest wrote would make no sense.
func (f *filling) unknown() error {
	for _, d := range f.record.Disks {
		waits, err := f.files.Waits(fill.Disk{Name: d.Name, Path: d.Path})
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		if waits {
			return fmt.Errorf("disk %s at %s is being filled in from a backup, and %s is gone, which says from which: put that folder back from a copy of %s; or give up what the guest has written since: put %[2]s.before-… in its place, or remove it, and start again",
				d.Name, d.Path, f.h.fromFolder(f.v.Name), f.h.config.State)
		}
	}
	return nil
}

// begun reports whether the guest was given what is served of a disk, and needs it still.
func (f *filling) begun(d fromDisk) (bool, error) {
	at := fill.Disk{Name: d.Name, Path: d.Path}
	if waits, err := f.files.Waits(at); err != nil || waits {
		return waits, err
	}
	return d.Put && f.files.Filled(at) != nil, nil
}

// lost refuses to go on without the skeleton of a disk: another one would have the files
// elsewhere than where the guest knows them.
func (f *filling) lost(d fromDisk) error {
	back := "remove " + d.Path
	if _, err := os.Lstat(d.Kept); err == nil {
		back = fmt.Sprintf("mv %s %s", d.Kept, d.Path)
	}
	return fmt.Errorf("%s is gone, which says where the files of the backup lie on the disk, and another one would have them elsewhere: put it back from a copy of %s; or give up what the guest has written since: drydock stop --kill %s, %s, rm -r %s, and start again",
		f.skeleton(d.Name), f.h.config.State, f.v.Name, back, f.h.fromFolder(f.v.Name))
}

// plan says which disks come from the backup, and refuses what could not start.
func (f *filling) plan(ctx context.Context) (*fromBackup, error) {
	now := f.h.app.now()
	r := &fromBackup{VM: f.v.Name, Backup: f.src.backup.ID.String(), First: copy.Original(f.src.backup).String(), Time: f.src.backup.Time, Since: now}
	ending := ".before-" + strings.ReplaceAll(now.UTC().Format("20060102-150405.000"), ".", "-")
	if err := f.refuseRaw(); err != nil {
		return nil, err
	}
	for name := range f.sizes {
		if err := f.checkSize(name); err != nil {
			return nil, err
		}
	}
	for _, d := range f.v.SortedDisks() {
		switch {
		case hasDisk(f.src.backup, d.Name) && d.Backing != nil:
			return nil, fmt.Errorf("disk %s lies on a backing file: leave that out of the configuration, since the backup has all of it", d.Name)
		case hasDisk(f.src.backup, d.Name):
			path, err := realPath(d.Path)
			if err != nil {
				return nil, err
			}
			if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
				return nil, fmt.Errorf("disk %s is no file: no image can be put in the place of %s (restore it: drydock restore %s/%s@latest --in-place)", d.Name, d.Path, f.v.Name, d.Name)
			}
			if err := f.machine.CanFill(ctx, d.Path); err != nil {
				return nil, err
			}
			r.Disks = append(r.Disks, fromDisk{Name: d.Name, Path: d.Path, Kept: path + ending})
		default:
			if _, err := os.Stat(d.Path); err != nil {
				return nil, fmt.Errorf("disk %s is not in backup %s, and has to be there: %w", d.Name, f.src.backup.ID.Short(), err)
			}
		}
	}
	if len(r.Disks) == 0 {
		return nil, fmt.Errorf("backup %s has no disk of %s", f.src.backup.ID.Short(), f.v.Name)
	}
	return r, nil
}

// checkSize makes sure that a disk can have the size that it shall.
func (f *filling) checkSize(disk string) error {
	s := f.src.backup
	was, known := backup.FilesystemOf(s, disk)
	switch _, files := backup.DiskMount(s, disk); {
	case f.v.Disks[disk] == nil:
		return usageError("--size %s: the VM has no such disk", disk)
	case !files || !known || wholedisk.Has(s, disk) || wholedisk.HasLayout(s, disk):
		return fmt.Errorf("disk %s cannot get another size: only a filesystem can that is made of files, and fills its disk", disk)
	case f.sizes[disk] < was.Size:
		return fmt.Errorf("disk %s had %d bytes: --size makes it larger", disk, was.Size)
	}
	return nil
}

// refuseRaw refuses raw disks, which cannot lie on a backup, and says what makes qcow2
// disks of them: drydock changes neither its configuration nor what starts a VM.
func (f *filling) refuseRaw() error {
	var settings, paths, names []string
	for _, d := range f.v.SortedDisks() {
		if hasDisk(f.src.backup, d.Name) && d.Format != config.FormatQCOW2 {
			settings = append(settings, fmt.Sprintf("vms.%s.disks.%s.format", f.v.Name, d.Name))
			paths, names = append(paths, d.Path), append(names, d.Name)
		}
	}
	if names == nil {
		return nil
	}
	command, format := fmt.Sprintf("vms.%s.command", f.v.Name), "format=qcow2"
	option := " (with -blockdev, driver=qcow2)"
	switch {
	case f.v.Unit != "":
		command = "the command of " + f.v.Unit
	case f.v.Domain != "":
		command, format, option = "domain "+f.v.Domain, "<driver type='qcow2'/>", " (virsh edit "+f.v.Domain+")"
	}
	return fmt.Errorf("disk %s: a raw image cannot lie on a backup, and a qcow2 one comes in its place: set %s to qcow2 in %s, and in %s %s for %s%s, and start again; nothing has changed (or restore the VM: drydock restore vm %s)",
		strings.Join(names, ", "), strings.Join(settings, " and "), f.h.app.configPath, command, format, strings.Join(paths, " and "), option, f.v.Name)
}

// realPath follows symlinks; a file that is not there has its own name.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return real, err
}

// put puts the disks that no process has put yet.
func (f *filling) put(ctx context.Context) error {
	for i, d := range f.disks {
		if f.record.Disks[i].Put {
			continue
		}
		recorded, err := definedDisk(f.src, d.Name)
		if err == nil {
			d.Path, err = realPath(d.Path)
		}
		if err == nil {
			err = f.h.putRestored(f.v.Disks[d.Name], recorded, f.v.Name, func() error { return f.files.Put(ctx, d) })
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		f.record.Disks[i].Put = true
		if err := f.h.writeFromBackup(f.record); err != nil {
			return err
		}
	}
	return nil
}

// giveUp forgets what failed before any disk was put: rounds go on with the VM as it is.
func (f *filling) giveUp(why error) error {
	for i, d := range f.disks {
		waits, err := f.files.Waits(d)
		if f.record.Disks[i].Put || waits || err != nil { // or may have been
			return why
		}
	}
	return errors.Join(why, f.h.forget(f.v.Name))
}

// fill has the disks filled in, one after the other.
func (f *filling) fill(ctx context.Context) error {
	for _, d := range f.disks {
		tell := paced(func(p [2]int64) {
			fmt.Fprintf(f.h.app.stderr, "filling in %s/%s: %s of %s\n", f.v.Name, d.Name, round.Bytes(p[0]), round.Bytes(p[1]))
		})
		err := f.machine.Fill(ctx, d.Path, func(done, of int64) { tell([2]int64{done, of}) })
		if err != nil {
			return fmt.Errorf("disk %s is not filled in: %w (%s)", d.Name, err, escape.Line(f.record.hold()))
		}
		if err := f.files.Filled(d); err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	return nil
}
