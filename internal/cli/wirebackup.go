package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// backups implements [round.Backups]: each disk is read in a confined worker
// of its own, and all of them become one snapshot.
type backups struct {
	h    *host
	repo *repository.Repository // opened by Check
}

func (b *backups) Check(ctx context.Context) error {
	if _, err := sandbox.Probe(ctx, sandboxOptions(b.h.config)); err != nil {
		return err
	}
	repo, err := b.h.openOrCreateRepository(ctx)
	b.repo = repo
	return err
}

func (b *backups) Backup(ctx context.Context, v round.VM, roundID string, disks []round.Source, progress func(string)) (*round.BackupReport, error) {
	var sources []backup.Source
	var workers []*sandbox.Disk
	defer func() {
		for _, w := range workers {
			w.Close()
		}
	}()
	for i, d := range disks {
		w, src, err := b.source(ctx, v, d)
		if w != nil {
			workers = append(workers, w)
		}
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", d.Disk.Name, err)
		}
		src.DeviceID = uint64(i) + 1 // the order of disks is that of their mount points
		sources = append(sources, src)
	}
	rep, err := backup.Run(ctx, b.repo, sources, backup.Options{
		VM: v.Name, Round: roundID, Time: b.h.app.now(), Program: "drydock",
		Progress: paced(func(p backup.Progress) {
			progress(fmt.Sprintf("%d files, %s", p.Files, round.Bytes(p.Bytes)))
		}),
	})
	if err != nil {
		return nil, err
	}
	return backupReport(rep), nil
}

// source opens one disk's filesystem in a worker.
func (b *backups) source(ctx context.Context, v round.VM, s round.Source) (*sandbox.Disk, backup.Source, error) {
	c := b.h.config.VMs[v.Name].Disks[s.Disk.Name]
	src := backup.Source{Disk: c.Name, Mount: cmp.Or(c.Mount, "/disks/"+c.Name), Identity: s.Identity}
	var err error
	if src.Include, err = pattern.Compile(c.Include); err != nil {
		return nil, src, err
	}
	if src.Exclude, err = pattern.Compile(c.Exclude); err != nil {
		return nil, src, err
	}
	w, err := startWorker(ctx, b.h.config, v.Name, c, s.File, s.Format, s.Internal)
	if err != nil {
		return nil, src, err
	}
	src.FS, err = w.Filesystem(ctx, c.Partition)
	if err != nil {
		return w, src, fmt.Errorf("%w%s", err, volumesHint(ctx, w, c.Partition))
	}
	return w, src, nil
}

// volumesHint names the partitions of a disk whose filesystem could not be
// opened, since the likely fix is to name another one.
func volumesHint(ctx context.Context, w *sandbox.Disk, number int) string {
	volumes, err := w.Volumes(ctx)
	if err != nil || len(volumes) == 1 && volumes[0].Number == number {
		return ""
	}
	text := ""
	for _, v := range volumes {
		kind := v.Type
		if kind == "" {
			kind = "unknown"
		}
		text += fmt.Sprintf(", %d: %s, %s", v.Number, kind, round.Bytes(v.Size))
	}
	if text == "" {
		return ""
	}
	return fmt.Sprintf(" (set partition: to one of these: %s)", text[2:])
}

// progressPause is the time between two lines of progress.
const progressPause = 5 * time.Second

// paced passes progress on now and then.
func paced(tell func(backup.Progress)) func(backup.Progress) {
	last := time.Now()
	return func(p backup.Progress) {
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
