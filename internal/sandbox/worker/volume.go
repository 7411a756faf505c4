package worker

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/partition"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// volume returns the bytes of a volume; number 0 is the whole disk.
func (d *openDisk) volume(number uint32) (disk.Sparse, error) {
	if number == 0 {
		return d.top, nil
	}
	t, err := d.table()
	if err != nil {
		return nil, err
	}
	p, err := t.Find(int(number))
	if err != nil {
		return nil, err
	}
	return partitionOf(d.top, p), nil
}

func partitionOf(d disk.Sparse, p partition.Partition) *section {
	return &section{base: d, off: p.Offset, size: p.Length}
}

// listVolumes answers with all volumes and what they hold.
func (d *openDisk) listVolumes(b []byte) ([]byte, error) {
	t, err := d.table()
	if err != nil {
		return nil, err
	}
	if t.Kind == partition.None {
		v, err := volumeOf(d.top)
		if err != nil {
			return nil, err
		}
		v.Size = d.top.Size()
		return wire.AppendVolumes(b, []wire.Volume{v}), nil
	}
	var list []wire.Volume
	for _, p := range t.Partitions[:min(len(t.Partitions), wire.MaxVolumes)] {
		if p.Extended() {
			continue
		}
		v, err := volumeOf(partitionOf(d.top, p))
		if err != nil {
			return nil, err
		}
		v.Number, v.Table, v.Offset, v.Size = uint32(p.Number), t.Kind.String(), p.Offset, p.Length
		v.Name = clip(p.Name, wire.MaxLabel)
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
