package lvm

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxExtentSize is the largest size of an extent, in sectors: LVM's own
	// limit, 2 TiB less a sector.
	maxExtentSize = 1<<32 - 1
	// maxExtents bounds all counts of extents: they have 32 bits in LVM.
	maxExtents = 1<<32 - 1
)

// Group is a volume group. All methods are safe for concurrent use.
type Group struct {
	Name    string // letters, digits and "+_.-"
	UUID    string // as vgs(8) prints it
	Volumes []Volume
	// Remarks are what an administrator should know, a sentence each, without
	// hostile bytes.
	Remarks []string

	extentSize int64 // bytes
	members    []member
	mappings   []*mapping // of Volumes; nil where there is an Err
}

// Volume is a logical volume that a guest can use.
type Volume struct {
	Name string // letters, digits and "+_.-"
	UUID string
	Type string // of its segments: "linear", "striped", "thin"…
	Size int64  // bytes
	// Devices are the physical volumes that it lies on: indexes of what
	// [OpenGroup] was given.
	Devices []int
	Err     error // why it cannot be read
}

// member is a physical volume as the metadata describes it.
type member struct {
	name    string // in the metadata: "pv0"
	uuid    string
	start   int64 // of the first extent, in bytes
	extents int64
	device  int // index of what OpenGroup was given, or one of the following
	d       disk.Sparse
}

// Why a member has no device.
const (
	memberMissing   = -1
	memberAmbiguous = -2 // there are two with this UUID
	memberStale     = -3 // the guest went on without it
)

// OpenGroup puts a group together. All of pvs belong to it, in any order; those
// that are not there may be missing. A physical volume that the newest metadata
// does not know is not used, and is a remark.
func OpenGroup(pvs []disk.Sparse) (*Group, error) {
	var newest *metadata
	var damage error
	g := &Group{}
	found := make([]*physical, len(pvs))
	for i, d := range pvs {
		p, err := readPhysical(d)
		if p == nil {
			return nil, err
		}
		found[i] = p
		if err != nil && damage == nil {
			damage = err
		}
		g.Remarks = append(g.Remarks, p.remarks...)
		if newest, err = newer(newest, p.newest); err != nil {
			return nil, err
		}
	}
	switch {
	case newest == nil && damage != nil:
		return nil, damage
	case newest == nil:
		return nil, layer.Absent("group", "none of %d physical volumes keeps metadata", len(pvs))
	}
	g.remarkOld(found, newest)
	if err := g.decode(newest, found, pvs); err != nil {
		return nil, err
	}
	return g, nil
}

// remarkOld notes members whose metadata is not the newest.
func (g *Group) remarkOld(found []*physical, newest *metadata) {
	for _, p := range found {
		if p.newest != nil && p.newest.seqno < newest.seqno {
			g.Remarks = append(g.Remarks, fmt.Sprintf("physical volume %s keeps metadata number %d, the group is at %d", formatUUID(p.uuid), p.newest.seqno, newest.seqno))
		}
	}
}

// decode takes the group from its metadata.
func (g *Group) decode(m *metadata, found []*physical, pvs []disk.Sparse) error {
	g.Name, g.UUID = m.root.name, formatUUID(m.uuid)
	var d decoder
	g.extentSize = d.number(m.root, "extent_size", 1, maxExtentSize) * sectorSize
	if m.root.setting("format") != nil {
		if format := d.str(m.root, "format"); d.err == nil && format != "lvm2" {
			return layer.Unsupported("group "+g.Name, ondisk.Nowhere, imageHint, "its format is %.20q; lvm2 is supported", format)
		}
	}
	status := d.words(m.root, "status")
	if d.err != nil {
		return d.err
	}
	for _, w := range status {
		switch w.text {
		case "READ", "WRITE", "RESIZEABLE", "CLUSTERED", "SHARED", "PARTIAL":
		case "EXPORTED":
			g.Remarks = append(g.Remarks, "group "+g.Name+" is exported: the guest does not use it")
		default:
			return layer.Unsupported("group "+g.Name, ondisk.Nowhere, imageHint, "its status is %.40q", w.text)
		}
	}
	members, err := parseMembers(m.root)
	if err != nil {
		return err
	}
	g.members = members
	g.attach(found, pvs)
	return g.decodeVolumes(m.root)
}

// parseMembers takes the physical volumes from the metadata of a group.
func parseMembers(group *section) ([]member, error) {
	list := group.child("physical_volumes")
	if list == nil {
		return nil, textDamaged(group.off, "group %q has no physical volumes", group.name)
	}
	var d decoder
	members := make([]member, 0, len(list.sections))
	seen := make(map[string]bool, len(list.sections))
	for _, s := range list.sections {
		m := member{name: s.name, uuid: d.uuid(s), device: memberMissing}
		m.start = d.number(s, "pe_start", 0, 1<<53) * sectorSize
		m.extents = d.number(s, "pe_count", 0, maxExtents)
		if s.setting("flags") != nil { // LVM 2.00 wrote none
			for _, w := range d.words(s, "flags") {
				if w.text == "MISSING" {
					m.device = memberStale
				}
			}
		}
		if d.err == nil && seen[m.uuid] {
			d.fail(s.off, "two physical volumes have the UUID %s", formatUUID(m.uuid))
		}
		if d.err != nil {
			return nil, d.err
		}
		seen[m.uuid] = true
		members = append(members, m)
	}
	return members, nil
}

// attach finds the members among the devices.
func (g *Group) attach(found []*physical, pvs []disk.Sparse) {
	byUUID := make(map[string]int, len(g.members))
	for i := range g.members {
		byUUID[g.members[i].uuid] = i
	}
	for i, p := range found {
		k, known := byUUID[p.uuid]
		if !known {
			g.Remarks = append(g.Remarks, fmt.Sprintf("physical volume %s is no longer part of group %s and is not used", formatUUID(p.uuid), g.Name))
			continue
		}
		switch m := &g.members[k]; m.device {
		case memberStale:
		case memberMissing:
			m.device, m.d = i, pvs[i]
		default:
			m.device, m.d = memberAmbiguous, nil
		}
	}
	for _, m := range g.members {
		switch m.device {
		case memberMissing:
			g.Remarks = append(g.Remarks, fmt.Sprintf("physical volume %s of group %s is missing", formatUUID(m.uuid), g.Name))
		case memberAmbiguous:
			g.Remarks = append(g.Remarks, fmt.Sprintf("physical volume %s of group %s is there more than once: is one a copy?", formatUUID(m.uuid), g.Name))
		case memberStale:
			g.Remarks = append(g.Remarks, fmt.Sprintf("physical volume %s of group %s was missing in the guest", formatUUID(m.uuid), g.Name))
		}
	}
}

// Volume returns the content of a volume, which is also a [disk.Locator]: its
// device numbers are indexes of what [OpenGroup] was given.
func (g *Group) Volume(name string) (disk.Sparse, error) {
	for i := range g.Volumes {
		if g.Volumes[i].Name == name {
			if err := g.Volumes[i].Err; err != nil {
				return nil, err
			}
			return g.mappings[i], nil
		}
	}
	return nil, layer.Absent(fmt.Sprintf("logical volume %.140q", name), "group %s has no such volume", g.Name)
}
