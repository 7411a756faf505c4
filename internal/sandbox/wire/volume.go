package wire

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// Volume is a run of bytes on the disks that may hold a filesystem, as package
// layout describes it. Numbers count all volumes, from 0 on.
type Volume struct {
	Name         string
	Kind         uint8  // as layout.Kind
	Parent       uint32 // number of the volume that this one lies in, or NoParent
	Members      []uint32
	Offset, Size int64
	Table        string
	Number       uint32
	PartType     string
	PartUUID     string
	PartLabel    []byte
	Content      string
	Label        []byte
	UUID         string
	Readable     bool
	Remarks      []string
	Err          error // nil, or a [*disk.Error] or [*Error]
}

// NoParent is the parent of a volume that lies in no other.
const NoParent = 1<<32 - 1

// VolumePage is the answer to OpVolumes. Last says that none follow.
type VolumePage struct {
	List []Volume
	Last bool
}

const volumeSize = 4 + 1 + 4 + 4 + 8 + 8 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 1 + 4 + 1

// Append appends the encoded answer to b.
func (a VolumePage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for i := range a.List {
		b = appendVolume(b, &a.List[i])
	}
	return b
}

func appendVolume(b []byte, v *Volume) []byte {
	b = putU32(putU8(putString(b, v.Name), v.Kind), v.Parent)
	b = putU32(b, uint32(len(v.Members)))
	for _, m := range v.Members {
		b = putU32(b, m)
	}
	b = putString(putI64(putI64(b, v.Offset), v.Size), v.Table)
	b = putString(putString(putU32(b, v.Number), v.PartType), v.PartUUID)
	b = putString(putBytes(b, v.PartLabel), v.Content)
	b = putBool(putString(putBytes(b, v.Label), v.UUID), v.Readable)
	b = putRemarks(b, v.Remarks)
	b = putBool(b, v.Err != nil)
	if v.Err != nil {
		b = putBytes(b, AppendError(nil, v.Err))
	}
	return b
}

// DecodeVolumePage decodes a [VolumePage] of volumes that come after the first
// skip.
func DecodeVolumePage(payload []byte, skip uint32) (VolumePage, error) {
	d := decoder{buf: payload}
	a := VolumePage{Last: d.bool()}
	for range d.count(MaxVolumePage, volumeSize) {
		v := d.volume()
		if err := CheckVolume(&v, skip+uint32(len(a.List))); err != nil {
			d.fail("%v", err)
		}
		if d.err != nil {
			return a, d.err
		}
		a.List = append(a.List, v)
	}
	if !a.Last && len(a.List) == 0 {
		d.fail("empty page of volumes, and more to come")
	}
	return a, d.done()
}

func (d *decoder) volume() Volume {
	v := Volume{Name: d.string(maxText), Kind: d.u8(), Parent: d.u32()}
	for range d.count(MaxMembers, 4) {
		v.Members = append(v.Members, d.u32())
	}
	v.Offset, v.Size, v.Table = d.i64(), d.i64(), d.string(MaxName)
	v.Number, v.PartType, v.PartUUID = d.u32(), d.string(MaxName), d.string(MaxName)
	v.PartLabel, v.Content = d.bytes(MaxLabel), d.string(MaxName)
	v.Label, v.UUID, v.Readable = d.bytes(MaxLabel), d.string(MaxName), d.bool()
	v.Remarks = d.remarks()
	if d.bool() {
		remote, err := DecodeError(d.bytes(MaxAnswer))
		if err != nil {
			d.fail("%v", err)
		}
		v.Err = remote
	}
	return v
}

// CheckVolume checks the description of volume number n. What lies in it is
// checked when it is read.
func CheckVolume(v *Volume, n uint32) error {
	switch {
	case v.Name == "" || len(v.Name) > maxText:
		return fmt.Errorf("volume %d has a name of %d bytes", n, len(v.Name))
	case v.Kind == 0 || v.Kind > 3:
		return fmt.Errorf("volume %d is of kind %d", n, v.Kind)
	case v.Parent != NoParent && v.Parent >= n:
		return fmt.Errorf("volume %d lies in volume %d", n, v.Parent)
	case v.Offset < 0 || v.Size < 0 || v.Offset+v.Size < 0:
		return fmt.Errorf("volume %d has %d bytes at %d", n, v.Size, v.Offset)
	case len(v.Members) > MaxMembers:
		return fmt.Errorf("volume %d lies on %d others", n, len(v.Members))
	case len(v.PartLabel) > MaxLabel || len(v.Label) > MaxLabel || max(len(v.Table), len(v.PartType), len(v.PartUUID), len(v.Content), len(v.UUID)) > MaxName:
		return fmt.Errorf("volume %d has a text that is too long", n)
	}
	return nil
}

// GuestMount is a filesystem that is part of a guest's tree.
type GuestMount struct {
	Path      []byte // in the guest
	Volume    uint32
	Subvolume uint64 // of btrfs; 0 where there is none
}

// GuestInfo is the answer to [Guest]: the tree, and what it is made of.
type GuestInfo struct {
	Info   disk.FilesystemInfo
	Mounts []GuestMount // the root first
}

const guestMountSize = 4 + 4 + 8

// Append appends the encoded answer to b.
func (a GuestInfo) Append(b []byte) []byte {
	b = putU32(AppendInfo(b, a.Info), uint32(len(a.Mounts)))
	for _, m := range a.Mounts {
		b = putU64(putU32(putBytes(b, m.Path), m.Volume), m.Subvolume)
	}
	return b
}

// DecodeGuestInfo decodes a [GuestInfo].
func DecodeGuestInfo(payload []byte) (GuestInfo, error) {
	d := decoder{buf: payload}
	a := GuestInfo{Info: d.info()}
	for range d.count(MaxMounts, guestMountSize) {
		a.Mounts = append(a.Mounts, GuestMount{Path: d.bytes(MaxTarget), Volume: d.u32(), Subvolume: d.u64()})
	}
	if len(a.Mounts) == 0 {
		d.fail("a tree of no filesystem")
	}
	return a, d.done()
}

// SubvolumePage is the answer to OpSubvolumes. Last says that none follow.
type SubvolumePage struct {
	List []disk.Subvolume
	Last bool
}

const subvolumeSize = 8 + 8 + 4 + 8 + 3*16 + 2*8 + 1 + 1

// Append appends the encoded answer to b.
func (a SubvolumePage) Append(b []byte) []byte {
	b = putU32(putBool(b, a.Last), uint32(len(a.List)))
	for _, s := range a.List {
		b = putBytes(putU64(putU64(b, s.ID), s.Parent), s.Path)
		b = putU64(b, s.Root)
		for _, uuid := range [][16]byte{s.UUID, s.Origin, s.Received} {
			b = append(b, uuid[:]...)
		}
		b = putU64(putU64(b, s.Made), s.Changed)
		b = putBool(putBool(b, s.ReadOnly), s.Default)
	}
	return b
}

// DecodeSubvolumePage decodes a [SubvolumePage].
func DecodeSubvolumePage(payload []byte) (SubvolumePage, error) {
	d := decoder{buf: payload}
	a := SubvolumePage{Last: d.bool()}
	for range d.count(MaxSubvolumes, subvolumeSize) {
		s := disk.Subvolume{ID: d.u64(), Parent: d.u64(), Path: d.bytes(MaxTarget), Root: d.u64()}
		for _, uuid := range []*[16]byte{&s.UUID, &s.Origin, &s.Received} {
			copy(uuid[:], d.take(16))
		}
		s.Made, s.Changed = d.u64(), d.u64()
		s.ReadOnly, s.Default = d.bool(), d.bool()
		if d.err == nil && (s.Root == 0 || s.Root >= disk.MaxIno) {
			d.fail("subvolume %d has the root %d", s.ID, s.Root)
		}
		a.List = append(a.List, s)
	}
	if !a.Last && len(a.List) == 0 {
		d.fail("empty page of subvolumes, and more to come")
	}
	return a, d.done()
}
