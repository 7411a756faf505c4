// Package lvm reads LVM2 volume groups of untrusted guests: physical volumes on
// disks and partitions, the metadata that they share, and the logical volumes
// that it describes.
//
// It supports linear and striped volumes over any number of physical volumes,
// metadata in one or two areas of each of them or of some of them only, and
// groups of which physical volumes are missing: the volumes that need those are
// refused, the others are read. Mirrors, RAID, snapshots, thin, cached and VDO
// volumes and all other types are refused by name, each volume for itself, and
// so is what a pvmove or the merge of a snapshot was moving.
//
// It promises what package [disk] promises: the content or a [disk.Error], no
// panic, and memory that depends on the named limits and never on what a disk
// claims. Labels, headers and the text of the metadata are verified by their
// checksums before use. Of copies that differ the newest is taken, as LVM does;
// two that claim to be equally new must be the same.
//
//	pv, err := lvm.Identify(partition)
//	group, err := lvm.OpenGroup([]disk.Sparse{partition, ...})
//	volume, err := group.Volume("root")
//
// The layouts come from lib/format_text/layout.h and lib/label/label.h of LVM2,
// the fields of the text from what LVM 2.03 writes.
package lvm
