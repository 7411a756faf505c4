package backup

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// mount is a place in the guest's tree where a disk is mounted or an object lies,
// or that is above such a place.
type mount struct {
	src      *Source // nil above
	object   *Object // nil but for an object
	children map[string]*mount
}

// names returns the names of the children, sorted.
func (m *mount) names() []string {
	if m == nil {
		return nil
	}
	var names []string
	for n := range m.children {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// child returns what is mounted at or below a name, or nil.
func (m *mount) child(name string) *mount {
	if m == nil {
		return nil
	}
	return m.children[name]
}

// told reports whether nothing but objects lies in m itself, of all of which it is told
// how they compare with the parent.
func (m *mount) told() bool {
	for _, c := range m.children {
		if c.object == nil || !c.object.Told {
			return false
		}
	}
	return len(m.children) > 0
}

// plan puts the sources where they are mounted. The result is that of "/".
func plan(sources []Source) (*mount, error) {
	root := new(mount)
	disks := make(map[string]bool)
	devices := make(map[uint64]bool)
	for i := range sources {
		s := &sources[i]
		switch {
		case s.DeviceID == 0 || devices[s.DeviceID]:
			return nil, fmt.Errorf("disk %s: device ID %d is 0, or that of another disk", s.Disk, s.DeviceID)
		case disks[s.Disk]:
			return nil, fmt.Errorf("there are two disks with the name %s", s.Disk)
		case !path.IsAbs(s.Mount) || path.Clean(s.Mount) != s.Mount || strings.Contains(s.Mount, "\x00"):
			return nil, fmt.Errorf("disk %s: %q is not a clean absolute path", s.Disk, s.Mount)
		}
		disks[s.Disk], devices[s.DeviceID] = true, true
		at := root.at(s.Mount)
		if at.src != nil {
			return nil, fmt.Errorf("disks %s and %s are both mounted at %s", at.src.Disk, s.Disk, s.Mount)
		}
		at.src = s
	}
	return root, nil
}

// at returns the place at a clean absolute path, which it makes.
func (m *mount) at(p string) *mount {
	for name := range strings.SplitSeq(p[1:], "/") {
		if name == "" {
			continue // "/"
		}
		next := m.children[name]
		if next == nil {
			next = new(mount)
			if m.children == nil {
				m.children = make(map[string]*mount)
			}
			m.children[name] = next
		}
		m = next
	}
	return m
}

// put puts an object where it is to lie.
func (m *mount) put(o *Object) error {
	if !path.IsAbs(o.Path) || path.Clean(o.Path) != o.Path || path.Base(o.Path) != o.Node.Name {
		return fmt.Errorf("%q is not where %q can lie", o.Path, o.Node.Name)
	}
	at := m.at(o.Path)
	if at.src != nil || at.object != nil || at.children != nil {
		return fmt.Errorf("%s is where something is mounted", o.Path)
	}
	at.object = o
	return nil
}
