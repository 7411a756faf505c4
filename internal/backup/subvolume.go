package backup

import (
	"bytes"
	"errors"
	"math"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/pattern"
)

// Use says which subvolumes are in use, and come into a backup.
type Use struct {
	Include, Exclude *pattern.List // as in [Source]
	Mounted          []uint64      // IDs of those that the guest mounts somewhere
}

// Superseded returns those of a filesystem's subvolumes that tell what others were once,
// and that [Source.SkipSnapshots] leaves out: the snapshots that are read-only, and tell
// nothing but what something was that is in use still, and in the backup as the patterns
// have it, or what that was made from. It is neither of those that were received from
// another filesystem, nor the default subvolume, nor one that is mounted, nor one in which
// another subvolume lies that is backed up.
func Superseded(list []disk.Subvolume, u Use) []disk.Subvolume {
	past := pastOf(list, u)
	parents := make(map[uint64]uint64, len(list))
	kept := map[uint64]bool{0: true} // what is backed up, and what that lies in
	for i := range list {
		parents[list[i].ID] = list[i].Parent
	}
	for i := range list {
		if s := &list[i]; !u.isSnapshot(s) || !past.has(s) {
			for id := s.ID; !kept[id]; id = parents[id] {
				kept[id] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(s disk.Subvolume) bool { return kept[s.ID] })
}

// isSnapshot reports whether a subvolume was made to tell what another one was.
func (u *Use) isSnapshot(s *disk.Subvolume) bool {
	return s.ReadOnly && s.Origin != [16]byte{} && s.Received == [16]byte{} && !s.Default && !slices.Contains(u.Mounted, s.ID)
}

// backedUp reports whether the patterns choose a subvolume and what is in it.
func (u *Use) backedUp(s *disk.Subvolume) bool {
	chosen := u.Include.Empty()
	for end := range len(s.Path) + 1 {
		if p := s.Path[:end]; end == len(s.Path) || s.Path[end] == '/' {
			if u.Exclude.Match(p, true) == pattern.Match {
				return false
			}
			chosen = chosen || u.Include.Match(p, true) == pattern.Match
		}
	}
	// No file has this name: what matches it is a pattern for all that is in a folder.
	all := append(slices.Clone(s.Path), "/\x00"...)
	return chosen && u.Exclude.Match(bytes.TrimPrefix(all, []byte("/")), true) != pattern.Match
}

// past is what the subvolumes that are in use were once: the UUIDs of subvolumes, there
// or gone, each with the last transaction up to which it was that.
type past map[[16]byte]uint64

// pastOf follows the origins of what is in use and in the backup.
func pastOf(list []disk.Subvolume, u Use) past {
	p := make(past)
	var found [][16]byte
	add := func(uuid [16]byte, until uint64) {
		if uuid == [16]byte{} {
			return // nobody's
		}
		if _, ok := p[uuid]; !ok {
			found = append(found, uuid)
		}
		p[uuid] = max(p[uuid], until)
	}
	members := make(map[[16]byte][]*disk.Subvolume, len(list))
	for i := range list {
		s := &list[i]
		members[s.UUID] = append(members[s.UUID], s)
		if !u.isSnapshot(s) && u.backedUp(s) {
			add(s.UUID, math.MaxUint64)
		}
	}
	for len(found) > 0 {
		last := found[len(found)-1]
		found = found[:len(found)-1]
		for _, s := range members[last] {
			add(s.Origin, s.Made)
		}
	}
	return p
}

// has reports whether a snapshot is in the past: something in use was made of it as it
// is, or of its original when that was not older. The latter says nothing of a snapshot
// that was changed after it was made.
func (p past) has(s *disk.Subvolume) bool {
	if until, ok := p[s.UUID]; ok && s.Changed <= until {
		return true
	}
	until, ok := p[s.Origin]
	return ok && s.Made <= until && s.Changed <= s.Made
}

// superseded returns the inode numbers of the root directories of the snapshots that are
// left out of a disk. Of subvolumes that cannot be read the walk will tell; the snapshots
// of those are all that there is of them.
func (s *Source) superseded() (map[uint64]bool, error) {
	lister, ok := s.FS.(disk.SubvolumeLister)
	if !ok || !s.SkipSnapshots {
		return nil, nil
	}
	list, err := lister.Subvolumes()
	if d := (*disk.Error)(nil); err != nil && !errors.As(err, &d) {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(v disk.Subvolume) bool {
		_, err := s.FS.Inode(v.Root)
		return err != nil
	})
	roots := make(map[uint64]bool)
	for _, v := range Superseded(list, Use{Include: s.Include, Exclude: s.Exclude, Mounted: s.Mounted}) {
		roots[v.Root] = true
	}
	return roots, nil
}
