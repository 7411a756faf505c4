package worker

import (
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// listVolumes answers with a page of the volumes and what they hold.
func (d *reader) listVolumes(r wire.List, b []byte) ([]byte, error) {
	l, err := d.layout()
	if err != nil {
		return nil, err
	}
	all := l.Volumes()
	if len(all) > wire.MaxVolumes {
		return nil, &disk.Error{Layer: "reader", Structure: "volumes", Offset: -1, Err: disk.ErrLimit,
			Detail: fmt.Sprintf("the disks have %d volumes, at most %d are read", len(all), wire.MaxVolumes)}
	}
	var out wire.VolumePage
	list, last := page(all, r.Skip, wire.MaxVolumePage)
	out.Last = last
	for i := range list {
		v := volumeOf(&list[i])
		if err := wire.CheckVolume(&v, r.Skip+uint32(i)); err != nil {
			return nil, damaged("volumes", err)
		}
		out.List = append(out.List, v)
	}
	return out.Append(b), nil
}

func volumeOf(v *layout.Volume) wire.Volume {
	out := wire.Volume{
		Name: v.Name, Kind: uint8(v.Kind), Parent: wire.NoParent, Offset: v.Offset, Size: v.Size,
		Table: v.Table, Number: uint32(v.Number), PartType: v.PartType, PartUUID: v.PartUUID,
		PartLabel: clip(v.PartLabel, wire.MaxLabel), Content: v.Content,
		Label: clip(v.Label, wire.MaxLabel), UUID: clip(v.UUID, wire.MaxName), Readable: v.Readable,
		Remarks: v.Remarks, Err: v.Err,
	}
	if v.Parent >= 0 {
		out.Parent = uint32(v.Parent)
	}
	for _, m := range clipMembers(v.Members) {
		out.Members = append(out.Members, uint32(m))
	}
	return out
}

func clipMembers(list []int) []int { return list[:min(len(list), wire.MaxMembers)] }

// mount opens the filesystem in a volume.
func (d *reader) mount(r wire.Mount, b []byte) ([]byte, error) {
	t, err := d.mounted(r.Volume)
	if err != nil {
		return nil, err
	}
	info, err := checkedInfo(t)
	if err != nil {
		return nil, err
	}
	return wire.AppendInfo(b, info), nil
}

func checkedInfo(fs disk.Filesystem) (disk.FilesystemInfo, error) {
	info := fs.Info()
	info.Label = clip(info.Label, wire.MaxLabel)
	if err := wire.CheckInfo(info); err != nil {
		return info, damaged("superblock", err)
	}
	return info, nil
}

// mounted returns the filesystem in a volume, opened once.
func (d *reader) mounted(volume uint32) (*tree, error) {
	l, err := d.layout()
	if err != nil {
		return nil, err
	}
	if int64(volume) >= int64(len(l.Volumes())) {
		return nil, fmt.Errorf("%w: volume %d of %d", errProtocol, volume, len(l.Volumes()))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.trees[volume]; t != nil {
		return t, nil
	}
	fs, err := l.Open(int(volume))
	if err != nil {
		return nil, err
	}
	on := newOnDevices(d, l.Devices(int(volume)))
	t := newTree(fs, func(uint64) place { return on })
	d.trees[volume] = t
	return t, nil
}

// openGuest opens the tree that the guest sees. The last one that was opened is
// the one that requests find.
func (d *reader) openGuest(r wire.Guest, b []byte) ([]byte, error) {
	l, err := d.layout()
	if err != nil {
		return nil, err
	}
	g, err := guest.Open(l, guest.Options{Root: r.Root})
	if err != nil {
		return nil, err
	}
	info, err := checkedInfo(g)
	if err != nil {
		return nil, err
	}
	mounts := g.Mounts()
	out := wire.GuestInfo{Info: info}
	places := make([]place, len(mounts))
	for i, m := range mounts[:min(len(mounts), wire.MaxMounts)] {
		out.Mounts = append(out.Mounts, wire.GuestMount{Path: clip(m.Path, wire.MaxTarget), Volume: uint32(m.Volume), Subvolume: m.Subvolume})
		places[i] = newOnDevices(d, l.Devices(m.Volume))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trees[wire.GuestTree] = newTree(g, func(ino uint64) place {
		mount, _ := guest.Split(ino)
		return places[mount]
	})
	return out.Append(b), nil
}

// listSubvolumes answers with a page of a filesystem's subvolumes; there is none
// in most.
func (d *reader) listSubvolumes(r wire.List, b []byte) ([]byte, error) {
	t, err := d.tree(r.Number)
	if err != nil {
		return nil, err
	}
	all, err := t.subvolumes()
	var out wire.SubvolumePage
	list, last := page(all, r.Skip, wire.MaxSubvolumes)
	if err != nil {
		if len(list) == 0 {
			return nil, err
		}
		last = false // whoever asks for the next page gets the error
	}
	out.List, out.Last = slices.Clone(list), last
	for i := range out.List {
		out.List[i].Path = clip(out.List[i].Path, wire.MaxTarget)
	}
	return out.Append(b), nil
}
