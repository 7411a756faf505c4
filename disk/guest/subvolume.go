package guest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

// subvolumes is the trees of a filesystem: of btrfs its subvolumes, of others
// none but the one at the root.
type subvolumes struct {
	root uint64 // what a mount without options shows
	list []disk.Subvolume
	err  error // why the list may not be all
}

// subvolumesOf lists the subvolumes of a volume, once.
func (c *composer) subvolumesOf(volume int, fs disk.Filesystem) *subvolumes {
	if s := c.trees[volume]; s != nil {
		return s
	}
	s := &subvolumes{root: fs.Info().Root}
	if lister, ok := fs.(disk.SubvolumeLister); ok {
		s.list, s.err = lister.Subvolumes()
		slices.SortStableFunc(s.list, func(a, b disk.Subvolume) int { return rank(&a) - rank(&b) })
		if i := slices.IndexFunc(s.list, func(v disk.Subvolume) bool { return v.Default }); i >= 0 {
			s.root = s.list[i].Root
		}
	}
	c.trees[volume] = s
	return s
}

// rank puts what is written to before snapshots.
func rank(s *disk.Subvolume) int {
	if s.ReadOnly || strings.Contains(string(s.Path), "snapshot") {
		return 1
	}
	return 0
}

// choose returns the directory that an entry mounts, and the ID of its subvolume,
// which is 0 where there is none.
func (s *subvolumes) choose(e *entry) (root, id uint64, err error) {
	path, byPath := e.option("subvol")
	number, byID := e.option("subvolid")
	path = strings.Trim(path, "/")
	for i := range s.list {
		v := &s.list[i]
		switch {
		case byPath && string(v.Path) != path:
		case byID && !isSubvolume(v, number):
		case !byPath && !byID && v.Root != s.root:
		default:
			return v.Root, v.ID, nil
		}
	}
	if len(s.list) == 0 && s.err == nil || !byPath && !byID {
		return s.root, 0, nil
	}
	if s.err != nil {
		return 0, 0, s.err
	}
	return 0, 0, layer.Absent(fmt.Sprintf("subvolume %.100q", path+number), "the filesystem has no such subvolume")
}

// isSubvolume compares the ID of a subvolume with that of an option: 0 is the top
// level.
func isSubvolume(s *disk.Subvolume, number string) bool {
	id, err := strconv.ParseUint(number, 0, 64)
	return err == nil && (s.ID == id || id == 0 && s.Parent == 0)
}

// remarkSubvolumes counts the subvolumes of a volume that no mount shows.
func (c *composer) remarkSubvolumes(volume int, fs disk.Filesystem) {
	all := c.subvolumesOf(volume, fs)
	if all.err != nil {
		c.remark("volume %q: not all subvolumes can be read: %v", c.volumes[volume].Name, all.err)
	}
	parents := make(map[uint64]uint64, len(all.list))
	for _, s := range all.list {
		parents[s.ID] = s.Parent
	}
	visible := map[uint64]bool{0: false} // what is known
	for _, m := range c.fs.mounts {
		if m.Volume == volume {
			visible[m.Subvolume] = true
		}
	}
	hidden := 0
	for _, s := range all.list {
		if !isVisible(s.ID, parents, visible) && s.Parent != 0 {
			hidden++
		}
	}
	if hidden > 0 {
		c.remark("volume %q: %d subvolumes are mounted nowhere and not shown", c.volumes[volume].Name, hidden)
	}
}

// isVisible reports whether a subvolume lies in one that is visible, and notes
// that for all on the way: each is passed once, and parents in a circle are not
// visible.
func isVisible(id uint64, parents map[uint64]uint64, visible map[uint64]bool) bool {
	var passed []uint64
	for {
		known, ok := visible[id]
		if ok {
			for _, p := range passed {
				visible[p] = known
			}
			return known
		}
		visible[id] = false
		passed = append(passed, id)
		id = parents[id]
	}
}
