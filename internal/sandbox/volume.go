package sandbox

import (
	"context"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// VolumeKind is the kind of a volume.
type VolumeKind uint8

// The kinds of volume.
const (
	WholeDisk VolumeKind = iota + 1
	Partition
	LogicalVolume
)

// Volume is a run of bytes on the disks that may hold a filesystem.
type Volume struct {
	// Name is unique among the volumes of a [Reader]: the disk's name,
	// "NAME-part1" for a partition, "GROUP/NAME" for a logical volume.
	Name string
	Kind VolumeKind

	// Parent is the index of the volume that a partition lies in, -1 for
	// others. Members are the indexes of those that a logical volume, or a
	// filesystem of several devices, lies on.
	Parent  int
	Members []int

	Offset int64 // bytes, of a partition in its parent
	Size   int64 // bytes

	Table     string // of a partitioned disk: "gpt" or "mbr"
	Number    int    // of a partition, as the guest's kernel counts
	PartType  string
	PartUUID  string
	PartLabel []byte // hostile bytes

	// Content is what the volume holds, as blkid(8) calls it; "" when nothing
	// is recognised.
	Content string
	Label   []byte // hostile bytes
	UUID    string

	// Readable says that [Reader.Filesystem] opens a filesystem here.
	Readable bool
	Remarks  []string
	// Err is why a volume that should hold something readable cannot be read.
	Err error

	index int
}

// Volumes reads the partition tables and volume groups of all disks, and
// recognises what each volume holds: whole disks first, each followed by its
// partitions, logical volumes last.
func (r *Reader) Volumes(ctx context.Context) ([]Volume, error) {
	var list []Volume
	err := r.list(ctx, wire.OpVolumes, 0, wire.MaxVolumes, func(body []byte, skip uint32) (int, bool, error) {
		page, err := wire.DecodeVolumePage(body, skip)
		for i := range page.List {
			list = append(list, volumeOf(&page.List[i], len(list)))
		}
		return len(page.List), page.Last, err
	})
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		for _, m := range v.Members {
			if m >= len(list) {
				return nil, r.client.lied(&call{op: wire.OpVolumes}, fmt.Errorf("volume %d of %d", m, len(list)))
			}
		}
	}
	return list, nil
}

func volumeOf(v *wire.Volume, index int) Volume {
	out := Volume{
		Name: v.Name, Kind: VolumeKind(v.Kind), Parent: -1, Offset: v.Offset, Size: v.Size,
		Table: v.Table, Number: int(v.Number), PartType: v.PartType, PartUUID: v.PartUUID, PartLabel: v.PartLabel,
		Content: v.Content, Label: v.Label, UUID: v.UUID,
		Readable: v.Readable, Remarks: v.Remarks, Err: v.Err, index: index,
	}
	if v.Parent != wire.NoParent {
		out.Parent = int(v.Parent)
	}
	for _, m := range v.Members {
		out.Members = append(out.Members, int(m))
	}
	return out
}

// find returns a volume by its name. The worker is asked for them once.
func (r *Reader) find(ctx context.Context, name string) (Volume, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		list, err := r.Volumes(ctx)
		if err != nil {
			return Volume{}, err
		}
		r.known = list
	}
	for _, v := range r.known {
		if v.Name == name {
			return v, nil
		}
	}
	return Volume{}, &disk.Error{Layer: "disk", Structure: fmt.Sprintf("volume %q", name), Offset: -1, Err: disk.ErrNotExist}
}

// Volume returns the bytes of a volume.
func (r *Reader) Volume(ctx context.Context, name string) (disk.Sparse, error) {
	v, err := r.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return newContent(r, wire.Object{Kind: wire.ObjectVolume, Node: wire.Node{Tree: uint32(v.index)}}, v.Size), nil
}

// Place is a run of bytes of a volume, and where they lie.
type Place struct {
	Offset, Length int64 // in the volume
	Disk           *Disk // nil for bytes that lie nowhere
	At             int64 // on the disk
}

// maxPlaces bounds in how many runs a volume lies that Places tells of.
const maxPlaces = 1 << 20

// Places calls yield for where a volume lies, from its beginning to its end.
func (r *Reader) Places(ctx context.Context, name string, yield func(Place) error) error {
	v, err := r.find(ctx, name)
	if err != nil {
		return err
	}
	var sizes []int64
	for _, d := range r.disks {
		sizes = append(sizes, d.Size())
	}
	ask := wire.Places{Number: uint32(v.index)}
	for count := 0; ; {
		k, answer, err := r.client.ask(ctx, wire.OpPlaces, ask)
		if err != nil {
			return err
		}
		page, err := wire.DecodePlacePage(answer, ask, v.Size, sizes)
		if err != nil {
			return r.client.lied(k, err)
		}
		for _, g := range page.List {
			p := Place{Offset: ask.From, Length: g.Length, At: g.At}
			if g.Disk != wire.NoDisk {
				p.Disk = r.disks[g.Disk]
			}
			if err := yield(p); err != nil {
				return err
			}
			ask.From += g.Length
		}
		if page.Last {
			return nil
		}
		if count += len(page.List); count > maxPlaces {
			return &disk.Error{Layer: "disk", Structure: fmt.Sprintf("volume %q", name), Offset: -1, Err: disk.ErrLimit, Detail: "it lies in too many pieces"}
		}
	}
}

// Filesystem opens the filesystem in a volume. A volume that holds something else
// is refused with [disk.ErrUnsupported], by name.
//
// Inode, Xattrs and Readlink are cheap for files that ReadDir has listed not
// long ago. Content that cannot be read is reported by the methods of what Open
// returns, not by Open.
func (r *Reader) Filesystem(ctx context.Context, name string) (disk.Filesystem, error) {
	v, err := r.find(ctx, name)
	if err != nil {
		return nil, err
	}
	k, answer, err := r.client.ask(ctx, wire.OpMount, wire.Mount{Volume: uint32(v.index)})
	if err != nil {
		return nil, err
	}
	info, err := wire.DecodeInfo(answer)
	if err != nil {
		return nil, r.client.lied(k, err)
	}
	return newFilesystem(r, uint32(v.index), info), nil
}

// Guest is the tree that a guest itself sees, put together from its filesystems
// as its /etc/fstab says.
type Guest struct {
	disk.Filesystem
	Mounts []GuestMount // the root first
}

// GuestMount is a filesystem that is part of a guest's tree.
type GuestMount struct {
	Path      []byte // in the guest; hostile bytes
	Volume    int    // index among the Volumes of the [Reader]
	Subvolume uint64 // of btrfs; 0 where there is none
}

// Guest opens the tree that the guest sees. root names the volume of its root
// filesystem; "" has it found. Of two that were opened by one Reader only the
// later one can be read.
func (r *Reader) Guest(ctx context.Context, root string) (*Guest, error) {
	k, answer, err := r.client.ask(ctx, wire.OpGuest, wire.Guest{Root: root})
	if err != nil {
		return nil, err
	}
	told, err := wire.DecodeGuestInfo(answer)
	if err != nil {
		return nil, r.client.lied(k, err)
	}
	g := &Guest{Filesystem: newFilesystem(r, wire.GuestTree, told.Info)}
	for _, m := range told.Mounts {
		g.Mounts = append(g.Mounts, GuestMount{Path: m.Path, Volume: int(m.Volume), Subvolume: m.Subvolume})
	}
	return g, nil
}
