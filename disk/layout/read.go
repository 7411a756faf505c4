package layout

import (
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
	"github.com/drydock-vm/drydock/disk/partition"
)

const (
	// maxDisks is more than a VM can have attached.
	maxDisks = 256
	// maxVolumes bounds the volumes that are looked at: Linux gives a disk 255
	// partitions at most, and people have a handful.
	maxVolumes = 1024
	// maxName is the longest name of a disk, in bytes.
	maxName = 255
)

// volumeName names a volume in errors.
func volumeName(name string) string { return fmt.Sprintf("volume %.300q", name) }

// Read says what is on the disks of a VM. It returns an error only where nothing
// at all can be said: without disks, or where two have the same name. What is
// wrong with one volume is that volume's Err. The disks must stay readable, and
// their content must not change, as long as the Layout is in use.
func Read(disks []Disk) (*Layout, error) {
	if len(disks) == 0 || len(disks) > maxDisks {
		return nil, layer.Beyond("disks", ondisk.Nowhere, "there are %d, 1 to %d are possible", len(disks), maxDisks)
	}
	l := &Layout{}
	for i, d := range disks {
		if d.Name == "" || len(d.Name) > maxName || strings.Contains(d.Name, "/") {
			return nil, layer.Unsupported(fmt.Sprintf("disk %.300q", d.Name), ondisk.Nowhere, "", "a disk needs a name without slashes, of at most %d bytes", maxName)
		}
		l.addDisk(i, d)
	}
	if name, twice := l.duplicate(); twice {
		return nil, layer.Unsupported(volumeName(name), ondisk.Nowhere, "give one of the disks another name", "two volumes have this name")
	}
	for i := range l.volumes {
		l.recognise(i)
	}
	physical := len(l.volumes)
	l.addGroups()
	for i := physical; i < len(l.volumes); i++ {
		l.recognise(i)
	}
	l.openAll()
	return l, nil
}

func (l *Layout) duplicate() (string, bool) {
	seen := make(map[string]bool, len(l.volumes))
	for i := range l.volumes {
		name := l.volumes[i].Name
		if seen[name] {
			return name, true
		}
		seen[name] = true
	}
	return "", false
}

// addDisk adds a disk and its partitions.
func (l *Layout) addDisk(i int, d Disk) {
	whole := len(l.volumes)
	l.volumes = append(l.volumes, volume{
		Volume: Volume{Name: d.Name, Kind: WholeDisk, Parent: -1, Size: d.Content.Size()},
		bytes:  &region{Sparse: d.Content, device: i, length: d.Content.Size()},
	})
	table, err := partition.Read(d.Content, d.SectorSize)
	v := &l.volumes[whole]
	if err != nil {
		v.Err = err
		v.remarkSectorSize(d)
		return
	}
	if table.Kind == partition.None {
		v.remarkSectorSize(d)
		return
	}
	v.Table = table.Kind.String()
	v.Title = "a partition table of type " + strings.ToUpper(v.Table)
	if table.Damage != nil {
		v.remark("the backup of the partition table is used: %v", table.Damage)
	}
	v.Remarks = append(v.Remarks, table.Remarks...)
	for _, p := range table.Partitions {
		if len(l.volumes) >= maxVolumes {
			l.volumes[whole].remark("there are more than %d volumes: partitions from number %d on are left out", maxVolumes, p.Number)
			return
		}
		l.addPartition(whole, i, d, table, p)
	}
}

func (v *volume) remark(format string, args ...any) {
	v.Remarks = append(v.Remarks, fmt.Sprintf(format, args...))
}

// remarkSectorSize looks for a GPT of sectors of another size.
func (v *volume) remarkSectorSize(d Disk) {
	const magic = "EFI PART"
	declared := d.SectorSize
	if declared == 0 {
		declared = partition.DefaultSectorSize
	}
	for _, size := range []int64{512, 4096} {
		var buf [len(magic)]byte
		if size != declared && ondisk.ReadFull(d.Content, buf[:], size) == nil && string(buf[:]) == magic {
			v.remark("there may be a GPT for sectors of %d bytes: declare them if the VM has such", size)
		}
	}
}

func (l *Layout) addPartition(parent, device int, d Disk, table *partition.Table, p partition.Partition) {
	v := volume{Volume: Volume{
		Name: fmt.Sprintf("%s-part%d", d.Name, p.Number), Kind: Partition, Parent: parent,
		Offset: p.Offset, Size: p.Length, Number: p.Number,
	}}
	if table.Kind == partition.GPT {
		v.PartType, v.PartUUID, v.PartLabel = strings.ToLower(p.TypeID.String()), strings.ToLower(p.ID.String()), p.Name
	} else {
		v.PartType = fmt.Sprintf("%02x", p.Type)
		if table.Signature != 0 {
			v.PartUUID = fmt.Sprintf("%08x-%02x", table.Signature, p.Number)
		}
	}
	if table.Kind == partition.MBR && p.Extended() {
		v.Title = "logical partitions"
		l.volumes = append(l.volumes, v)
		return
	}
	section, err := partition.Section(d.Content, p.Offset, p.Length)
	if err != nil {
		v.Err = err
	} else {
		v.bytes = &region{Sparse: section, device: device, off: p.Offset, length: p.Length}
	}
	l.volumes = append(l.volumes, v)
}

// region is a disk or a part of one. It is a [disk.Locator].
type region struct {
	disk.Sparse
	device      int   // number of the disk
	off, length int64 // on it, in bytes
}

// Locate implements [disk.Locator].
func (r *region) Locate(off, length int64, yield func(disk.Location) error) error {
	if !ondisk.Within(off, length, r.length) {
		return layer.Beyond("location", off, "%d bytes from there are not within the volume of %d bytes", length, r.length)
	}
	if length == 0 {
		return nil
	}
	return yield(disk.Location{Offset: off, Length: length, Device: r.device, At: r.off + off})
}
