// Package layout says what is on the disks of a VM, layer by layer: partition
// tables, partitions, LVM volume groups and their logical volumes, and in each
// volume the filesystem, or whatever else is recognised there.
//
// It recognises contents by what they are, as blkid(8) does; formats of disk
// images are declared by their owner and are not its business. What cannot be
// read is named, with the reason and a way out, and hides nothing else.
package layout

import "github.com/drydock-vm/drydock/disk"

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
