package guest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/layout"
)

// composer puts a tree together.
type composer struct {
	layout *layout.Layout
	resolver
	fs       *Filesystem
	walk     *walker
	used     map[int]bool // volumes that are shown, or that a remark is about
	searched int          // directory entries, for the root
	trees    map[int]*subvolumes
}

// Open puts the tree of a guest together. The error wraps [disk.ErrNotExist]
// where no volume looks like its root; any other mount that fails is a remark.
func Open(l *layout.Layout, opts Options) (*Filesystem, error) {
	c := &composer{layout: l, resolver: resolver{l.Volumes()}, used: make(map[int]bool), trees: make(map[int]*subvolumes)}
	root, err := c.findRoot(opts.Root)
	if err != nil {
		return nil, err
	}
	first := mount{Mount: Mount{Path: []byte("/"), Volume: root.volume, Subvolume: root.subvolume}, fs: root.fs, root: root.root}
	c.fs = &Filesystem{mounts: []mount{first}, remarks: root.remarks}
	c.walk = newWalker(c.fs, new(int))
	c.used[root.volume] = true
	c.checkRoot(root)
	for _, e := range order(root.entries) {
		c.add(&e)
	}
	c.remarkRest()
	c.fs.info = c.fs.sum()
	return c.fs, nil
}

func (c *composer) remark(format string, args ...any) {
	c.fs.remarks = append(c.fs.remarks, fmt.Sprintf(format, args...))
}

// checkRoot notes an entry for "/" that is about something else.
func (c *composer) checkRoot(root *candidate) {
	for i := range root.entries {
		e := &root.entries[i]
		if e.target != "/" {
			continue
		}
		c.fs.mounts[0].Source = e.source
		if root.score != rootNamed {
			c.remark("/etc/fstab has %.150q as the root; %s is shown", e.source, known(&c.volumes[root.volume]))
		}
		return
	}
}

// order sorts entries as they have to be mounted: each after those that its
// mountpoint, and the source of a bind mount, lie in.
func order(entries []entry) []entry {
	var pending []*entry
	for i := range entries {
		if entries[i].target != "/" {
			pending = append(pending, &entries[i])
		}
	}
	slices.SortStableFunc(pending, func(a, b *entry) int { return len(splitPath(a.target)) - len(splitPath(b.target)) })
	needs := make([][]int, len(pending)) // which others are due before each
	for i, e := range pending {
		for k, o := range pending {
			if i != k && needed(e, o) {
				needs[i] = append(needs[i], k)
			}
		}
	}
	out := make([]entry, 0, len(pending))
	done := make([]bool, len(pending))
	for range pending {
		next := firstReady(needs, done)
		done[next] = true
		out = append(out, *pending[next])
	}
	return out
}

// firstReady returns the first that is not done and needs nothing that is not, or
// the first that is not done where all wait for each other.
func firstReady(needs [][]int, done []bool) int {
	isReady := func(i int) bool {
		return !done[i] && !slices.ContainsFunc(needs[i], func(k int) bool { return !done[k] })
	}
	for i := range needs {
		if isReady(i) {
			return i
		}
	}
	return slices.Index(done, false)
}

// needed reports whether o has to be mounted before e: e lies in it, or is a bind
// mount of what lies in it.
func needed(e, o *entry) bool {
	return within(e.target, o.target) && !within(o.target, e.target) || e.bind() && within(e.source, o.target)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	path, dir = strings.TrimRight(path, "/"), strings.TrimRight(dir, "/")
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// add mounts what an entry says, or notes why not.
func (c *composer) add(e *entry) {
	switch {
	case e.kind == "swap" || slices.Contains(inMemory, e.kind):
		return
	case slices.Contains(elsewhere, e.kind) || strings.HasPrefix(e.kind, "fuse"):
		c.remark("%.150q is not on these disks: %.40q is mounted from elsewhere", e.target, e.kind)
		return
	case !strings.HasPrefix(e.target, "/"):
		if e.target != "none" {
			c.remark("the mountpoint %.150q is not a path", e.target)
		}
		return
	}
	m, err := c.source(e)
	switch {
	case err != nil && !e.automatic():
		return // a drive or a stick
	case err != nil:
		c.remark("%.150q is not shown: %v", e.target, err)
		return
	case !e.automatic():
		c.used[m.Volume] = true
		c.remark("%.150q is not shown, since the guest mounts it on demand only (noauto): %s", e.target, known(&c.volumes[m.Volume]))
		return
	}
	if err := c.mount(m, e); err != nil {
		c.remark("%.150q is not shown: %v", e.target, err)
	}
}

// source opens what an entry mounts.
func (c *composer) source(e *entry) (*mount, error) {
	if e.bind() {
		return c.bound(e)
	}
	volume, guessed, err := c.resolve(e.source)
	if err != nil {
		return nil, err
	}
	if e.has("X-mount.subdir") {
		return nil, layer.Unsupported(fmt.Sprintf("option of %.100q", e.target), nowhere, "", "X-mount.subdir")
	}
	c.used[volume] = true
	v := &c.volumes[volume]
	fs, err := c.open(volume)
	if err != nil {
		return nil, err
	}
	root, subvolume, err := c.subvolumesOf(volume, fs).choose(e)
	if err != nil {
		return nil, err
	}
	if guessed && e.automatic() {
		c.remark("%.150q at %.150q was taken by its letter for %s", e.source, e.target, known(v))
	}
	if !sameKind(e.kind, v.Content) {
		c.remark("/etc/fstab calls what is at %.150q %.40q, but %s is shown", e.target, e.kind, known(v))
	}
	return &mount{Mount: Mount{Volume: volume, Subvolume: subvolume, Source: e.source}, fs: fs, root: root}, nil
}

// open returns the filesystem of a volume: the one that is mounted already, or
// another one.
func (c *composer) open(volume int) (disk.Filesystem, error) {
	for i := range c.fs.mounts {
		if c.fs.mounts[i].Volume == volume {
			return c.fs.mounts[i].fs, nil
		}
	}
	return c.layout.Open(volume)
}

// sameKind reports whether a type of an fstab can stand for a content.
func sameKind(kind, content string) bool {
	family := func(s string) string {
		switch s {
		case "ext2", "ext3", "ext4":
			return "ext"
		case "msdos", "fat", "vfat":
			return "fat"
		}
		return s
	}
	return kind == "auto" || kind == "none" || slices.ContainsFunc(strings.Split(kind, ","), func(k string) bool { return family(k) == family(content) })
}

// bound returns a part of the tree for a bind mount.
func (c *composer) bound(e *entry) (*mount, error) {
	if !strings.HasPrefix(e.source, "/") {
		return nil, layer.Absent(fmt.Sprintf("source %.100q", e.source), "it is not a path")
	}
	at, err := c.walk.walk(e.source)
	if err != nil {
		return nil, err
	}
	if e.has("rbind") {
		c.remark("what is mounted below %.150q is not shown again below %.150q", e.source, e.target)
	}
	from := &c.fs.mounts[at.mount]
	return &mount{Mount: Mount{Volume: from.Volume, Subvolume: from.Subvolume, Source: e.source}, fs: from.fs, root: at.ino}, nil
}

// mount puts m where the entry says.
func (c *composer) mount(m *mount, e *entry) error {
	if len(c.fs.mounts) == MaxMounts {
		return layer.Beyond("tree", nowhere, "more than %d mounts", MaxMounts)
	}
	at, err := c.walk.walk(e.target)
	if err != nil {
		return err
	}
	if at.name == "" {
		return layer.Unsupported(pathName(e.target), nowhere, "", "it is the root")
	}
	below, err := c.fs.mounts[at.mount].fs.Inode(at.ino)
	if err != nil {
		return err
	}
	above, err := m.fs.Inode(m.root)
	if err != nil {
		return err
	}
	if (below.Type() == disk.ModeDir) != (above.Type() == disk.ModeDir) {
		return layer.Absent(pathName(e.target), "one is a directory, the other is not")
	}
	dir := &c.fs.mounts[at.from.mount]
	if dir.covered == nil {
		dir.covered = make(map[uint64]map[string]int)
	}
	if dir.covered[at.from.ino] == nil {
		dir.covered[at.from.ino] = make(map[string]int)
	}
	if hidden, twice := dir.covered[at.from.ino][at.name]; twice {
		c.remark("what is mounted from %.150q at %.150q is hidden by another mount", c.fs.mounts[hidden].Source, e.target)
	}
	m.Path = []byte("/" + strings.Join(splitPath(e.target), "/"))
	dir.covered[at.from.ino][at.name] = len(c.fs.mounts)
	c.fs.mounts = append(c.fs.mounts, *m)
	return nil
}

// remarkRest notes what is remarkable about the volumes, and which of them are
// not part of the tree.
func (c *composer) remarkRest() {
	shown := make(map[int]disk.Filesystem)
	for _, m := range c.fs.mounts {
		shown[m.Volume] = m.fs
	}
	for i := range c.volumes {
		v := &c.volumes[i]
		for _, r := range v.Remarks {
			c.remark("volume %q: %s", v.Name, r)
		}
		switch fs := shown[i]; {
		case fs != nil:
			c.remarkSubvolumes(i, fs)
		case c.used[i]:
		case v.Err != nil:
			c.remark("volume %q cannot be read: %v", v.Name, v.Err)
		case v.Readable:
			c.remark("%s is not shown: /etc/fstab does not mount it", known(v))
		}
	}
}
