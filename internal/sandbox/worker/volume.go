package worker

import (
	"errors"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/partition"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// readTable reads the partition table. A disk that holds something by itself,
// and one without a table, has nil.
func (d *openDisk) readTable() (*partition.Table, error) {
	t, err := partition.Read(d.top, d.sectorSize)
	if errors.Is(err, disk.ErrNotExist) {
		return nil, nil
	}
	return t, err
}

// volume returns the bytes of a volume; number 0 is the whole disk.
func (d *openDisk) volume(number uint32) (disk.Sparse, error) {
	if number == 0 {
		return d.top, nil
	}
	t, err := d.table()
	if err != nil {
		return nil, err
	}
	if t != nil {
		i := slices.IndexFunc(t.Partitions, func(p partition.Partition) bool { return uint32(p.Number) == number })
		if i >= 0 {
			p := t.Partitions[i]
			return &section{base: d.top, off: p.Offset, size: p.Size}, nil
		}
	}
	return nil, &disk.Error{Layer: "disk", Structure: volumeName(number), Offset: -1, Err: disk.ErrNotExist,
		Detail: "the partition table has no such partition"}
}

// listVolumes answers with all volumes and what they hold.
func (d *openDisk) listVolumes(b []byte) ([]byte, error) {
	t, err := d.table()
	if err != nil {
		return nil, err
	}
	if t == nil {
		v, err := volumeOf(d.top)
		if err != nil {
			return nil, err
		}
		v.Size = d.top.Size()
		return wire.AppendVolumes(b, []wire.Volume{v}), nil
	}
	var list []wire.Volume
	for _, p := range t.Partitions[:min(len(t.Partitions), wire.MaxVolumes)] {
		v, err := volumeOf(&section{base: d.top, off: p.Offset, size: p.Size})
		if err != nil {
			return nil, err
		}
		v.Number, v.Table, v.Offset, v.Size = uint32(p.Number), string(t.Kind), p.Offset, p.Size
		v.Name = clip([]byte(p.Name), wire.MaxLabel)
		if err := wire.CheckVolume(v, d.top.Size()); err != nil {
			return nil, damaged("partition table", err)
		}
		list = append(list, v)
	}
	return wire.AppendVolumes(b, list), nil
}

// volumeOf says what a volume holds.
func volumeOf(v disk.Sparse) (wire.Volume, error) {
	c, err := recognise(v)
	if err != nil {
		return wire.Volume{}, err
	}
	return wire.Volume{Type: c.kind, Readable: c.readable(), Label: c.label, UUID: c.uuid}, nil
}
