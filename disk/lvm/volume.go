package lvm

import (
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// logical is a logical volume on its way from the text to a [Volume].
type logical struct {
	Volume
	visible  bool
	refused  string // why it cannot be read; "" if it can
	segments []segment
}

// segment is a run of extents of a volume that lies on one physical volume, or
// in stripes on several.
type segment struct {
	first, count int64 // extents of the volume
	stripes      []stripe
	chunk        int64 // bytes of a stripe before the next one's turn; of more than one
}

// stripe is a run of extents of a physical volume.
type stripe struct {
	member int   // index in Group.members
	first  int64 // extent
}

// decodeVolumes takes the volumes from the metadata of a group.
func (g *Group) decodeVolumes(root *section) error {
	list := root.child("logical_volumes")
	if list == nil {
		return nil
	}
	byName := make(map[string]int, len(g.members))
	for i := range g.members {
		byName[g.members[i].name] = i
	}
	volumes := make([]*logical, 0, len(list.sections))
	index := make(map[string]*logical, len(list.sections))
	for _, s := range list.sections {
		v, err := g.decodeVolume(s, byName)
		if err != nil {
			return err
		}
		volumes = append(volumes, v)
		index[v.Name] = v
	}
	refuseSnapshots(list, index)
	if err := g.checkOverlap(volumes); err != nil {
		return err
	}
	for _, v := range volumes {
		if v.visible {
			g.addVolume(v)
		}
	}
	return nil
}

// decodeVolume takes one volume. What is not supported is noted in it; an error
// is about metadata that contradicts itself.
func (g *Group) decodeVolume(s *section, members map[string]int) (*logical, error) {
	if !isName(s.name) {
		return nil, textDamaged(s.off, "%.140q is not the name of a volume", s.name)
	}
	var d decoder
	v := &logical{Volume: Volume{Name: s.name, UUID: formatUUIDOf(d.uuid(s))}}
	for _, w := range d.words(s, "status") {
		switch w.text {
		case "READ", "WRITE", "FIXED_MINOR", "NOTSYNCED", "WRITEMOSTLY", "LV_NOSCAN":
		case "VISIBLE":
			v.visible = true
		case "PVMOVE", "LOCKED":
			v.refuse("it is being moved by pvmove")
		default:
			v.refuse(fmt.Sprintf("its status is %.40q", w.text))
		}
	}
	count := d.number(s, "segment_count", 0, maxExtents)
	if d.err == nil && count != int64(len(s.sections)) {
		d.fail(s.off, "volume %q has %d segments, should have %d", s.name, len(s.sections), count)
	}
	for _, sub := range s.sections {
		if d.err != nil {
			break
		}
		g.decodeSegment(&d, v, sub, members)
	}
	if d.err != nil {
		return nil, d.err
	}
	return v, v.checkSegments(s, g.extentSize)
}

// formatUUIDOf is [formatUUID] of what may be the zero value after an error.
func formatUUIDOf(plain string) string {
	if len(plain) != uuidLength {
		return ""
	}
	return formatUUID(plain)
}

// refuse notes the first reason for which v cannot be read.
func (v *logical) refuse(why string) {
	if v.refused == "" {
		v.refused = why
	}
}

// decodeSegment takes one segment. Only striped ones, and linear ones as those
// of one stripe, tell here where they lie.
func (g *Group) decodeSegment(d *decoder, v *logical, s *section, members map[string]int) {
	seg := segment{first: d.number(s, "start_extent", 0, maxExtents), count: d.number(s, "extent_count", 1, maxExtents)}
	kind := d.str(s, "type")
	if d.err == nil && seg.count > maxNumber/g.extentSize {
		d.err = layer.Beyond("logical volume "+v.Name, int64(s.off), "%d extents of %d bytes", seg.count, g.extentSize)
	}
	if d.err != nil {
		return
	}
	if kind != "striped" && kind != "linear" {
		v.Type = clean(kind)
		v.refuse(refusal(kind))
		v.segments = append(v.segments, seg)
		return
	}
	g.decodeStriped(d, v, seg, s, members)
}

// decodeStriped takes where a segment lies.
func (g *Group) decodeStriped(d *decoder, v *logical, seg segment, s *section, members map[string]int) {
	stripes := d.number(s, "stripe_count", 1, maxExtents)
	list := d.setting(s, "stripes")
	if d.err != nil {
		return
	}
	if !list.list || int64(len(list.values)) != 2*stripes {
		d.fail(list.off, "%d stripes are listed with %d values", stripes, len(list.values))
		return
	}
	if seg.count%stripes != 0 {
		d.fail(s.off, "%d extents are not the same number on each of %d stripes", seg.count, stripes)
		return
	}
	if stripes > 1 {
		v.setType("striped")
		seg.chunk = d.number(s, "stripe_size", 1, maxExtentSize) * sectorSize
		if d.err == nil && seg.count/stripes*g.extentSize%seg.chunk != 0 {
			d.fail(s.off, "stripes of %d extents are not a multiple of %d bytes", seg.count/stripes, seg.chunk)
		}
	} else {
		v.setType("linear")
	}
	seg.stripes = g.decodeStripes(d, v, list, seg.count/stripes, members)
	v.segments = append(v.segments, seg)
}

// setType notes the type of a segment, unless one that is refused was there.
func (v *logical) setType(kind string) {
	if v.refused == "" && v.Type != "striped" {
		v.Type = kind
	}
}

// decodeStripes takes pairs of a name and an extent from a list of an even
// length.
func (g *Group) decodeStripes(d *decoder, v *logical, list *setting, extents int64, members map[string]int) []stripe {
	var stripes []stripe
	for i := 0; i+1 < len(list.values); i += 2 {
		name, at := list.values[i], list.values[i+1]
		if name.isNumber || !at.isNumber || at.number < 0 {
			d.fail(list.off, "a stripe is not a name and an extent")
			return nil
		}
		k, known := members[name.text]
		if !known {
			v.refuse("it lies on another logical volume")
			return nil
		}
		if !ondisk.Within(at.number, extents, g.members[k].extents) {
			d.fail(list.off, "%d extents from %d are not within the %d of %s", extents, at.number, g.members[k].extents, formatUUID(g.members[k].uuid))
			return nil
		}
		stripes = append(stripes, stripe{member: k, first: at.number})
	}
	return stripes
}

// checkSegments checks that the segments follow one another, and adds them up.
func (v *logical) checkSegments(s *section, extentSize int64) error {
	slices.SortFunc(v.segments, func(a, b segment) int { return int(a.first - b.first) })
	next := int64(0)
	for _, seg := range v.segments {
		if seg.first != next {
			return textDamaged(s.off, "volume %q has a segment at extent %d where one at %d is due", s.name, seg.first, next)
		}
		next += seg.count
		if next > maxExtents {
			return textDamaged(s.off, "volume %q has more than %d extents", s.name, int64(maxExtents))
		}
	}
	if next > maxNumber/extentSize {
		return layer.Beyond("logical volume "+s.name, int64(s.off), "%d extents of %d bytes", next, extentSize)
	}
	v.Size = next * extentSize
	if next == 0 {
		v.refuse("it has no segments")
	}
	return nil
}

// refuseSnapshots refuses the volumes that hold a snapshot's copies of blocks,
// and the origins into which a snapshot is being merged. Metadata describes a
// snapshot as a volume of its own, whose segment names these two.
func refuseSnapshots(list *section, volumes map[string]*logical) {
	named := func(s *section, key string) *logical {
		if e := s.setting(key); e != nil && len(e.values) == 1 {
			return volumes[e.values[0].text]
		}
		return nil
	}
	for _, v := range list.sections {
		for _, s := range v.sections {
			if store := named(s, "cow_store"); store != nil {
				store.snapshot("it is a snapshot")
				store.visible = true // to people; it is written as hidden
			}
			if store := named(s, "merging_store"); store != nil {
				store.snapshot("it is a snapshot that is being merged")
				if origin := named(s, "origin"); origin != nil {
					origin.refuse("a snapshot is being merged into it")
				}
			}
		}
	}
}

func (v *logical) snapshot(why string) {
	v.Type = "snapshot"
	v.refuse(why)
}

// refusal is why a type of segment is refused.
func refusal(kind string) string {
	switch kind {
	case "snapshot":
		return "it is a snapshot"
	case "mirror":
		return "it is a mirror"
	case "raid0", "raid0_meta", "raid1", "raid10", "raid10_near", "raid4", "raid5", "raid5_n", "raid5_la", "raid5_ls", "raid5_ra", "raid5_rs",
		"raid6", "raid6_zr", "raid6_nr", "raid6_nc", "raid6_n_6", "raid6_ls_6", "raid6_la_6", "raid6_rs_6", "raid6_ra_6":
		return "it is a RAID of type " + kind
	case "thin":
		return "it is a thin volume"
	case "thin-pool":
		return "it is a pool of thin volumes"
	case "cache":
		return "it is cached"
	case "cache-pool":
		return "it is a pool of cache"
	case "writecache":
		return "its writes are cached"
	case "vdo", "vdo-pool":
		return "it is a VDO volume"
	case "integrity":
		return "it has a layer of integrity checks"
	}
	return fmt.Sprintf("its type is %.40q", kind)
}

// clean returns a type's name for people: it may hold hostile bytes.
func clean(kind string) string {
	if isName(kind) {
		return kind
	}
	return "unknown"
}

// extentRun is a run of extents of a physical volume that is in use.
type extentRun struct {
	member       int
	first, count int64
	volume       string
}

// checkOverlap checks that no extent belongs to two segments.
func (g *Group) checkOverlap(volumes []*logical) error {
	var runs []extentRun
	for _, v := range volumes {
		for _, seg := range v.segments {
			for _, s := range seg.stripes {
				runs = append(runs, extentRun{s.member, s.first, seg.count / int64(len(seg.stripes)), v.Name})
			}
		}
	}
	slices.SortFunc(runs, func(a, b extentRun) int {
		if a.member != b.member {
			return a.member - b.member
		}
		return int(a.first - b.first)
	})
	for i := 1; i < len(runs); i++ {
		if a, b := runs[i-1], runs[i]; a.member == b.member && b.first-a.first < a.count {
			return layer.Damaged(textName, ondisk.Nowhere, "extent %d of physical volume %s belongs to volume %s and to volume %s",
				b.first, formatUUID(g.members[b.member].uuid), a.volume, b.volume)
		}
	}
	return nil
}
