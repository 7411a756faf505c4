package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// images are the disks of a VM that are backed up whole, and what became of them.
type images struct {
	repo     *repository.Repository
	sources  []wholedisk.Source
	begun    []error             // of each, why no dirty bitmap was started though one is wanted
	versions []wholedisk.Version // that disks without state were made from
	reports  []*wholedisk.Report
	warnings []string
	at       time.Time
	progress func(string)
}

// imageSource describes a disk that is backed up whole.
func (b *backups) imageSource(v round.VM, s round.Source, roundID string, d *sandbox.Disk) wholedisk.Source {
	c := b.config(v, s)
	src := wholedisk.Source{Disk: s.Disk.Name, Content: d}
	if c.FreeSpace != config.FreeSpaceKeep {
		src.Unused = d.Unused
	}
	if c.DirtyBitmap {
		if b.h.bitmaps.begun(v, s.Disk) == nil {
			src.Bitmap, src.Granularity = bitmapPrefix+roundID, bitmapGranularity
		}
		src.Dirty = func(_ context.Context, name string, yield func(off, length int64) error) error {
			return b.h.bitmaps.dirty(v, s.Disk, name, yield)
		}
	}
	return src
}

// save stores the disks. It is the Objects of a backup.
func (m *images) save(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
	var all []backup.Object
	for _, src := range m.sources {
		opts := wholedisk.Options{Time: m.at, Progress: paced(func(done int64) {
			m.progress(fmt.Sprintf("disk %s: %s of %s", src.Disk, round.Bytes(done), round.Bytes(src.Content.Size())))
		})}
		objects, rep, err := wholedisk.Save(ctx, m.repo, parent, src, opts)
		if err != nil {
			return nil, err
		}
		all, m.reports = append(all, objects...), append(m.reports, rep)
	}
	return m.saveVersions(ctx, parent, all)
}

// saveVersions adds the versions of images. One that the store has lost costs
// nothing but itself.
func (m *images) saveVersions(ctx context.Context, parent *repository.Snapshot, all []backup.Object) ([]backup.Object, error) {
	for _, v := range m.versions {
		objects, rep, err := wholedisk.SaveVersion(ctx, m.repo, parent, v, wholedisk.Options{Time: m.at})
		switch {
		case errors.Is(err, wholedisk.ErrVersion):
			m.warnings = append(m.warnings, err.Error())
			continue
		case err != nil:
			return nil, err
		case rep != nil:
			m.reports, m.begun = append(m.reports, rep), append(m.begun, nil)
		}
		all = append(all, objects...)
	}
	return all, nil
}

// addVersions has the versions stored that the disks in a definition were made from,
// unless the disks are there whole.
func (b *backups) addVersions(m *images, d *definition.Definition) {
	for i := range d.Disks {
		k := &d.Disks[i]
		if k.Release == nil || k.Backup == config.BackupImage {
			continue
		}
		m.versions = append(m.versions, wholedisk.Version{
			Disk: k.Name, Name: k.Release.Version, Size: k.Release.Size, SHA256: k.Release.SHA256,
			Open: func(ctx context.Context) (disk.Sparse, func(), error) { return b.openVersion(ctx, k) },
		})
	}
}

// openVersion opens a version in the image store, in a confined worker.
func (b *backups) openVersion(ctx context.Context, k *definition.Disk) (disk.Sparse, func(), error) {
	version, err := b.h.images.Get(k.Release.Image, k.Release.Version)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(b.h.images.DiskPath(version))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r, err := sandbox.Start(ctx, sandboxOptions(b.h.config, "image "+version.String()), sandbox.DiskSpec{Name: k.Name, File: f, Format: config.FormatRaw})
	if err != nil {
		return nil, nil, err
	}
	return r.Disks()[0], func() { r.Close() }, nil
}

// addTo puts what became of the disks into the report of a backup.
func (m *images) addTo(out *round.BackupReport) {
	out.Warnings = append(out.Warnings, m.warnings...)
	for i, r := range m.reports {
		if err := m.begun[i]; err != nil {
			r.Whole = strings.TrimPrefix(r.Whole+"; no dirty bitmap was started for the next backup: "+err.Error(), "; ")
		}
		var kept []string
		for _, err := range r.Kept {
			kept = append(kept, err.Error())
		}
		out.Images = append(out.Images, round.ImageBackup{
			Disk: r.Disk, Size: r.Size, BytesUnchanged: r.Unchanged, BytesZero: r.Zero, BytesFree: r.Free, BytesSwap: r.Swap,
			BytesRead: r.Read, BytesStored: r.Stored, Bitmap: r.Bitmap, Whole: r.Whole, Layout: r.Layout, Kept: kept,
		})
		out.BytesTotal += r.Size
		out.BytesRead += r.Read
		out.BytesStored += r.Stored
		if r.DamagedTotal > 0 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s could not be read and are zeros in the backup, the first: %v", round.Bytes(r.DamagedTotal), r.Damaged[0]))
		}
		for _, w := range r.Warnings {
			out.Warnings = append(out.Warnings, w.Error())
		}
	}
}
