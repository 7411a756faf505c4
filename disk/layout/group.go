package layout

import (
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
	"github.com/drydock-vm/drydock/disk/lvm"
)

// maxPhysical is how many physical volumes are looked at: each may have megabytes
// of metadata.
const maxPhysical = 128

// group is the physical volumes of one volume group.
type group struct {
	name, uuid string
	volumes    []int // that are physical volumes of it
}

// addGroups finds the volume groups, and adds their logical volumes.
func (l *Layout) addGroups() {
	taken := make(map[string]bool) // names
	for _, g := range l.findGroups() {
		plain := g.name
		for taken[g.name] {
			g.name += "-" + g.uuid
		}
		if g.name != plain {
			l.volumes[g.volumes[0]].remark("another group has the same name: this one is called %s here", g.name)
		}
		taken[g.name] = true
		l.addGroup(g)
	}
}

// findGroups identifies the physical volumes, and sorts them by group: those that
// keep no metadata belong to the group that names them.
func (l *Layout) findGroups() []*group {
	var groups []*group
	member := make(map[string]*group) // by the UUIDs that groups name
	var pending []int
	uuids := make(map[int]string)
	for i := range l.volumes {
		v := &l.volumes[i]
		if v.Content != contentLVM {
			continue
		}
		if len(uuids) == maxPhysical {
			v.fail(layer.Beyond(volumeName(v.Name), ondisk.Nowhere, "there are more than %d physical volumes of LVM", maxPhysical))
			continue
		}
		pv, err := lvm.Identify(v.bytes)
		v.UUID, uuids[i] = pv.UUID, pv.UUID
		if err != nil {
			v.Err = err
		}
		if pv.GroupUUID == "" {
			pending = append(pending, i)
			continue
		}
		k := slices.IndexFunc(groups, func(g *group) bool { return g.uuid == pv.GroupUUID })
		if k < 0 {
			k = len(groups)
			groups = append(groups, &group{name: pv.GroupName, uuid: pv.GroupUUID})
		}
		groups[k].volumes = append(groups[k].volumes, i)
		for _, uuid := range pv.Members {
			member[uuid] = groups[k]
		}
	}
	for _, i := range pending {
		g := member[uuids[i]]
		if g == nil {
			continue // of no group
		}
		if l.volumes[i].Err != nil { // the group has its metadata elsewhere
			l.volumes[i].remark("its copy of the metadata is not used: %v", l.volumes[i].Err)
			l.volumes[i].Err = nil
		}
		g.volumes = append(g.volumes, i)
		slices.Sort(g.volumes)
	}
	return groups
}

// addGroup adds the logical volumes of a group.
func (l *Layout) addGroup(g *group) {
	pvs := make([]disk.Sparse, len(g.volumes))
	for k, i := range g.volumes {
		pvs[k] = l.volumes[i].bytes
		l.volumes[i].Title = "a physical volume of LVM group " + g.name
	}
	opened, err := lvm.OpenGroup(pvs)
	if err != nil {
		for _, i := range g.volumes {
			l.volumes[i].Err = err
		}
		return
	}
	first := g.volumes[0]
	l.volumes[first].Remarks = append(l.volumes[first].Remarks, opened.Remarks...)
	for _, v := range opened.Volumes {
		if len(l.volumes) >= maxVolumes {
			l.volumes[first].remark("there are more than %d volumes: logical volumes from %s on are left out", maxVolumes, v.Name)
			return
		}
		l.addLogical(g, opened, v)
	}
}

func (l *Layout) addLogical(g *group, opened *lvm.Group, v lvm.Volume) {
	out := volume{Volume: Volume{Name: g.name + "/" + v.Name, Kind: LogicalVolume, Parent: -1, Size: v.Size, Err: v.Err}}
	for _, d := range v.Devices {
		out.Members = append(out.Members, g.volumes[d])
	}
	if v.Err != nil {
		out.Title = fmt.Sprintf("a logical volume of type %s", v.Type)
		l.volumes = append(l.volumes, out)
		return
	}
	content, err := opened.Volume(v.Name)
	if err != nil {
		out.Err = err
		l.volumes = append(l.volumes, out)
		return
	}
	logical := &logical{Sparse: content}
	for _, i := range g.volumes {
		logical.below = append(logical.below, l.volumes[i].bytes)
	}
	out.bytes = logical
	l.volumes = append(l.volumes, out)
}

// logical is a logical volume. It is a [disk.Locator] that counts disks, where
// package lvm counts physical volumes.
type logical struct {
	disk.Sparse
	below []disk.Sparse // the physical volumes of the group
}

// Locate implements [disk.Locator].
func (v *logical) Locate(off, length int64, yield func(disk.Location) error) error {
	return locate(v.Sparse, off, length, func(at disk.Location) error {
		if at.Device < 0 {
			return yield(at)
		}
		return locate(v.below[at.Device], at.At, at.Length, func(deeper disk.Location) error {
			deeper.Offset += at.Offset - at.At
			return yield(deeper)
		})
	})
}

// locate asks d where it lies, which it need not know.
func locate(d disk.Sparse, off, length int64, yield func(disk.Location) error) error {
	if l, ok := d.(disk.Locator); ok {
		return l.Locate(off, length, yield)
	}
	return yield(disk.Location{Offset: off, Length: length, Device: -1})
}
