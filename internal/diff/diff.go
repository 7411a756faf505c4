package diff

import (
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// Identifier is a filesystem that can tell that two of its inodes, or one of it and
// one of another Identifier, hold the same without a look at it.
type Identifier interface {
	disk.Filesystem
	// Identity returns the identity of what an inode holds: of a folder, all that
	// is below it, with all attributes; of a file, its content. It is false where
	// none is known.
	Identity(ino uint64) (id [32]byte, ok bool)
}

// Side is one of two trees.
type Side struct {
	FS   disk.Filesystem
	Path []byte // of the file or folder that is compared; empty for the root
}

// Options are the choices of one comparison.
type Options struct {
	// Content has content read where metadata or identities do not say that it is
	// the same.
	Content bool
	// FolderTimes has folders told of which only the time of modification differs.
	// It does whenever a name in them comes or goes.
	FolderTimes bool
	// Select says which names are compared, unless it is nil.
	Select func(path []byte, dir bool) Choice
	// Changed is called for each change. Its error ends the comparison.
	Changed func(*Change) error
	// Damaged is called for what could not be read, unless it is nil.
	Damaged func(path []byte, err error)
}

// Choice is what [Options.Select] says of a name.
type Choice uint8

// The choices.
const (
	Always   Choice = iota
	IfInBoth        // passed over, with what is in it, when it is on one side only
	Through         // the same, but a folder is entered
	Never
)

const (
	// maxDepth is how deep folders may lie in each other: as many names as the
	// longest path that Linux takes at once.
	maxDepth = 2048
	// maxFolders is how many folders are entered. It costs some 200 MB to
	// remember them.
	maxFolders = 1 << 22
	// maxHeld is how many entries, of all the folders on the way to where the
	// comparison is, are held. It costs some 600 MB to get there; ordinary trees
	// take a few thousand.
	maxHeld = 8 * disk.MaxDirEntries
)

// Run compares two trees. A path that does not exist on one side is
// [disk.ErrNotExist].
func Run(ctx context.Context, before, after Side, opts Options) (*Summary, error) {
	c := &comparer{ctx: ctx, opts: opts}
	var nodes [2]node
	for i, s := range []Side{before, after} {
		inode, err := disk.Lookup(s.FS, s.Path)
		if err != nil {
			return nil, err
		}
		c.sides[i] = side{fs: s.FS, visited: map[uint64]bool{}}
		c.sides[i].ids, _ = s.FS.(Identifier)
		nodes[i] = node{inode, true}
	}
	if err := c.pair(nil, nodes[0], nodes[1], 0); err != nil {
		return nil, err
	}
	return &c.summary, nil
}

// comparer does one comparison.
type comparer struct {
	ctx     context.Context
	opts    Options
	sides   [2]side
	held    int
	bufs    [2][]byte // of content
	summary Summary
}

type side struct {
	fs      disk.Filesystem
	ids     Identifier // nil where it is none
	visited map[uint64]bool
}

// node is a file on one side, or none.
type node struct {
	disk.Inode
	there bool
}

func (n *node) dir() bool { return n.there && n.Type() == disk.ModeDir }

// pair compares what has one path on both sides; it is there on one at least.
func (c *comparer) pair(path []byte, before, after node, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	what, err := c.compare(path, before, after)
	if err != nil {
		return err
	}
	if err := c.tell(path, before, after, what); err != nil {
		return err
	}
	if !before.dir() && !after.dir() {
		return nil
	}
	if before.dir() && after.dir() {
		if same, known := c.identical(before.Ino, after.Ino); same && known {
			return nil
		}
	}
	return c.children(path, before, after, depth+1)
}

// identical compares identities, where both are known.
func (c *comparer) identical(before, after uint64) (same, known bool) {
	if c.sides[0].ids == nil || c.sides[1].ids == nil {
		return false, false
	}
	a, okA := c.sides[0].ids.Identity(before)
	b, okB := c.sides[1].ids.Identity(after)
	return a == b, okA && okB
}

// children compares what is in two folders, or in one and nothing.
func (c *comparer) children(path []byte, before, after node, depth int) error {
	if depth > maxDepth {
		return c.damaged(path, limit(c.sides[0].fs, "it lies more than %d folders deep", maxDepth))
	}
	lists := [2][]disk.DirEntry{}
	for i, n := range []node{before, after} {
		if !n.dir() {
			continue
		}
		list, err := c.list(i, path, n.Ino)
		if err != nil {
			return err
		}
		lists[i] = list
	}
	held := len(lists[0]) + len(lists[1])
	c.held += held
	defer func() { c.held -= held }()
	if c.held > maxHeld {
		return c.damaged(path, limit(c.sides[0].fs, "it and those above it have more than %d entries", maxHeld))
	}
	return merge(lists[0], lists[1], func(name []byte, before, after uint64, in [2]bool) error {
		below := join(path, name)
		var nodes [2]node
		for i, ino := range []uint64{before, after} {
			if !in[i] {
				continue
			}
			inode, err := c.sides[i].fs.Inode(ino)
			if err != nil {
				// Whether it changed is not known.
				return c.damaged(below, err)
			}
			nodes[i] = node{inode, true}
		}
		return c.selected(below, nodes[0], nodes[1], depth)
	})
}

// list lists a folder of one side, if it was not before.
func (c *comparer) list(i int, path []byte, ino uint64) ([]disk.DirEntry, error) {
	s := &c.sides[i]
	switch {
	case s.visited[ino]:
		return nil, c.damaged(path, &disk.Error{Layer: s.fs.Info().Type, Structure: "directory", Offset: -1, Err: disk.ErrCorrupt,
			Detail: "it is in two places, and compared at the first"})
	case len(s.visited) == maxFolders:
		return nil, c.damaged(path, limit(s.fs, "there are more than %d folders", maxFolders))
	}
	s.visited[ino] = true
	list, err := disk.List(s.fs, ino)
	return list, c.damaged(path, err)
}

func (c *comparer) selected(path []byte, before, after node, depth int) error {
	if c.opts.Select == nil {
		return c.pair(path, before, after, depth)
	}
	choice := c.opts.Select(path, before.dir() || after.dir())
	switch {
	case choice == Never:
		return nil
	case choice == Always || before.there && after.there:
		return c.pair(path, before, after, depth)
	case choice == Through && (before.dir() || after.dir()):
		return c.children(path, before, after, depth+1)
	}
	return nil
}

// merge calls yield for each name of two sorted lists.
func merge(before, after []disk.DirEntry, yield func(name []byte, before, after uint64, in [2]bool) error) error {
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = compareNames(before[0].Name, after[0].Name)
		}
		var name []byte
		var inos [2]uint64
		in := [2]bool{order <= 0, order >= 0}
		if in[0] {
			name, inos[0], before = before[0].Name, before[0].Ino, before[1:]
		}
		if in[1] {
			name, inos[1], after = after[0].Name, after[0].Ino, after[1:]
		}
		if err := yield(name, inos[0], inos[1], in); err != nil {
			return err
		}
	}
	return nil
}

// damaged reports an error that one file is to blame for, and returns any other.
func (c *comparer) damaged(path []byte, err error) error {
	if err == nil {
		return nil
	}
	var d *disk.Error
	if c.ctx.Err() != nil || !errors.As(err, &d) {
		return err
	}
	c.summary.Damaged++
	if c.opts.Damaged != nil {
		c.opts.Damaged(rooted(path), err)
	}
	return nil
}

func limit(fsys disk.Filesystem, format string, args ...any) error {
	return &disk.Error{Layer: fsys.Info().Type, Structure: "directory", Offset: -1, Err: disk.ErrLimit, Detail: fmt.Sprintf(format, args...)}
}
