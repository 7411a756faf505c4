package sandbox

import (
	"context"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Disk is a disk that a worker reads: the [disk.Sparse] of what the guest sees
// as the whole disk.
type Disk struct {
	*content // the whole disk

	reader *Reader
	number uint32
	name   string
	format string
	told   wire.OpenedDisk
}

var _ disk.Sparse = (*Disk)(nil)

// DiskInfo describes the topmost image of a disk. What its format does not have
// is zero.
type DiskInfo struct {
	Format      string // as the [DiskSpec] declared it
	Version     int    // of qcow2: 2 or 3
	ClusterSize int64  // bytes
	Compression string // "zlib" or "zstd", whether or not a cluster uses it
	ExtendedL2  bool   // clusters have subclusters
	Dirty       bool   // the image was not closed
}

// Snapshot is an internal snapshot of a qcow2 image. ID and Name are the words
// of whoever wrote the image: escape them before they are printed.
type Snapshot struct {
	ID, Name  []byte
	Time      disk.Time
	DiskSize  int64 // bytes
	StateSize int64 // bytes of saved machine state; 0 when taken while off
}

// Bitmap is a persistent dirty bitmap of a qcow2 image: it records which parts of
// the active state were written to. Name is hostile bytes.
type Bitmap struct {
	Name        []byte
	Granularity int64 // bytes that one bit stands for
	State       BitmapState
	Auto        bool // QEMU records in it whenever it writes to the image
}

// BitmapState says whether a bitmap can be relied on.
type BitmapState uint8

// The states of a bitmap.
const (
	BitmapConsistent BitmapState = iota
	// BitmapInUse: a QEMU has it open, or died with it.
	BitmapInUse
	// BitmapInconsistent: something wrote to the image without recording.
	BitmapInconsistent
)

// Name is the name that the [DiskSpec] gave the disk.
func (d *Disk) Name() string { return d.name }

// Info describes the image.
func (d *Disk) Info() DiskInfo {
	return DiskInfo{
		Format: d.format, Version: int(d.told.Version), ClusterSize: int64(d.told.ClusterSize),
		Compression: d.told.Compression, ExtendedL2: d.told.ExtendedL2, Dirty: d.told.Dirty,
	}
}

// Snapshots lists the internal snapshots of a qcow2 image; none for raw.
func (d *Disk) Snapshots(ctx context.Context) ([]Snapshot, error) {
	var list []Snapshot
	err := d.reader.list(ctx, wire.OpSnapshots, d.number, maxSnapshots, func(body []byte, _ uint32) (int, bool, error) {
		page, err := wire.DecodeSnapshotPage(body)
		for _, s := range page.List {
			list = append(list, Snapshot(s))
		}
		return len(page.List), page.Last, err
	})
	return list, err
}

// Bitmaps lists the persistent dirty bitmaps of a qcow2 image; none for raw.
func (d *Disk) Bitmaps(ctx context.Context) ([]Bitmap, error) {
	var list []Bitmap
	err := d.reader.list(ctx, wire.OpBitmaps, d.number, maxBitmaps, func(body []byte, _ uint32) (int, bool, error) {
		page, err := wire.DecodeBitmapPage(body)
		for _, m := range page.List {
			list = append(list, Bitmap{Name: m.Name, Granularity: m.Granularity, State: BitmapState(m.State), Auto: m.Auto})
		}
		return len(page.List), page.Last, err
	})
	return list, err
}

// DirtyRanges calls yield, in ascending order, for the ranges of the disk that a
// bitmap says were written to, in bytes. A bitmap that cannot be relied on is an
// error: the whole disk must be read instead. It stops at the first error of yield
// and returns that.
func (d *Disk) DirtyRanges(ctx context.Context, name string, yield func(off, length int64) error) error {
	r := wire.Dirty{Number: d.number, Name: name}
	for {
		k, answer, err := d.client.ask(ctx, wire.OpDirty, r)
		if err != nil {
			return err
		}
		page, err := wire.DecodeDirtyPage(answer, r, d.size)
		if err != nil {
			return d.client.lied(k, err)
		}
		for _, g := range page.List {
			if err := yield(g.Off, g.Length); err != nil {
				return err
			}
			r.From = g.Off + g.Length
		}
		if page.Last {
			return nil
		}
	}
}

// Unused calls yield, in ascending order, for the ranges of the disk that its
// guest does not use, in bytes: what its filesystems have not in use, and swap
// space but for its header. What is in no volume, and what is in one that is
// unknown or damaged, is in use: kept says why, once for each volume that should
// hold something readable. It stops at the first error of yield and returns that.
func (d *Disk) Unused(ctx context.Context, yield func(off, length int64, swap bool) error) (kept []error, err error) {
	r := wire.Unused{Number: d.number}
	for {
		k, answer, err := d.client.ask(ctx, wire.OpUnused, r)
		if err != nil {
			return nil, err
		}
		page, err := wire.DecodeUnusedPage(answer, r, d.size)
		if err != nil {
			return nil, d.client.lied(k, err)
		}
		for _, g := range page.List {
			if err := yield(g.Off, g.Length, g.Swap); err != nil {
				return nil, err
			}
			r.From = g.Off + g.Length
		}
		if page.Last {
			return page.Kept, nil
		}
	}
}
