package btrfs

import (
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxDevices bounds the devices of one filesystem: its superblock has room for
// the stripes of some 60, and nobody has attached more disks to a guest.
const maxDevices = 256

// Member says which part of which filesystem a device is.
type Member struct {
	FSID       [16]byte // the same on all devices of one filesystem
	DeviceUUID [16]byte
	DeviceID   uint64
	Devices    uint64 // how many the filesystem has
	Generation uint64 // of the last commit that reached this device
	Label      []byte // without padding; hostile bytes
}

// Recognise reports whether d carries the magic number of a btrfs superblock.
// It checks nothing else: that is [Identify]'s and [Open]'s work.
func Recognise(d disk.Sparse) (bool, error) {
	var magic [len(superblockMagic)]byte
	err := ondisk.ReadFull(d, magic[:], superblockOffset+magicOffset)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // too small for a superblock
	}
	if err != nil {
		return false, layer.Unreadable("superblock", superblockOffset, err)
	}
	return string(magic[:]) == superblockMagic, nil
}

// Identify reads which filesystem d is a device of, so that a caller can find
// those that [Open] needs together. It returns false for what [Recognise] does
// not know.
func Identify(d disk.Sparse) (Member, bool, error) {
	known, err := Recognise(d)
	if err != nil || !known {
		return Member{}, false, err
	}
	sb, err := readSuperblock(d)
	if err != nil {
		return Member{}, true, err
	}
	return Member{
		FSID: sb.fsid, DeviceUUID: sb.device.uuid, DeviceID: sb.device.id, Devices: sb.deviceCount,
		Generation: sb.generation, Label: sb.labelBytes(),
	}, true, nil
}

// device is one of the devices given to Open. Its place in [volume.devices] is
// that among them.
type device struct {
	disk  disk.Sparse
	item  deviceItem // as the device's own superblock has it
	stale bool       // it missed commits: nothing is read from it
}

// gather reads the superblocks of all devices, and returns the newest.
func gather(disks []disk.Sparse) (*superblock, []device, error) {
	if len(disks) == 0 || len(disks) > maxDevices {
		return nil, nil, layer.Beyond("devices", ondisk.Nowhere, "%d devices were given, 1 to %d are possible", len(disks), maxDevices)
	}
	supers := make([]*superblock, len(disks))
	devices := make([]device, len(disks))
	newest := 0
	for i, d := range disks {
		sb, err := readSuperblock(d)
		if err != nil {
			return nil, nil, err
		}
		supers[i], devices[i] = sb, device{disk: d, item: sb.device}
		if sb.generation > supers[newest].generation {
			newest = i
		}
	}
	sb := supers[newest]
	for i, other := range supers {
		if err := checkMember(sb, other, i, devices); err != nil {
			return nil, nil, err
		}
		// A crash between the writes of two superblocks leaves one behind by
		// a commit, with all that was written before them on both.
		devices[i].stale = other.generation+1 < sb.generation
	}
	return sb, devices, nil
}

// checkMember checks that the i-th device is of the same filesystem as the newest.
func checkMember(sb, other *superblock, i int, devices []device) error {
	switch {
	case other.fsid != sb.fsid:
		return layer.Damaged(deviceName(i), superblockOffset, "it belongs to filesystem %s, others to %s: they cannot be opened together",
			formatUUID(other.fsid), formatUUID(sb.fsid))
	case other.sectorSize != sb.sectorSize || other.nodeSize != sb.nodeSize || other.checksum != sb.checksum || other.metadataFSID != sb.metadataFSID:
		return layer.Damaged(deviceName(i), superblockOffset, "its superblock contradicts that of another device")
	case devices[i].disk.Size() < int64(devices[i].item.totalBytes):
		return layer.Damaged(deviceName(i), superblockOffset, "it has %d bytes, but the filesystem uses %d", devices[i].disk.Size(), devices[i].item.totalBytes)
	}
	for j := range i {
		if devices[j].item.id == devices[i].item.id || devices[j].item.uuid == devices[i].item.uuid {
			return layer.Damaged(deviceName(i), superblockOffset, "it has the same device ID (%d) or UUID as device %d of those given: one is a copy of the other",
				other.device.id, j)
		}
	}
	return nil
}

// deviceName names a device by its place among those given.
func deviceName(i int) string { return fmt.Sprintf("device %d of those given", i) }
