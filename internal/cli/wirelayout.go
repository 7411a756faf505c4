package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// bootRoom is what a filesystem leaves free in front for a boot loader, in bytes: ext4
// its first block of 1 KiB (the superblock is behind it), btrfs 64 KiB.
var bootRoom = map[string]int64{"ext2": 1 << 10, "ext3": 1 << 10, "ext4": 1 << 10, "btrfs": 64 << 10}

// addLayouts has stored what is around the filesystems that do not fill their disks,
// and says in the definition where they lie. A disk of which that cannot be told is
// backed up without it.
func (b *backups) addLayouts(ctx context.Context, m *images, about *described, v round.VM, sources []backup.Source, r *sandbox.Reader) error {
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return err
	}
	for i := range about.definition.Disks {
		k := &about.definition.Disks[i]
		s := slices.IndexFunc(sources, func(s backup.Source) bool { return s.Disk == k.Name })
		if s < 0 || k.Release != nil {
			continue
		}
		on := r.Disks()[slices.IndexFunc(r.Disks(), func(on *sandbox.Disk) bool { return on.Name() == k.Name })]
		volume, err := diskVolume(volumes, b.h.config.VMs[v.Name].Disks[k.Name])
		if err != nil {
			return fmt.Errorf("disk %s: %w", k.Name, err)
		}
		if volume.Kind == sandbox.WholeDisk {
			continue
		}
		info := sources[s].FS.Info()
		if k.Pieces, err = piecesOf(ctx, r, volume.Name, on, bootRoom[info.Type], info.Size); err != nil {
			about.miss("what is around the filesystem of disk %s: %v", k.Name, err)
			k.Pieces = nil
			continue
		}
		layout := &layoutSource{unused: on.Unused, pieces: k.PiecesByPlace()}
		m.sources = append(m.sources, wholedisk.Source{Disk: k.Name, Content: on, Layout: true, Unused: layout.yield})
		m.begun = append(m.begun, nil)
	}
	return nil
}

// piecesOf finds where the bytes from room on, up to size, of a volume lie. All of
// them must lie on one disk.
func piecesOf(ctx context.Context, r *sandbox.Reader, volume string, on *sandbox.Disk, room, size int64) ([]definition.Piece, error) {
	var out []definition.Piece
	end := room
	err := r.Places(ctx, volume, func(p sandbox.Place) error {
		start, stop := max(p.Offset, room), min(p.Offset+p.Length, size)
		switch {
		case start >= stop:
			return nil
		case p.Disk != on:
			return fmt.Errorf("%s lies on other disks, too (back them up as images: backup: image)", volume)
		case len(out) == definition.MaxPieces:
			return fmt.Errorf("%s lies in more than %d pieces", volume, definition.MaxPieces)
		}
		out = append(out, definition.Piece{Offset: start, At: p.At + start - p.Offset, Length: stop - start})
		end = stop
		return nil
	})
	if err == nil && end != size {
		err = fmt.Errorf("the filesystem has %d bytes, and %s ends at %d", size, volume, end)
	}
	return out, err
}

// layoutSource yields what is not stored of a disk with a layout: what the guest does
// not use, and where the filesystem lies whose files are backed up.
type layoutSource struct {
	unused func(ctx context.Context, yield func(off, length int64, swap bool) error) ([]error, error)
	pieces []definition.Piece // by At
}

// yield yields both in ascending order, and nothing twice. Why a volume counts as used
// is not said: it may be that of the filesystem.
func (l *layoutSource) yield(ctx context.Context, yield func(off, length int64, swap bool) error) ([]error, error) {
	left := l.pieces
	_, err := l.unused(ctx, func(off, length int64, swap bool) error {
		for end := off + length; off < end; {
			if len(left) == 0 || left[0].At >= end {
				return yield(off, end-off, swap)
			}
			p := left[0]
			left = left[1:]
			if p.At > off {
				if err := yield(off, p.At-off, swap); err != nil {
					return err
				}
			}
			if err := yield(p.At, p.Length, false); err != nil {
				return err
			}
			off = max(off, p.At+p.Length)
		}
		return nil
	})
	for _, p := range left {
		if err != nil {
			return nil, err
		}
		err = yield(p.At, p.Length, false)
	}
	return nil, err
}

// diskVolume finds the volume that the configuration says a disk's filesystem is in: a
// logical volume, a partition, or all of the disk.
func diskVolume(volumes []sandbox.Volume, d *config.Disk) (*sandbox.Volume, error) {
	whole := slices.IndexFunc(volumes, func(v sandbox.Volume) bool { return v.Kind == sandbox.WholeDisk && v.Name == d.Name })
	for i := range volumes {
		v := &volumes[i]
		var here bool
		switch {
		case d.Volume != "":
			here = v.Kind == sandbox.LogicalVolume && v.Name == d.Volume
		case d.Partition > 0:
			here = v.Kind == sandbox.Partition && v.Parent == whole && v.Number == d.Partition
		default:
			here = i == whole && v.Table == ""
		}
		if here {
			return v, nil
		}
	}
	return nil, fmt.Errorf("the filesystem is not where the configuration says: set partition: or volume: to that of one of these%s", volumesHint(volumes))
}
