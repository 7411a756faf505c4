package lvm

import (
	"errors"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "lvm", Repair: "let vgck and vgcfgrestore in the guest repair the group"}

// imageHint is the way out of what is refused.
const imageHint = "back the disks up as images"

// Recognise reports whether d has a label whose checksum is right.
func Recognise(d disk.Sparse) (bool, error) {
	_, err := readLabel(d)
	for _, kind := range []error{disk.ErrNotExist, disk.ErrCorrupt, disk.ErrLimit} {
		if errors.Is(err, kind) {
			return false, nil
		}
	}
	return err == nil, err
}

// PV is what a physical volume says about itself and its group.
type PV struct {
	UUID string // as pvs(8) prints it

	// GroupName and GroupUUID are "" where it keeps no metadata: it belongs to
	// no group, or to one that keeps its metadata on other physical volumes.
	GroupName string
	GroupUUID string
	// Members are the UUIDs of all physical volumes of the group.
	Members []string
}

// Identify reads the label of d and the metadata that d keeps. The error wraps
// [disk.ErrNotExist] where d is no physical volume. The UUID is returned with an
// error that is about the metadata only.
func Identify(d disk.Sparse) (PV, error) {
	p, err := readPhysical(d)
	if p == nil {
		return PV{}, err
	}
	pv := PV{UUID: formatUUID(p.uuid)}
	if err != nil || p.newest == nil {
		return pv, err
	}
	members, err := parseMembers(p.newest.root)
	if err != nil {
		return pv, err
	}
	for _, m := range members {
		pv.Members = append(pv.Members, formatUUID(m.uuid))
	}
	pv.GroupName, pv.GroupUUID = p.newest.root.name, formatUUID(p.newest.uuid)
	return pv, nil
}
