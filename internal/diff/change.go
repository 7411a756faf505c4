package diff

import (
	"bytes"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

// Kind is what became of a path.
type Kind uint8

// The kinds of change.
const (
	Added Kind = iota + 1
	Removed
	Changed
)

// What says in what a file differs.
type What uint16

// The differences.
const (
	Type What = 1 << iota
	Content
	Mode
	Owner
	Time // of modification
	Xattrs
	Target // of a symlink
	Device
	Links
	// Ctime is that the time of change alone differs: something was done to the
	// file, maybe to its content, that other metadata do not show.
	Ctime
	// Subvolume is that one is a subvolume of btrfs, or a read-only one, or the default
	// one, and the other is not.
	Subvolume
)

var whatNames = []string{"type", "content", "mode", "owner", "time", "xattrs", "target", "device", "links", "ctime", "subvolume"}

// Names returns the names of the differences.
func (w What) Names() []string {
	var names []string
	for i, name := range whatNames {
		if w&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String is the names with commas between them.
func (w What) String() string { return strings.Join(w.Names(), ",") }

// Change is one path that differs.
type Change struct {
	Path          []byte // absolute, in the compared tree; guest bytes
	Kind          Kind
	What          What        // where Kind is Changed
	Before, After *disk.Inode // nil where there is none
}

// Count counts files of one kind of change.
type Count struct {
	Files  int64 `json:"files"` // regular files
	Dirs   int64 `json:"dirs"`
	Others int64 `json:"others"` // symlinks, devices, FIFOs and sockets
	Bytes  int64 `json:"bytes"`  // the sizes of Files
}

func (c *Count) add(n *disk.Inode) {
	switch n.Type() {
	case disk.ModeRegular:
		c.Files++
		c.Bytes = disk.AddSizes(c.Bytes, n.Size)
	case disk.ModeDir:
		c.Dirs++
	default:
		c.Others++
	}
}

// Summary counts the changes. Bytes of Changed are the sizes afterwards; Content are
// the regular files among them with other content.
type Summary struct {
	Added   Count `json:"added"`
	Removed Count `json:"removed"`
	Changed Count `json:"changed"`
	Content Count `json:"content"`
	// Damaged counts what could not be compared.
	Damaged int64 `json:"damaged"`
}

// Differs reports whether there was a change.
func (s *Summary) Differs() bool {
	return s.Added != Count{} || s.Removed != Count{} || s.Changed != Count{}
}

// Add adds the counts of another comparison.
func (s *Summary) Add(o *Summary) {
	for _, p := range [][2]*Count{{&s.Added, &o.Added}, {&s.Removed, &o.Removed}, {&s.Changed, &o.Changed}, {&s.Content, &o.Content}} {
		p[0].Files += p[1].Files
		p[0].Dirs += p[1].Dirs
		p[0].Others += p[1].Others
		p[0].Bytes = disk.AddSizes(p[0].Bytes, p[1].Bytes)
	}
	s.Damaged += o.Damaged
}

// tell passes a change on, if it is one.
func (c *comparer) tell(path []byte, before, after node, what What) error {
	change := &Change{Path: rooted(path), What: what}
	switch {
	case !before.there:
		change.Kind, change.After = Added, &after.Inode
		c.summary.Added.add(&after.Inode)
	case !after.there:
		change.Kind, change.Before = Removed, &before.Inode
		c.summary.Removed.add(&before.Inode)
	default:
		if before.dir() && what == Time && !c.opts.FolderTimes {
			what = 0
		}
		if what == 0 {
			return nil
		}
		change.Kind, change.Before, change.After = Changed, &before.Inode, &after.Inode
		c.summary.Changed.add(&after.Inode)
		if what&Content != 0 {
			c.summary.Content.add(&after.Inode)
		}
	}
	if c.opts.Changed == nil {
		return nil
	}
	return c.opts.Changed(change)
}

// attributes compares what inodes tell of two files of one type.
func attributes(a, b *disk.Inode) (w What) {
	const permissions = 0o7777
	set := func(differs bool, what What) {
		if differs {
			w |= what
		}
	}
	kind := a.Type()
	// A symlink's mode means nothing, and not every filesystem keeps one.
	set(kind != disk.ModeSymlink && (a.Mode^b.Mode)&permissions != 0, Mode)
	set(a.UID != b.UID || a.GID != b.GID, Owner)
	set(a.Modify != b.Modify, Time)
	set(kind != disk.ModeDir && a.Links != b.Links, Links)
	set((kind == disk.ModeBlock || kind == disk.ModeChar) && a.Rdev != b.Rdev, Device)
	return w
}

func sameXattrs(a, b []disk.Xattr) bool {
	return slices.EqualFunc(a, b, func(x, y disk.Xattr) bool {
		return bytes.Equal(x.Name, y.Name) && bytes.Equal(x.Value, y.Value)
	})
}

func compareNames(a, b []byte) int { return bytes.Compare(a, b) }

// join returns the path of a name in a folder. Paths have no slash in front.
func join(path, name []byte) []byte {
	if len(path) == 0 {
		return bytes.Clone(name)
	}
	return slices.Concat(path, []byte("/"), name)
}

func rooted(path []byte) []byte { return slices.Concat([]byte("/"), path) }
