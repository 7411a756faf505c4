package layout

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/iso9660"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// maxOpened is the number of filesystems that [Read] keeps open, each with its
// cache; [Layout.Open] opens the others again.
const maxOpened = 16

// reader opens the filesystem on devices: one, but for btrfs.
type reader func(devices []disk.Sparse) (disk.Filesystem, error)

func openExt4(devices []disk.Sparse) (disk.Filesystem, error) {
	return opened(ext4.Open(devices[0], ext4.Options{}))
}

func openXFS(devices []disk.Sparse) (disk.Filesystem, error) {
	return opened(xfs.Open(devices[0], xfs.Options{}))
}

func openFAT(devices []disk.Sparse) (disk.Filesystem, error) {
	return opened(fat.Open(devices[0], fat.Options{}))
}

func openISO(devices []disk.Sparse) (disk.Filesystem, error) {
	return opened(iso9660.Open(devices[0], iso9660.Options{}))
}

// openBtrfs opens all of it: the default subvolume alone would hide those that lie
// outside.
func openBtrfs(devices []disk.Sparse) (disk.Filesystem, error) {
	return opened(btrfs.Open(devices, btrfs.Options{SubvolumeID: btrfs.TopLevel}))
}

// opened makes an interface of a reader's own type: nil stays nil.
func opened[F disk.Filesystem](fs F, err error) (disk.Filesystem, error) {
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// openAll opens all filesystems once, to know what they are and whether they can
// be read.
func (l *Layout) openAll() {
	l.joinBtrfs()
	kept := 0
	for i := range l.volumes {
		v := &l.volumes[i]
		if v.reader == nil || v.Err != nil || v.devices == nil {
			continue
		}
		fs, err := v.reader(l.Devices(i))
		if err != nil {
			for _, d := range v.devices {
				l.volumes[d].Err = err
			}
			continue
		}
		v.describe(fs.Info())
		if kept < maxOpened {
			v.opened = fs
			kept++
		}
	}
}

// joinBtrfs finds the devices of each btrfs. The filesystem is that of the first
// of them, and the others are a part of it.
func (l *Layout) joinBtrfs() {
	first := make(map[[16]byte]int)
	for i := range l.volumes {
		v := &l.volumes[i]
		if v.Content != contentBtrfs || v.Err != nil {
			continue
		}
		m, _, err := btrfs.Identify(v.bytes)
		if err != nil {
			v.Err = err
			continue
		}
		v.UUID, v.Label = formatUUID(m.FSID), m.Label
		k, known := first[m.FSID]
		if !known {
			first[m.FSID] = i
			v.devices = []int{i}
			continue
		}
		l.volumes[k].devices = append(l.volumes[k].devices, i)
		v.devices = nil
	}
	for _, k := range first {
		devices := l.volumes[k].devices
		if len(devices) == 1 {
			continue
		}
		for _, i := range devices {
			l.volumes[i].Members = devices
			l.volumes[i].Title = fmt.Sprintf("a btrfs filesystem on %d devices", len(devices))
		}
	}
}

// describe takes over what a filesystem says of itself.
func (v *volume) describe(info disk.FilesystemInfo) {
	v.Content, v.Label, v.Readable = info.Type, info.Label, true
	v.Remarks = append(v.Remarks, info.Remarks...)
	if len(v.devices) == 1 {
		v.Title = titleOf(info.Type)
	}
	switch {
	case info.UUID == [16]byte{}:
		v.UUID = ""
	case info.Type == contentFAT:
		v.UUID = formatSerial(binary.BigEndian.Uint32(info.UUID[:]))
	case info.Type == contentISO:
		v.UUID = formatDate(info.UUID)
	default:
		v.UUID = formatUUID(info.UUID)
	}
}

func titleOf(kind string) string {
	switch {
	case kind == contentFAT:
		return "a FAT filesystem"
	case kind == contentXFS:
		return "an XFS filesystem"
	case kind == contentISO:
		return titleISO
	case strings.HasPrefix(kind, "ext"):
		return "an " + kind + " filesystem"
	}
	return "a " + kind + " filesystem"
}

// formatUUID returns a UUID as blkid(8) prints it.
func formatUUID(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// formatSerial returns the serial number of a FAT or exFAT as blkid(8) prints it.
func formatSerial(n uint32) string { return fmt.Sprintf("%04X-%04X", n>>16, n&0xffff) }

// formatDate returns the 16 digits of an ISO 9660 image as blkid(8) prints them.
func formatDate(digits [16]byte) string {
	d := string(digits[:])
	return strings.Join([]string{d[:4], d[4:6], d[6:8], d[8:10], d[10:12], d[12:14], d[14:]}, "-")
}
