package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/pattern"
)

func (a *app) diffCmd() *cobra.Command {
	var o diff.Options
	c := &cobra.Command{
		Use:   "diff TARGET TARGET",
		Short: "Show what differs between two backups, or a backup and a disk",
		Long: `Show what was added (+), removed (-) and changed between two backups, between a
backup and the disks of the VM, or between two disks:

  drydock diff web@2026-11-01 web@latest
  drydock diff web@latest web              # the VM is off
  drydock diff web@latest:/etc web/data#before:/etc

In front of a changed path an M says that its content differs, a U that only its
attributes do, a T that it is of another type. Folders of which only the time
differs are not shown. Content is compared by its hashes between two backups, and
by size and time of modification where a disk is compared; with --content it is
read. What the configuration excludes is not shown as added.

` + targetHelp,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error { return a.diff(c.Context(), names[0], names[1], o) },
	}
	f := c.Flags()
	f.BoolVar(&o.Content, "content", false, "read the content of files rather than trust their times")
	f.BoolVar(&o.FolderTimes, "folder-times", false, "show folders of which only the time differs")
	return c
}

// comparison is two trees that are compared; at is where they lie in the guest.
type comparison struct {
	at            string
	before, after *opened
	choose        func(path []byte, dir bool) diff.Choice
}

func (p *comparison) close() {
	for _, o := range []*opened{p.before, p.after} {
		if o != nil {
			o.close()
		}
	}
}

func (a *app) diff(ctx context.Context, before, after string, o diff.Options) error {
	pairs, err := a.comparisons(ctx, before, after)
	defer func() {
		for _, p := range pairs {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	var total diff.Summary
	out := &diffPrinter{app: a}
	out.begin(before, after)
	for _, p := range pairs {
		out.at = p.at
		o.Changed, o.Damaged, o.Select = out.change, out.damaged, p.choose
		s, err := diff.Run(ctx, diff.Side{FS: p.before.fsys, Path: p.before.path}, diff.Side{FS: p.after.fsys, Path: p.after.path}, o)
		if err != nil {
			return err
		}
		total.Add(s)
	}
	if err := out.end(&total); err != nil {
		return err
	}
	if total.Damaged > 0 {
		return &exitError{exitWarnings, fmt.Errorf("%d files or folders could not be compared", total.Damaged)}
	}
	return nil
}

// comparisons opens what two targets name. A backup has the disks of a VM in one
// tree, so a backup and a whole VM are compared disk by disk.
func (a *app) comparisons(ctx context.Context, before, after string) ([]*comparison, error) {
	var sides [2]target
	for i, text := range []string{before, after} {
		var err error
		if sides[i], err = parseTarget(text); err != nil {
			return nil, err
		}
	}
	live, other := &sides[1], &sides[0]
	if live.ofBackup() {
		live, other = other, live
	}
	if live.image != "" || live.ofBackup() || other.backup == "" || live.vm != other.vm {
		return a.compared(ctx, &comparison{at: string(sides[0].path)}, sides)
	}
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	v, ok := c.VMs[live.vm]
	if !ok {
		return nil, usageError("there is no VM %q in %s", live.vm, a.configPath)
	}
	if live.disk == "" && other.disk == "" && string(live.path) == string(other.path) {
		return a.diskByDisk(ctx, v, sides)
	}
	p := &comparison{at: string(sides[0].path)}
	if d, ok := v.Disks[live.disk]; ok {
		return a.comparedDisk(ctx, p, sides, v, d, string(live.path))
	}
	return a.compared(ctx, p, sides)
}

// comparedDisk opens both sides of a comparison of a disk, of which one is there and
// the other is in a backup, from the folder in on.
func (a *app) comparedDisk(ctx context.Context, p *comparison, sides [2]target, v *config.VM, d *config.Disk, in string) ([]*comparison, error) {
	pairs, err := a.compared(ctx, p, sides)
	if err != nil {
		return nil, err
	}
	there := p.after
	if sides[1].ofBackup() {
		there = p.before
	}
	var subvolumes []disk.Subvolume
	if lister, ok := there.fsys.(disk.SubvolumeLister); ok && d.BtrfsSnapshots != config.BtrfsSnapshotsKeep {
		subvolumes, _ = lister.Subvolumes() // what cannot be read is told when it is compared
	}
	if p.choose, err = selection(v, d, in, subvolumes); err != nil {
		p.close()
		return nil, err
	}
	return pairs, nil
}

// compared opens both sides of a comparison.
func (a *app) compared(ctx context.Context, p *comparison, sides [2]target) ([]*comparison, error) {
	for i, o := range []**opened{&p.before, &p.after} {
		var err error
		if *o, err = a.openTarget(ctx, sides[i], new(looking)); err != nil {
			p.close()
			return nil, err
		}
	}
	return []*comparison{p}, nil
}

// diskByDisk opens one comparison for each disk of a VM that has something below
// the path of both sides, or the path in it.
func (a *app) diskByDisk(ctx context.Context, v *config.VM, sides [2]target) (pairs []*comparison, err error) {
	guestPath := path.Clean(string(sides[0].path))
	holder := "" // the disk that has the path in it: that of the deepest mount
	for _, d := range v.SortedDisks() {
		if d.Backup == config.BackupFiles && covers(backupMount(d), guestPath) {
			holder = d.Name
		}
	}
	for _, d := range v.SortedDisks() {
		mount := backupMount(d)
		in := "/"
		switch {
		case d.Name == holder:
			in = path.Join("/", guestPath[min(len(guestPath), len(mount)):])
			if mount == "/" {
				in = guestPath
			}
		case d.Backup != config.BackupFiles || !covers(guestPath, mount):
			continue
		}
		p := &comparison{at: path.Join(mount, in)}
		one := sides
		for i := range one {
			one[i].disk, one[i].path = d.Name, []byte(in)
		}
		more, err := a.comparedDisk(ctx, p, one, v, d, in)
		if err != nil {
			return pairs, err
		}
		pairs = append(pairs, more...)
	}
	if len(pairs) == 0 {
		return nil, usageError("%s has no disk whose files at %s are backed up", v.Name, guestPath)
	}
	return pairs, nil
}

// selection says which files of a disk, below the folder in, are those of a
// backup: what other disks hold in it is not, and what the patterns leave out, and
// those of the subvolumes that are superseded, are not expected.
func selection(v *config.VM, d *config.Disk, in string, subvolumes []disk.Subvolume) (func(path []byte, dir bool) diff.Choice, error) {
	include, err := pattern.Compile(d.Include)
	if err != nil {
		return nil, err
	}
	exclude, err := pattern.Compile(d.Exclude)
	if err != nil {
		return nil, err
	}
	skipped := map[string]bool{} // snapshots, by their paths
	for _, s := range backup.Superseded(subvolumes, backup.Use{Include: include, Exclude: exclude}) {
		skipped[string(s.Path)] = true
	}
	var mounts []string // of other disks, in the paths of this one
	for _, other := range v.SortedDisks() {
		if m := backupMount(other); other != d && m != "/" && covers(backupMount(d), m) {
			mounts = append(mounts, strings.Trim(m[len(backupMount(d)):], "/"))
		}
	}
	if backupMount(d) == "/" { // what drydock puts into the root of a backup
		mounts = append(mounts, definition.Folder)
		for name := range v.Disks {
			mounts = append(mounts, wholedisk.Paths(name)...)
		}
	}
	base := strings.Trim(in, "/")
	return func(below []byte, dir bool) diff.Choice {
		p := path.Join(base, string(below))
		for _, m := range mounts {
			switch {
			case p == m:
				return diff.Never
			case strings.HasPrefix(m, p+"/"):
				return diff.Through
			}
		}
		switch {
		case skipped[p], exclude.Match([]byte(p), dir) == pattern.Match:
			return diff.IfInBoth
		case include.Empty() || included(include, p, dir):
			return diff.Always
		case dir && include.MayMatchBelow([]byte(p)):
			return diff.Through
		}
		return diff.IfInBoth
	}, nil
}

// included reports whether a path or a folder above it is matched.
func included(include *pattern.List, p string, dir bool) bool {
	for ; p != "."; p, dir = path.Dir(p), true {
		if include.Match([]byte(p), dir) == pattern.Match {
			return true
		}
	}
	return false
}
