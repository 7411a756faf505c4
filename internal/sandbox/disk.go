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
