package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/cut"
)

const (
	// maxDepth is how deep folders may lie in each other. A path that Linux
	// takes at once has up to 2048 names; each level costs a stack frame and
	// whatever it holds.
	maxDepth = 2048
	// maxHeld bounds the memory, in bytes, of the folders that are not stored
	// yet: their listings and their encoded nodes. A folder with a million
	// files takes about that, and a tree of more than 512 MiB the repository
	// refuses. What lies beyond is reported and left out: a guest that puts
	// large folders into each other is a trap.
	maxHeld = 480 << 20
	// heldEntry is what an entry of a listing takes beside its name.
	heldEntry = 96
	// maxPending is how many folders may wait for their files to be saved.
	maxPending = 256
)

// walker makes the tree of one snapshot. One goroutine walks and reads, in the
// order of names, so that the same guest gives the same snapshot. What it has
// read others compress and save, and the walk waits for none of it: a file's
// content and a folder's tree are a [promise].
type walker struct {
	ctx    context.Context // ended with the first error that ends the backup
	cancel context.CancelCauseFunc
	repo   *repository.Repository
	report *Report
	tell   func(Progress)
	reuse  map[*Source]bool // disks that the parent snapshot was made from too

	// superseded are the roots of the snapshots that are left out, by inode number.
	superseded map[*Source]map[uint64]bool
	// chosen are the disks of which an include pattern matches something.
	chosen map[*Source]bool

	visited map[*Source]inodeSet    // folders that were entered
	links   map[fileID]*promise     // contents of files with several names
	zeros   map[int64]repository.ID // the blobs that holes are made of, by size

	jobs    chan job            // blobs to be saved
	queued  *semaphore.Weighted // their bytes
	savers  sync.WaitGroup      // who saves them
	cutter  *cut.Cutter         // of the large file that is being read
	folders sync.WaitGroup      // who wait for a folder's content
	pending chan struct{}       // taken by each folder that waits
	held    atomic.Int64        // bytes, see maxHeld
	entries int64               // of all folders
	bytes   int64               // of all files
	most    struct{ entries, bytes int64 }
}

// fileID is a file's identity within a backup.
type fileID struct{ device, inode uint64 }

// walk stores the tree, and returns its ID.
func walk(ctx context.Context, repo *repository.Repository, root *mount, parent *repository.Snapshot, opts Options, report *Report) (repository.ID, error) {
	w := &walker{
		repo: repo, report: report, tell: opts.Progress,
		reuse: make(map[*Source]bool), superseded: make(map[*Source]map[uint64]bool), chosen: make(map[*Source]bool), visited: make(map[*Source]inodeSet), links: make(map[fileID]*promise), zeros: make(map[int64]repository.ID),
		jobs: make(chan job, maxJobs), cutter: repo.NewCutter(), queued: semaphore.NewWeighted(maxQueued), pending: make(chan struct{}, maxPending),
	}
	w.most.entries, w.most.bytes = cmp.Or(opts.MaxEntries, DefaultMaxEntries), cmp.Or(opts.MaxBytes, DefaultMaxBytes)
	if err := w.noteSuperseded(root); err != nil {
		return repository.ID{}, err
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	defer w.cancel(nil)
	for range runtime.GOMAXPROCS(0) {
		w.savers.Go(w.save)
	}
	top := folder{mnt: root}
	if parent != nil {
		top.old = &repository.Node{Subtree: &parent.Tree}
		w.noteReuse(root, parent.Tags)
	}
	tree, _, err := w.top(top)
	if err != nil {
		w.cancel(err)
	}
	w.folders.Wait()
	close(w.jobs)
	w.savers.Wait()
	if w.ctx.Err() != nil {
		return repository.ID{}, context.Cause(w.ctx)
	}
	w.warnOfNothing(root)
	return tree.ids[0], nil
}

// warnOfNothing tells of disks of which nothing is in the backup, since their include
// patterns are of other paths.
func (w *walker) warnOfNothing(m *mount) {
	if s := m.src; s != nil && !s.Include.Empty() && !w.chosen[s] {
		from := ""
		if s.FS.Info().Type == "btrfs" {
			from = ", of btrfs at its top level: /@home, and not /home"
		}
		w.report.warn(fmt.Errorf("disk %s: nothing of it is in the backup: include matches nothing on it (paths begin at the disk's own root%s)", s.Disk, from))
	}
	for _, c := range m.children {
		w.warnOfNothing(c)
	}
}

// noteReuse finds the disks that the parent was made from too.
func (w *walker) noteReuse(m *mount, tags []string) {
	if m.src != nil {
		w.reuse[m.src] = slices.Contains(tags, m.src.identityTag())
	}
	for _, c := range m.children {
		w.noteReuse(c, tags)
	}
}

// noteSuperseded finds the snapshots that are left out.
func (w *walker) noteSuperseded(m *mount) (err error) {
	if m.src != nil {
		if w.superseded[m.src], err = m.src.superseded(); err != nil {
			return fmt.Errorf("disk %s: %w", m.src.Disk, err)
		}
	}
	for _, c := range m.children {
		if err := w.noteSuperseded(c); err != nil {
			return err
		}
	}
	return nil
}

// folder is a folder that is to be walked.
type folder struct {
	path  []byte // in the guest, "/etc"; empty for the root
	depth int
	mnt   *mount           // what is mounted below; may be nil
	old   *repository.Node // in the parent; may be nil

	src      *Source // nil if only mount points are wanted of it
	ino      uint64
	inner    int  // where in path the path within src begins
	included bool // an include pattern matches it, or a folder above
	leftOut  bool // the disk has it, but it is left out, or lies in what is
}

// within returns the path within the folder's disk, as patterns have it.
func (f *folder) within(path []byte) []byte { return bytes.TrimPrefix(path[f.inner:], []byte("/")) }

// enter makes f the root folder of a disk.
func (f *folder) enter(src *Source) {
	f.src, f.ino, f.inner, f.included = src, src.FS.Info().Root, len(f.path), src.Include.Empty()
}

// top walks the root of the guest's tree, whose own attributes no snapshot has.
func (w *walker) top(f folder) (*promise, time.Time, error) {
	if f.mnt.src == nil {
		return w.folder(f, nil)
	}
	f.enter(f.mnt.src)
	node, err := w.rootNode(f.mnt.src, "")
	if err != nil {
		return nil, time.Time{}, err
	}
	w.first(f)
	return w.folder(f, node)
}

// first reports whether a folder of a disk was not entered before.
func (w *walker) first(f folder) bool {
	seen := w.visited[f.src]
	if seen == nil {
		seen = make(inodeSet)
		w.visited[f.src] = seen
	}
	return seen.add(f.ino)
}

// rootNode returns the node of a disk's root directory. Without that there is
// nothing to back up.
func (w *walker) rootNode(src *Source, name string) (*repository.Node, error) {
	inode, err := src.FS.Inode(src.FS.Info().Root)
	if err == nil && inode.Type() != disk.ModeDir {
		err = damage(src, inode.Ino, "it is no directory")
	}
	var node *repository.Node
	if err == nil {
		node, err = newNode(src, name, inode)
	}
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w: %w", src.Disk, ErrNoRoot, err)
	}
	return node, nil
}

// folder walks a folder, whose node is nil where it is made up. It returns its
// tree, and the newest time of what is in it.
func (w *walker) folder(f folder, node *repository.Node) (*promise, time.Time, error) {
	if w.tell != nil {
		w.tell(w.report.progress(f.path))
	}
	entries, held, err := w.list(&f)
	defer w.held.Add(-held)
	if err != nil {
		return nil, time.Time{}, err
	}
	t := newTree(w, &f, node)
	if f.src == nil && f.mnt.told() {
		f.old = nil // it is compared with nothing, and is large
	}
	before := w.before(f.old)
	defer before.close()
	newest := time.Unix(0, 0).UTC()
	for _, e := range entries {
		n, content, err := w.entry(&f, e, before)
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			t.abandon()
			return nil, time.Time{}, err
		}
		if n == nil {
			continue
		}
		if n.ModTime.After(newest) {
			newest = n.ModTime
		}
		t.add(n, content)
	}
	return t.finish(), newest, nil
}

// list returns the names in a folder, sorted: those on its disk, and those where
// something is mounted. The latter have no inode number if they are not on it.
func (w *walker) list(f *folder) (entries []disk.DirEntry, held int64, err error) {
	if f.src != nil {
		if entries, err = disk.List(f.src.FS, f.ino); err != nil {
			if f.ino == f.src.FS.Info().Root && len(entries) == 0 {
				return nil, 0, fmt.Errorf("disk %s: %w: %w", f.src.Disk, ErrNoRoot, err)
			}
			if err := w.damaged(f.src, f.path, fmt.Errorf("some of what is in this folder is missing: %w", err)); err != nil {
				return nil, 0, err
			}
		}
	}
	for i := range entries {
		held += int64(len(entries[i].Name)) + heldEntry
	}
	if w.held.Add(held) > maxHeld && f.src != nil {
		w.report.damage(f.src.Disk, f.path, fmt.Errorf("what is in this folder is missing: %w", errHeld))
		entries = nil
	}
	if w.entries += int64(len(entries)); w.entries > w.most.entries && f.src != nil {
		w.report.damage(f.src.Disk, f.path, fmt.Errorf("what is in this folder is missing: %w: there are more than %d files and folders (exclude some)", disk.ErrLimit, w.most.entries))
		entries = nil
	}
	if f.src != nil && f.src.ExcludeCaches && w.cache(f, entries) {
		entries = w.withoutCache(f, entries)
	}
	for _, name := range f.mnt.names() {
		if i, found := slices.BinarySearchFunc(entries, name, byName); !found {
			entries = slices.Insert(entries, i, disk.DirEntry{Name: []byte(name)})
		}
	}
	return entries, held, nil
}

var errHeld = fmt.Errorf("%w: folders in each other have too much in them (exclude some)", disk.ErrLimit)

// entry returns the node of one name in a folder, with its content as far as it
// has any; nil if it is left out.
func (w *walker) entry(f *folder, e disk.DirEntry, before *oldTree) (*repository.Node, *promise, error) {
	c := folder{
		path: slices.Concat(f.path, []byte("/"), e.Name), depth: f.depth + 1, mnt: f.mnt.child(string(e.Name)),
		src: f.src, ino: e.Ino, inner: f.inner, included: f.included, leftOut: f.leftOut,
	}
	c.old = before.find(string(e.Name))
	if c.mnt != nil && c.mnt.object != nil {
		return w.object(c.mnt.object, c.old), nil, nil
	}
	if c.mnt != nil && c.mnt.src != nil {
		c.enter(c.mnt.src)
		node, err := w.rootNode(c.src, string(e.Name))
		if err != nil {
			return nil, nil, err
		}
		if e.Ino == 0 && !c.leftOut {
			node.AddFlag(repository.FlagMadeUp)
		}
		c.leftOut = false
		return w.subfolder(c, node)
	}
	if c.src == nil || e.Ino == 0 {
		return w.madeUp(c, string(e.Name))
	}
	inode, err := c.src.FS.Inode(e.Ino)
	if err != nil {
		return w.instead(c, e, w.damaged(c.src, c.path, err))
	}
	dir := inode.Type() == disk.ModeDir
	if !w.wanted(&c, &inode) || !dir && c.mnt != nil {
		return w.instead(c, e, nil)
	}
	node, err := newNode(c.src, string(e.Name), inode)
	if err != nil {
		return w.instead(c, e, w.damaged(c.src, c.path, err))
	}
	if dir {
		return w.subfolder(c, node)
	}
	return w.file(&c, node)
}

// object counts an object, which old is in the parent if that is not told otherwise,
// and returns its node.
func (w *walker) object(o *Object, old *repository.Node) *repository.Node {
	n, c := &o.Node, Added
	switch {
	case o.Told:
		c = o.Change
	case old != nil && old.Type == repository.NodeFile:
		c = Changed
		if old.Size == n.Size && slices.Equal(old.Content, n.Content) {
			c = Unchanged
		}
	}
	w.report.object(c, int64(n.Size))
	return n
}

// instead leaves something out, but for what is mounted in it.
func (w *walker) instead(c folder, e disk.DirEntry, err error) (*repository.Node, *promise, error) {
	if err != nil || c.mnt == nil {
		return nil, nil, err
	}
	c.src, c.leftOut = nil, true
	return w.madeUp(c, string(e.Name))
}

// madeUp walks a folder that leads to a mount point, and of which no disk knows, or
// which is left out.
// It has the time of the newest thing in it, so that it is the same each night.
func (w *walker) madeUp(c folder, name string) (*repository.Node, *promise, error) {
	c.src = nil
	tree, newest, err := w.folder(c, nil)
	if err != nil {
		return nil, nil, err
	}
	n := &repository.Node{
		Name: name, Type: repository.NodeDir, Mode: repository.FileMode(disk.ModeDir | 0o755),
		ModTime: newest, AccessTime: newest, ChangeTime: newest,
	}
	if !c.leftOut {
		n.AddFlag(repository.FlagMadeUp)
	}
	return n, tree, nil
}

// subfolder walks a folder of a disk.
func (w *walker) subfolder(c folder, node *repository.Node) (*repository.Node, *promise, error) {
	if c.depth > maxDepth {
		return w.leaveOut(c, fmt.Sprintf("it lies more than %d folders deep", maxDepth), disk.ErrLimit)
	}
	if !w.first(c) {
		return w.leaveOut(c, "this folder is in two places", disk.ErrCorrupt)
	}
	tree, _, err := w.folder(c, node)
	if err != nil {
		return nil, nil, err
	}
	if tree == nil { // nothing in it is included
		return nil, nil, nil
	}
	return node, tree, nil
}

func (w *walker) leaveOut(c folder, why string, kind error) (*repository.Node, *promise, error) {
	err := &disk.Error{Layer: c.src.FS.Info().Type, Structure: fmt.Sprintf("directory %d", c.ino), Offset: -1, Err: kind, Detail: why}
	return nil, nil, w.damaged(c.src, c.path, err)
}

// damaged reports an error that the guest's filesystem is to blame for. Any
// other, such as that of a reader that died, is returned: it would be reported
// for all files that follow, and make a snapshot that lacks them.
func (w *walker) damaged(src *Source, path []byte, err error) error {
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	var d *disk.Error
	if !errors.As(err, &d) {
		return fmt.Errorf("disk %s: %s: %w", src.Disk, escape.Bytes(path), err)
	}
	w.report.damage(src.Disk, path, err)
	return nil
}
