package guest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/layout"
)

// resolver finds the volumes that an fstab names.
type resolver struct{ volumes []layout.Volume }

// resolve returns the index of the volume that a source names. Guessed says that
// a name such as /dev/sda1 was taken by its letter, since no disk is called so.
func (r *resolver) resolve(source string) (volume int, guessed bool, err error) {
	if tag, value, ok := strings.Cut(source, "="); ok && !strings.HasPrefix(source, "/") {
		volume, err = r.tagged(tag, value)
		return volume, false, err
	}
	rest, ok := strings.CutPrefix(source, "/dev/")
	if !ok {
		return 0, false, layer.Absent(fmt.Sprintf("source %.100q", source), "it is not a device")
	}
	if name, ok := strings.CutPrefix(rest, "mapper/"); ok {
		volume, err = r.named(mapperName(name))
		return volume, false, err
	}
	if by, ok := strings.CutPrefix(rest, "disk/by-"); ok {
		kind, value, _ := strings.Cut(by, "/")
		if name, isLV := strings.CutPrefix(value, "dm-name-"); kind == "id" && isLV {
			volume, err = r.named(mapperName(name))
			return volume, false, err
		}
		volume, err = r.tagged(strings.ToUpper(kind), unescapeUdev(value))
		return volume, false, err
	}
	if strings.Contains(rest, "/") {
		volume, err = r.named(rest) // GROUP/NAME
		return volume, false, err
	}
	return r.device(rest)
}

// tagged finds the volume with a UUID, label, PARTUUID or PARTLABEL.
func (r *resolver) tagged(tag, value string) (int, error) {
	var match func(v *layout.Volume) bool
	switch tag {
	case "UUID":
		match = func(v *layout.Volume) bool { return strings.EqualFold(v.UUID, value) }
	case "LABEL":
		match = func(v *layout.Volume) bool { return string(v.Label) == value }
	case "PARTUUID":
		match = func(v *layout.Volume) bool { return strings.EqualFold(v.PartUUID, value) }
	case "PARTLABEL":
		match = func(v *layout.Volume) bool { return string(v.PartLabel) == value }
	default:
		return 0, layer.Absent(fmt.Sprintf("source %.20q=%.80q", tag, value), "only UUID, LABEL, PARTUUID and PARTLABEL are looked up")
	}
	what := fmt.Sprintf("%s=%.80q", tag, value)
	if value == "" {
		return 0, layer.Absent(what, "it is empty")
	}
	return r.only(what, match)
}

// only returns the one volume that matches: of several the one that can be read.
func (r *resolver) only(what string, match func(v *layout.Volume) bool) (int, error) {
	found, readable := []int(nil), []int(nil)
	for i := range r.volumes {
		if !match(&r.volumes[i]) {
			continue
		}
		found = append(found, i)
		if r.volumes[i].Readable {
			readable = append(readable, i)
		}
	}
	switch {
	case len(readable) > 1:
		return 0, layer.Unsupported(what, nowhere, "leave out the disk that is a copy",
			"volumes %q and %q both are that", r.volumes[readable[0]].Name, r.volumes[readable[1]].Name)
	case len(readable) == 1:
		return readable[0], nil
	case len(found) > 0:
		return found[0], nil
	}
	return 0, layer.Absent(what, "no volume is that")
}

// named finds a volume by its name in the layout.
func (r *resolver) named(name string) (int, error) {
	return r.only(fmt.Sprintf("volume %.150q", name), func(v *layout.Volume) bool { return v.Name == name })
}

// mapperName returns the GROUP/NAME of a name below /dev/mapper, where a dash in
// either is doubled.
func mapperName(name string) string {
	const dash = "\x00"
	name = strings.ReplaceAll(name, "--", dash)
	name = strings.Replace(name, "-", "/", 1)
	return strings.ReplaceAll(name, dash, "-")
}

// unescapeUdev decodes the names below /dev/disk: "\x20" is a space.
func unescapeUdev(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if b, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// device finds a disk or partition by the name that the guest's kernel gave it:
// "vda1", "nvme0n1p1".
func (r *resolver) device(name string) (volume int, guessed bool, err error) {
	what := fmt.Sprintf("device %.100q", "/dev/"+name)
	base, number, index, err := splitDevice(name)
	if err != nil {
		return 0, false, layer.Absent(what, "%v", err)
	}
	parent, disks := -1, []int(nil)
	for i := range r.volumes {
		if r.volumes[i].Kind != layout.WholeDisk {
			continue
		}
		if r.volumes[i].Name == base {
			parent = i
		}
		disks = append(disks, i)
	}
	if parent < 0 {
		if index >= len(disks) {
			return 0, false, layer.Absent(what, "there are %d disks", len(disks))
		}
		parent, guessed = disks[index], true
	}
	if number == 0 {
		return parent, guessed, nil
	}
	for i := range r.volumes {
		if v := &r.volumes[i]; v.Kind == layout.Partition && v.Parent == parent && v.Number == number {
			return i, guessed, nil
		}
	}
	return 0, false, layer.Absent(what, "disk %q has no partition %d", r.volumes[parent].Name, number)
}

// splitDevice takes a kernel's name of a disk or partition apart: the disk's
// name, the number of the partition or 0, and which disk it is in the order of
// discovery.
func splitDevice(name string) (base string, number, index int, err error) {
	base, part := name, ""
	if rest, ok := strings.CutPrefix(name, "nvme"); ok {
		if at := strings.IndexByte(rest, 'p'); at >= 0 {
			base, part = name[:len("nvme")+at], rest[at+1:]
			if part == "" {
				part = "0" // which is none
			}
		}
		controller, _, _ := strings.Cut(strings.TrimPrefix(base, "nvme"), "n")
		index, err = strconv.Atoi(controller)
	} else {
		base = strings.TrimRight(name, "0123456789")
		part = name[len(base):]
		index, err = letterIndex(base)
	}
	if err != nil || index < 0 {
		return "", 0, 0, fmt.Errorf("%w: not the name of a disk", disk.ErrNotExist)
	}
	if part != "" {
		if number, err = strconv.Atoi(part); err != nil || number <= 0 {
			return "", 0, 0, fmt.Errorf("%w: not the number of a partition", disk.ErrNotExist)
		}
	}
	return base, number, index, nil
}

// letterIndex returns 0 for "vda", 1 for "sdb".
func letterIndex(base string) (int, error) {
	for _, prefix := range []string{"xvd", "vd", "sd", "hd"} {
		if letter, ok := strings.CutPrefix(base, prefix); ok && len(letter) == 1 && letter[0] >= 'a' && letter[0] <= 'z' {
			return int(letter[0] - 'a'), nil
		}
	}
	return 0, disk.ErrNotExist
}
