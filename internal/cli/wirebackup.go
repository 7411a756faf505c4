package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// backups implements [round.Backups]: the disks of a VM are read in a confined
// worker, and all of them become one snapshot.
type backups struct {
	h    *host
	repo *repository.Repository // opened by Check
}

func (b *backups) Check(ctx context.Context) error {
	if _, err := sandbox.Probe(ctx, sandboxOptions(b.h.config, "")); err != nil {
		return err
	}
	repo, err := b.h.openOrCreateRepository(ctx)
	b.repo = repo
	return err
}

// rest gives back the memory of the repository's index, which takes some 60 MB for a
// million files: whoever opens the repository again has another. What a round does
// with this one loads it again.
func (b *backups) rest() error {
	if b == nil || b.repo == nil {
		return nil
	}
	return b.repo.ForgetIndex()
}

func (b *backups) Backup(ctx context.Context, v round.VM, roundID string, disks []round.Source, progress func(string)) (*round.BackupReport, error) {
	r, err := b.start(ctx, v, disks)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sources, images, err := b.sources(ctx, v, disks, roundID, r)
	if err != nil {
		return nil, err
	}
	about, err := b.describe(ctx, v, disks, r)
	if err != nil {
		return nil, err
	}
	opts := backup.Options{
		VM: v.Name, Round: roundID, Time: b.h.app.now(), Program: "drydock",
		Progress: paced(func(p backup.Progress) {
			progress(fmt.Sprintf("%d files, %s", p.Files, round.Bytes(p.Bytes)))
		}),
	}
	if err := b.addLayouts(ctx, images, about, v, sources, r); err != nil {
		return nil, err
	}
	b.addVersions(images, &about.definition)
	images.at, images.progress = opts.Time, progress
	opts.Objects = func(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
		disks, err := images.save(ctx, parent)
		if err != nil {
			return nil, err
		}
		files, err := about.save(ctx, parent)
		return append(disks, files...), err
	}
	rep, err := backup.Run(ctx, b.repo, sources, opts)
	if err != nil {
		return nil, err
	}
	out := backupReport(rep)
	images.addTo(out)
	out.Warnings = append(out.Warnings, about.warnings()...)
	return out, nil
}

// start starts the worker that reads the disks.
func (b *backups) start(ctx context.Context, v round.VM, disks []round.Source) (*sandbox.Reader, error) {
	var specs []sandbox.DiskSpec
	for _, s := range disks {
		spec, closeBelow, err := diskSpec(b.h.config, b.config(v, s), s.File, s.Format, s.Internal)
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", s.Disk.Name, err)
		}
		defer closeBelow()
		specs = append(specs, spec)
	}
	return sandbox.Start(ctx, sandboxOptions(b.h.config, v.Name), specs...)
}

// sources opens the filesystems of the disks whose files are backed up, and
// describes those that are backed up whole.
func (b *backups) sources(ctx context.Context, v round.VM, disks []round.Source, roundID string, r *sandbox.Reader) ([]backup.Source, *images, error) {
	var sources []backup.Source
	whole := &images{repo: b.repo}
	for i, s := range disks {
		d := b.config(v, s)
		if d.Backup == config.BackupImage {
			whole.sources = append(whole.sources, b.imageSource(v, s, roundID, r.Disks()[i]))
			var begun error
			if d.DirtyBitmap {
				begun = b.h.bitmaps.begun(v, s.Disk)
			}
			whole.begun = append(whole.begun, begun)
			continue
		}
		src, err := b.source(ctx, r, d, s.Identity)
		if err != nil {
			return nil, nil, fmt.Errorf("disk %s: %w", s.Disk.Name, err)
		}
		src.DeviceID = uint64(i) + 1 // the order of disks is that of their mount points
		sources = append(sources, src)
	}
	return sources, whole, nil
}

func (b *backups) config(v round.VM, s round.Source) *config.Disk {
	return b.h.config.VMs[v.Name].Disks[s.Disk.Name]
}

// backupMount is where a disk's files are in a backup.
func backupMount(d *config.Disk) string { return cmp.Or(d.Mount, "/disks/"+d.Name) }

// source opens one disk's filesystem.
func (b *backups) source(ctx context.Context, r *sandbox.Reader, d *config.Disk, identity string) (backup.Source, error) {
	src := backup.Source{
		Disk: d.Name, Mount: backupMount(d), Identity: identity,
		ExcludeCaches: d.ExcludeCaches, ExcludeNoDump: d.ExcludeNoDump, ExcludeLargerThan: int64(d.ExcludeLargerThan),
		SkipSnapshots: d.BtrfsSnapshots != config.BtrfsSnapshotsKeep,
	}
	var err error
	if src.Include, err = pattern.Compile(d.Include); err != nil {
		return src, err
	}
	if src.Exclude, err = pattern.Compile(d.Exclude); err != nil {
		return src, err
	}
	if src.FS, err = diskFilesystem(ctx, r, d); err == nil && src.SkipSnapshots {
		src.Mounted = mountedSubvolumes(ctx, r, src.FS, d)
	}
	return src, err
}

// mountedSubvolumes are the IDs of the subvolumes of a disk's btrfs that the guest's fstab
// mounts. A guest whose root is on no disk of the reader has none that are known.
func mountedSubvolumes(ctx context.Context, r *sandbox.Reader, fsys disk.Filesystem, d *config.Disk) (list []uint64) {
	if fsys.Info().Type != "btrfs" {
		return nil
	}
	g, err := r.Guest(ctx, "")
	if err != nil {
		return nil // what is wrong with the disks, the backup will tell
	}
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return nil
	}
	v, err := diskVolume(volumes, d)
	if err != nil {
		return nil
	}
	for _, m := range g.Mounts {
		if m.Subvolume != 0 && m.Volume < len(volumes) && volumes[m.Volume].Name == v.Name {
			list = append(list, m.Subvolume)
		}
	}
	return list
}

// progressPause is the time between two lines of progress.
const progressPause = 5 * time.Second

// paced passes progress on now and then.
func paced[P any](tell func(P)) func(P) {
	last := time.Now()
	return func(p P) {
		if time.Since(last) >= progressPause {
			last = time.Now()
			tell(p)
		}
	}
}

func backupReport(r *backup.Report) *round.BackupReport {
	out := &round.BackupReport{
		ID: r.ID.String(), Duration: r.Duration,
		FilesNew: r.FilesNew, FilesChanged: r.FilesChanged, FilesUnchanged: r.FilesUnchanged,
		BytesTotal: r.BytesTotal, BytesRead: r.BytesRead, BytesStored: r.BytesStored,
		DamagedTotal: r.DamagedTotal,
	}
	for _, l := range r.LeftOut {
		out.LeftOut = append(out.LeftOut, round.LeftOut(l))
	}
	for _, d := range r.Damaged {
		out.Damaged = append(out.Damaged, fmt.Sprintf("%s: %v", escape.Bytes(d.Path), d.Err))
	}
	for _, w := range r.Warnings {
		out.Warnings = append(out.Warnings, w.Error())
	}
	if r.Parent != nil {
		out.Parent = r.Parent.String()
	}
	return out
}
