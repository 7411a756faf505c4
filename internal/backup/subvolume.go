package backup

import (
	"errors"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// Superseded returns those of a filesystem's subvolumes that tell what others were once,
// and that [Source.SkipSnapshots] leaves out: the snapshots that are read-only, and of
// which the original, or something else that was made from it, is in use still. It is
// neither of those that were received from another filesystem, nor the default
// subvolume, nor one in which another subvolume lies that is backed up.
func Superseded(list []disk.Subvolume) []disk.Subvolume {
	families := make(families)
	for i := range list {
		families.join(list[i].UUID, list[i].Origin)
	}
	alive := map[[16]byte]bool{} // families of which something is in use
	for i := range list {
		if s := &list[i]; !isSnapshot(s) {
			alive[families.of(s.UUID)] = true
		}
	}
	parents := make(map[uint64]uint64, len(list))
	kept := map[uint64]bool{0: true} // what is backed up, and what that lies in
	for i := range list {
		parents[list[i].ID] = list[i].Parent
	}
	for i := range list {
		if s := &list[i]; !isSnapshot(s) || !alive[families.of(s.Origin)] {
			for id := s.ID; !kept[id]; id = parents[id] {
				kept[id] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(s disk.Subvolume) bool { return kept[s.ID] })
}

// isSnapshot reports whether a subvolume was made to tell what another one was.
func isSnapshot(s *disk.Subvolume) bool {
	return s.ReadOnly && s.Origin != [16]byte{} && s.Received == [16]byte{} && !s.Default
}

// families are sets of subvolumes that were made from one, by UUID: each has a member
// that stands for it.
type families map[[16]byte][16]byte

// of returns the member that stands for the family of a subvolume.
func (f families) of(uuid [16]byte) [16]byte {
	for {
		next, ok := f[uuid]
		if !ok {
			return uuid
		}
		if further, ok := f[next]; ok {
			f[uuid] = further // the way gets shorter each time
		}
		uuid = next
	}
}

// join makes one family of two. Zero is nobody's UUID.
func (f families) join(a, b [16]byte) {
	if a == [16]byte{} || b == [16]byte{} {
		return
	}
	if a, b = f.of(a), f.of(b); a != b {
		f[a] = b
	}
}

// superseded returns the inode numbers of the root directories of the snapshots that are
// left out of a disk. Of subvolumes that cannot be read the walk will tell.
func (s *Source) superseded() (map[uint64]bool, error) {
	lister, ok := s.FS.(disk.SubvolumeLister)
	if !ok || !s.SkipSnapshots {
		return nil, nil
	}
	list, err := lister.Subvolumes()
	if d := (*disk.Error)(nil); err != nil && !errors.As(err, &d) {
		return nil, err
	}
	roots := make(map[uint64]bool)
	for _, v := range Superseded(list) {
		roots[v.Root] = true
	}
	return roots, nil
}
