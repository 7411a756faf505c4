package layout

import (
	"cmp"
	"errors"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// swapHeader is what is kept of swap space, in bytes: its header, which has
	// the UUID that fstab names, is one page, and Linux has pages of up to 64 KiB.
	swapHeader = 64 << 10
	// maxUsedRanges bounds what is remembered of all disks, 16 bytes each. A
	// volume with which there would be more counts as used in whole.
	maxUsedRanges = 2 << 20
)

// Unused is what a copy of a disk need not have.
type Unused struct {
	Ranges []UnusedRange // in ascending order, apart from one another
	// Kept says, once for each volume, why all of it counts as used though it
	// should hold something readable.
	Kept []error
}

// UnusedRange is a range of a disk whose content means nothing to the guest.
type UnusedRange struct {
	Offset, Length int64 // bytes
	Swap           bool  // in swap space; otherwise freed by a filesystem
}

// Unused returns, for each disk, what a copy of it need not have: what the
// filesystems on it have not in use, and swap space but for its header. What lies
// in no volume, volumes that are unknown, unreadable or damaged, and what two
// volumes claim and one of them uses, is in use.
func (l *Layout) Unused() []Unused {
	u := &unused{l: l}
	for _, v := range l.volumes {
		if v.Kind == WholeDisk {
			u.disks = append(u.disks, claims{})
		}
	}
	for i := range l.volumes {
		u.volume(i)
	}
	out := make([]Unused, len(u.disks))
	for i := range u.disks {
		out[i] = Unused{Ranges: u.disks[i].unused(), Kept: u.disks[i].kept}
	}
	return out
}

// span is the bytes [start, end) of a disk.
type span struct{ start, end int64 }

// claims is what the volumes say of one disk.
type claims struct {
	used              []span
	filesystems, swap []span // where what is not used is free
	kept              []error
}

type unused struct {
	l     *Layout
	disks []claims
	count int // of used ranges, on all disks
}

// volume collects what one volume says.
func (u *unused) volume(i int) {
	v := &u.l.volumes[i]
	switch {
	case v.bytes == nil || v.Table != "":
		return // others lie in it, or nothing
	case v.Err != nil:
		u.whole(i, v.Err)
	case v.Content == contentLVM:
		return // but for the logical volumes, it is in no volume
	case v.reader != nil && v.devices == nil:
		return // it is a part of the filesystem in another
	case v.reader != nil:
		u.filesystem(i)
	case v.Content == contentSwap:
		u.add(i, func(c *claims) *[]span { return &c.swap }, 0, v.Size)
		u.use(i, 0, min(swapHeader, v.Size))
	default:
		u.whole(i, nil)
	}
}

// filesystem collects what the filesystem in volume i uses of its devices.
func (u *unused) filesystem(i int) {
	devices := u.l.volumes[i].devices
	fs, err := u.l.Open(i)
	usage, ok := fs.(disk.Usage)
	if err != nil || !ok {
		for _, d := range devices {
			u.whole(d, err)
		}
		return
	}
	for number, d := range devices {
		size := u.l.volumes[d].Size
		if len(devices) == 1 {
			// What is behind it may be somebody else's.
			size = min(size, fs.Info().Size)
		}
		if err := usage.Used(number, func(off, length int64) error {
			if u.count >= maxUsedRanges {
				return errTooMany
			}
			u.use(d, off, length)
			return nil
		}); err != nil {
			u.whole(d, err)
			continue
		}
		u.add(d, func(c *claims) *[]span { return &c.filesystems }, 0, size)
	}
}

var errTooMany = errors.New("too many ranges are in use")

// whole notes that all of volume i is in use, and on each disk that it lies on what
// its reader says of that, if there is one.
func (u *unused) whole(i int, err error) {
	v := &u.l.volumes[i]
	u.use(i, 0, v.Size)
	if err == nil {
		return
	}
	if e, ok := err.(*disk.Error); ok && e.Layer == layer.Name { // it names the volume
		here := *e
		here.Hint = "" // for who wants to read it
		err = &here
	} else {
		err = layer.Unreadable(volumeName(v.Name), ondisk.Nowhere, err)
	}
	_ = locate(v.bytes, 0, min(v.Size, v.bytes.Size()), func(at disk.Location) error {
		if at.Device >= 0 && at.Device < len(u.disks) {
			c := &u.disks[at.Device]
			if n := len(c.kept); n == 0 || c.kept[n-1] != err {
				c.kept = append(c.kept, err)
			}
		}
		return nil
	})
}

func (u *unused) use(i int, off, length int64) {
	u.count++
	u.add(i, func(c *claims) *[]span { return &c.used }, off, length)
}

// add adds a range of volume i to a list of each disk that it lies on.
func (u *unused) add(i int, list func(*claims) *[]span, off, length int64) {
	v := &u.l.volumes[i]
	length = min(length, v.bytes.Size()-off)
	if length <= 0 {
		return
	}
	// The range is within the volume, which is all that could be wrong; what a
	// volume has nowhere needs no copy.
	_ = locate(v.bytes, off, length, func(at disk.Location) error {
		if at.Device >= 0 && at.Device < len(u.disks) {
			l := list(&u.disks[at.Device])
			*l = append(*l, span{at.At, at.At + at.Length})
		}
		return nil
	})
}

// unused makes the list of one disk.
func (c *claims) unused() []UnusedRange {
	c.used, c.filesystems, c.swap = joined(c.used), joined(c.filesystems), joined(c.swap)
	var out []UnusedRange
	for _, s := range without(c.filesystems, c.used) {
		out = append(out, UnusedRange{Offset: s.start, Length: s.end - s.start})
	}
	taken := joined(slices.Concat(c.used, c.filesystems))
	for _, s := range without(c.swap, taken) {
		out = append(out, UnusedRange{Offset: s.start, Length: s.end - s.start, Swap: true})
	}
	slices.SortFunc(out, func(a, b UnusedRange) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

// joined sorts spans, and joins those that touch.
func joined(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && s.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
			continue
		}
		out = append(out, s)
	}
	return out
}

// without returns what is in list and not in minus; both are joined.
func without(list, minus []span) (out []span) {
	for _, s := range list {
		for len(minus) > 0 && minus[0].end <= s.start {
			minus = minus[1:]
		}
		for _, m := range minus {
			if m.start >= s.end {
				break
			}
			if m.start > s.start {
				out = append(out, span{s.start, m.start})
			}
			s.start = max(s.start, m.end)
		}
		if s.start < s.end {
			out = append(out, s)
		}
	}
	return out
}
