package worker

import (
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// maxPaused is how many directories are kept half read, for the next page. One
// that is dropped is read again from its start, so this bounds memory, and
// costs time only to a caller that walks deeper than this while it lists.
const maxPaused = 32

// dirReader lists a directory, a page at a time.
type dirReader struct {
	ino  uint64
	pos  uint64 // entries that were listed
	next func() (disk.DirEntry, error, bool)
	stop func()

	// names holds a hash of each name. Two names of one hash are taken for
	// the same name, which happens by chance once in 37 million directories
	// of a million files, and not by intent, since the seed is secret.
	names map[uint64]struct{}
	seed  maphash.Seed
}

func (t *tree) newDirReader(ino uint64) *dirReader {
	r := &dirReader{ino: ino, names: make(map[uint64]struct{}), seed: maphash.MakeSeed()}
	r.next, r.stop = iter.Pull2(func(yield func(disk.DirEntry, error) bool) {
		stopped := false
		err := t.ReadDir(ino, func(e disk.DirEntry) error {
			if stopped = !yield(e, nil); stopped {
				return errEnough
			}
			return nil
		})
		if err != nil && !stopped {
			yield(disk.DirEntry{}, err)
		}
	})
	return r
}

// entry returns the next entry, which is valid until the one after it is asked
// for. ok is false at the end.
func (r *dirReader) entry() (e disk.DirEntry, ok bool, err error) {
	e, err, ok = r.next()
	if err != nil || !ok {
		return disk.DirEntry{}, false, err
	}
	if err := wire.CheckEntry(e); err != nil {
		return disk.DirEntry{}, false, damaged(r.structure(), err)
	}
	h := maphash.Bytes(r.seed, e.Name)
	if _, twice := r.names[h]; twice {
		return disk.DirEntry{}, false, damaged(r.structure(), fmt.Errorf("the name %q is there twice", e.Name))
	}
	if r.pos++; r.pos > wire.MaxDirEntries {
		return disk.DirEntry{}, false, &disk.Error{Layer: "reader", Structure: r.structure(), Offset: -1,
			Err: disk.ErrLimit, Detail: fmt.Sprintf("it has more than %d entries", wire.MaxDirEntries)}
	}
	r.names[h] = struct{}{}
	return e, true, nil
}

func (r *dirReader) structure() string { return "directory of " + nodeName(r.ino) }

// resume returns a reader of directory ino that stands behind skip entries: the
// one that was paused there, or a new one.
func (t *tree) resume(ino, skip uint64) (*dirReader, error) {
	if r := t.takePaused(ino, skip); r != nil {
		return r, nil
	}
	r := t.newDirReader(ino)
	for r.pos < skip {
		if _, ok, err := r.entry(); err != nil || !ok {
			r.stop()
			return r, err // at the end: an empty last page
		}
	}
	return r, nil
}

func (t *tree) takePaused(ino, skip uint64) *dirReader {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range t.paused {
		if r.ino == ino && r.pos == skip {
			t.paused = append(t.paused[:i], t.paused[i+1:]...)
			return r
		}
	}
	return nil
}

func (t *tree) pause(r *dirReader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.paused) == maxPaused {
		t.paused[0].stop()
		t.paused = append(t.paused[:0], t.paused[1:]...)
	}
	t.paused = append(t.paused, r)
}

// readDir answers with a page of a directory, and, on a walk, with as many
// directories below it as fit.
func (d *reader) readDir(req wire.ReadDir, b []byte) ([]byte, error) {
	t, err := d.tree(req.Tree)
	if err != nil {
		return nil, err
	}
	r, err := t.resume(req.Ino, req.Skip)
	if err != nil {
		return nil, err
	}
	w := &walker{tree: t, out: wire.NewDirPagesWriter(b), order: req.Walk, seen: map[uint64]bool{req.Ino: true}, survey: newSurvey()}
	w.out.Begin(req.Ino)
	dirs, last, err := w.fill(r, req.Names)
	if err != nil {
		return nil, err
	}
	w.out.End(last)
	if last && req.Walk != wire.NoWalk {
		w.descend(dirs, req.Then)
	}
	return w.out.Finish(), nil
}

// walker lists directories into an answer.
type walker struct {
	tree  *tree
	out   *wire.DirPagesWriter
	order wire.Walk
	seen  map[uint64]bool // directories: a damaged disk may hold circles

	// The entry that is being described: all of them use the same memory.
	entry  wire.Entry
	inode  disk.Inode
	survey *survey
}

// fill adds entries until the directory or the room in the answer ends. It
// returns the directories among them, in the order of the walk. What stands before
// damage is a page of its own: whoever asks for the next one gets the error. With
// names, the entries are not described.
func (w *walker) fill(r *dirReader, names bool) (dirs []subdir, last bool, err error) {
	for n := 0; !w.out.Full(); n++ {
		e, ok, err := r.entry()
		if err != nil && n > 0 {
			r.stop()
			return nil, false, nil
		}
		if err != nil || !ok {
			r.stop()
			w.sort(dirs)
			return dirs, true, err
		}
		if names {
			w.entry = wire.Entry{DirEntry: e}
		} else {
			w.describe(e)
		}
		w.out.Add(&w.entry)
		if w.order != wire.NoWalk && w.entry.IsDir() {
			dirs = append(dirs, subdir{ino: e.Ino, name: string(e.Name)})
		}
	}
	w.tree.pause(r)
	return nil, false, nil
}

// subdir is a directory in another.
type subdir struct {
	ino  uint64
	name string
}

func (w *walker) sort(dirs []subdir) {
	if w.order == wire.WalkNames {
		slices.SortFunc(dirs, func(a, b subdir) int { return strings.Compare(a.name, b.name) })
	}
}

// descend adds whole directories, those below each before the next, and then
// others, as long as there is room. It keeps those to come on a list of its own,
// so that no disk decides how deep it goes.
func (w *walker) descend(dirs []subdir, then []uint64) {
	var todo []subdir // the next one last
	for _, ino := range slices.Backward(then) {
		todo = append(todo, subdir{ino: ino})
	}
	for {
		slices.Reverse(dirs)
		todo = append(todo, dirs...)
		if len(todo) == 0 || w.out.Full() {
			return
		}
		next := todo[len(todo)-1]
		todo, dirs = todo[:len(todo)-1], nil
		if w.seen[next.ino] {
			continue
		}
		w.seen[next.ino] = true
		w.out.Begin(next.ino)
		below, last, err := w.fill(w.tree.newDirReader(next.ino), false)
		if err != nil || !last {
			w.out.Abandon() // who asks for it alone learns why
			return
		}
		w.out.End(true)
		dirs = below
	}
}

// describe answers with what the files are that a directory has listed, as far as
// there is room.
func (d *reader) describe(r wire.Describe, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	w := &walker{tree: t, survey: newSurvey()}
	start, nothing := len(b), new(wire.Entry)
	for _, ino := range r.Inos {
		e := nothing
		if len(b)-start < wire.DirPageSize {
			e = w.describe(disk.DirEntry{Ino: ino})
		}
		b = wire.AppendDescription(b, e)
	}
	return b, nil
}

// maxInlineSize bounds the files whose pieces are told in passing: those for
// which no more than the inode must be read to know them, as a rule.
const maxInlineSize = 1 << 20

// describe adds to an entry what can be told about its file in passing. What
// fails here is left out, and fails again when it is asked for. The result is
// valid until the next call.
func (w *walker) describe(e disk.DirEntry) *wire.Entry {
	w.entry = wire.Entry{DirEntry: e}
	t, out := w.tree, &w.entry
	n, err := t.checkedInode(e.Ino)
	if err != nil {
		return out
	}
	w.inode = n
	out.Inode = &w.inode
	if n.Type() == disk.ModeSymlink {
		if target, err := t.checkedTarget(e.Ino); err == nil {
			out.Target = target
		}
	}
	if n.Type() == disk.ModeRegular && n.Size > 0 && n.Size <= maxInlineSize {
		out.Pieces = w.wholePieces(e.Ino, n.Size)
	}
	if list, err := t.checkedXattrs(e.Ino); err == nil && xattrBytes(list) <= wire.MaxInlineXattrs {
		out.Xattrs, out.HasXattrs = list, true
	}
	return out
}

// wholePieces returns all pieces of a file that can be read without the worker,
// or none.
func (w *walker) wholePieces(ino uint64, size int64) []wire.Piece {
	content, err := w.tree.Open(ino)
	if err != nil || content.Size() != size {
		return nil
	}
	list, err := w.survey.pieces(content, w.tree.place(ino), 0, size, wire.MaxInlinePieces+1)
	if err != nil || len(list) > wire.MaxInlinePieces {
		return nil
	}
	for _, p := range list {
		if p.Kind == disk.ExtentData && p.File == wire.NoFile {
			return nil
		}
	}
	return list
}

func xattrBytes(list []disk.Xattr) int {
	n := 0
	for _, x := range list {
		n += len(x.Name) + len(x.Value)
	}
	return n
}
