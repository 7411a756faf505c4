// Package layout says what is on the disks of a VM, layer by layer: partition
// tables, partitions, LVM volume groups and their logical volumes, and in each
// volume the filesystem, or whatever else is recognised there.
//
// It recognises contents by what they are, as blkid(8) does; formats of disk
// images are declared by their owner and are not its business. What cannot be
// read is named, with the reason and a way out, and hides nothing else.
package layout

import (
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "layout"}

// imageHint is the way out of what is not read.
const imageHint = "back this disk up as an image, or the files with an agent in the guest"

// Disk is one disk of a VM, as the guest sees it.
type Disk struct {
	// Name is what its owner calls it. The names of its volumes start with it.
	Name    string
	Content disk.Sparse
	// SectorSize is that of the logical sectors, in bytes: 512, 4096, or 0 for
	// 512.
	SectorSize int64
}

// Kind is the kind of a volume.
type Kind uint8

// The kinds of volume.
const (
	WholeDisk Kind = iota + 1
	Partition
	LogicalVolume
)

// Volume is a run of bytes that can hold a filesystem.
type Volume struct {
	// Name is unique among all volumes: the disk's own name, "NAME-part1" for a
	// partition, "GROUP/NAME" for a logical volume.
	Name string
	Kind Kind

	// Parent is the index of the volume that a partition lies in, -1 for others.
	Parent int
	// Members are the indexes of the volumes that a logical volume lies on, in
	// the order of its group; for a filesystem of several devices all of those
	// that were found, this one among them. Nil otherwise.
	Members []int

	Offset int64 // bytes, of a partition in its parent
	Size   int64 // bytes

	// Of a whole disk with a partition table: "gpt" or "mbr".
	Table string
	// Of a partition.
	Number    int
	PartType  string // a GUID, or two hexadecimal digits of an MBR
	PartUUID  string // as blkid prints PARTUUID
	PartLabel []byte // of GPT; hostile bytes

	// Content is what the volume holds, as blkid calls it: "ext4", "xfs",
	// "btrfs", "vfat", "swap", "LVM2_member", "crypto_LUKS"…; "" when nothing is
	// recognised, or when there is a partition table instead.
	Content string
	Title   string // the same for people: "a LUKS container"
	Label   []byte // hostile bytes
	UUID    string // as blkid prints it; "" where there is none

	// Readable says that [Layout.Open] opens a filesystem here. Of a filesystem
	// of several devices, that is true of the first that was found.
	Readable bool
	Remarks  []string // a sentence each, without hostile bytes
	// Err is why a volume that should hold something readable cannot be read.
	Err error
}

// Layout is what is on the disks of a VM. All methods are safe for concurrent
// use.
type Layout struct {
	volumes []volume
}

// volume is a [Volume] with what it takes to read it.
type volume struct {
	Volume
	bytes disk.Sparse // nil where there are none to read

	// reader opens the filesystem; nil where there is none that can be read.
	reader reader
	// devices are the volumes that the filesystem lies on, in the order in which
	// its reader gets them.
	devices []int
	// opened is the filesystem, or nil: see maxOpened.
	opened disk.Filesystem
}

// Volumes returns all volumes: the whole disks, each followed by its partitions,
// then the logical volumes.
func (l *Layout) Volumes() []Volume {
	list := make([]Volume, len(l.volumes))
	for i := range l.volumes {
		list[i] = l.volumes[i].Volume
	}
	return list
}

// Find returns the index of a volume. The error wraps [disk.ErrNotExist] where
// there is none of that name.
func (l *Layout) Find(name string) (int, error) {
	i := slices.IndexFunc(l.volumes, func(v volume) bool { return v.Name == name })
	if i < 0 {
		return 0, layer.Absent(volumeName(name), "the disks have no such volume")
	}
	return i, nil
}

func (l *Layout) volume(i int) (*volume, error) {
	if i < 0 || i >= len(l.volumes) {
		return nil, layer.Absent("volume", "number %d; there are %d", i, len(l.volumes))
	}
	return &l.volumes[i], nil
}

// Bytes returns the content of volume i, which is also a [disk.Locator]: its
// device numbers are those of the disks, as [Read] was given them.
func (l *Layout) Bytes(i int) (disk.Sparse, error) {
	v, err := l.volume(i)
	if err != nil {
		return nil, err
	}
	if v.bytes == nil && v.Err != nil {
		return nil, v.Err
	}
	if v.bytes == nil {
		return nil, layer.Absent(volumeName(v.Name), "it holds nothing of its own")
	}
	return v.bytes, nil
}

// Devices returns what the filesystem in volume i lies on, in the order in which
// its Used and Locate count devices. It returns nil where there is none.
func (l *Layout) Devices(i int) []disk.Sparse {
	v, err := l.volume(i)
	if err != nil {
		return nil
	}
	var list []disk.Sparse
	for _, d := range v.devices {
		list = append(list, l.volumes[d].bytes)
	}
	return list
}

// Open opens the filesystem in volume i.
func (l *Layout) Open(i int) (disk.Filesystem, error) {
	v, err := l.volume(i)
	switch {
	case err != nil:
		return nil, err
	case v.opened != nil:
		return v.opened, nil
	case v.Err != nil:
		return nil, v.Err
	case v.reader == nil:
		return nil, layer.Absent("filesystem in "+volumeName(v.Name), "it holds %s", v.Title)
	case v.devices == nil:
		return nil, layer.Absent("filesystem in "+volumeName(v.Name), "it is a part of the one in %s", volumeName(l.volumes[v.Members[0]].Name))
	}
	return v.reader(l.Devices(i))
}
