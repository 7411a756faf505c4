package worker

import (
	"cmp"
	"fmt"
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

// dirReader lists a directory, and can pause.
type dirReader struct {
	ino   uint64
	pos   uint64 // entries that were listed
	names *wire.NameSet
	visit func(disk.DirEntry) bool // what is done with each entry
	err   error                    // with which the listing ended

	next func() (struct{}, bool) // goes on to the next pause; false: to the end
	stop func()
}

// newDirReader returns a reader that stands at the start of a directory.
func newDirReader(ino uint64) *dirReader {
	return &dirReader{ino: ino, names: wire.NewNameSet()}
}

// list calls visit for the entries of the directory. When that has returned false, the
// listing goes on if pause says so.
func (r *dirReader) list(t *tree, pause func() bool) {
	var bad error
	err := t.ReadDir(r.ino, func(e disk.DirEntry) error {
		if bad = r.check(e); bad != nil {
			return bad
		}
		if !r.visit(e) && !pause() {
			return errEnough
		}
		return nil
	})
	r.err = cmp.Or(bad, err)
}

// read calls visit for the entries that follow, until that returns false. At the end of
// the directory, last is set.
func (r *dirReader) read(t *tree, visit func(disk.DirEntry) bool) (last bool, err error) {
	r.visit = visit
	if r.next == nil {
		r.next, r.stop = iter.Pull(func(yield func(struct{}) bool) {
			r.list(t, func() bool { return yield(struct{}{}) })
		})
	}
	if _, paused := r.next(); paused {
		return false, nil
	}
	return true, r.err
}

// readWhole is read for a directory of which a part is no use: it does not pause, and
// what cannot be read to its end is errEnough.
func (r *dirReader) readWhole(t *tree, visit func(disk.DirEntry) bool) error {
	r.visit = visit
	r.list(t, func() bool { return false })
	return r.err
}

// check checks the next entry.
func (r *dirReader) check(e disk.DirEntry) error {
	if err := wire.CheckEntry(e); err != nil {
		return damaged(r.structure(), err)
	}
	if !r.names.Add(e.Name) {
		return damaged(r.structure(), fmt.Errorf("the name %q is there twice", e.Name))
	}
	if r.pos++; r.pos > wire.MaxDirEntries {
		return &disk.Error{Layer: "reader", Structure: r.structure(), Offset: -1,
			Err: disk.ErrLimit, Detail: fmt.Sprintf("it has more than %d entries", wire.MaxDirEntries)}
	}
	return nil
}

func (r *dirReader) structure() string { return "directory of " + nodeName(r.ino) }

// resume returns a reader of directory ino that stands behind skip entries: the
// one that was paused there, or a new one.
func (t *tree) resume(ino, skip uint64) (*dirReader, error) {
	if r := t.takePaused(ino, skip); r != nil {
		return r, nil
	}
	r := newDirReader(ino)
	if skip > 0 {
		if _, err := r.read(t, func(disk.DirEntry) bool { return r.pos < skip }); err != nil {
			return nil, err
		}
	}
	return r, nil // at the end: an empty last page
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
	w := &walker{tree: t, out: wire.NewDirPagesWriter(b), order: req.Walk, seen: map[uint64]bool{req.Ino: true}, survey: newSurvey(), contents: req.Contents}
	w.out.Begin(req.Ino)
	w.begin(req.Names)
	last, err := r.read(t, w.add)
	switch {
	case !last:
		t.pause(r)
	case err != nil && w.count == 0:
		return nil, err
	case err != nil:
		// What stands before damage is a page of its own: whoever asks for the next
		// one gets the error.
		last = false
	}
	w.out.End(last)
	if last && req.Walk != wire.NoWalk {
		w.descend(w.subdirs(), req.Then)
	}
	return w.out.Finish(), nil
}

// walker lists directories into an answer.
type walker struct {
	tree  *tree
	out   *wire.DirPagesWriter
	order wire.Walk
	seen  map[uint64]bool // directories: a damaged disk may hold circles

	contents bool // they are wanted, where they lie within the metadata

	names bool     // of the entries, nothing but their names is wanted
	count int      // of entries of the directory that is being listed
	dirs  []subdir // those among them

	// The entry that is being described: all of them use the same memory.
	entry   wire.Entry
	inode   disk.Inode
	survey  *survey
	content [wire.MaxInlineContent]byte
}

// begin starts the list of a directory's entries. With names, they are not described.
func (w *walker) begin(names bool) { w.names, w.count, w.dirs = names, 0, w.dirs[:0] }

// add adds an entry, and reports whether there is room for another.
func (w *walker) add(e disk.DirEntry) bool {
	w.count++
	if w.names {
		w.entry = wire.Entry{DirEntry: e}
	} else {
		w.describe(e)
	}
	w.out.Add(&w.entry)
	if w.order != wire.NoWalk && w.entry.IsDir() {
		w.dirs = append(w.dirs, subdir{ino: e.Ino, name: string(e.Name)})
	}
	return !w.out.Full()
}

// subdir is a directory in another.
type subdir struct {
	ino  uint64
	name string
}

// subdirs returns the directories in the one that was listed last, in the order of the
// walk. They are valid until another is listed.
func (w *walker) subdirs() []subdir {
	if w.order == wire.WalkNames {
		slices.SortFunc(w.dirs, func(a, b subdir) int { return strings.Compare(a.name, b.name) })
	}
	return w.dirs
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
		w.begin(false)
		if err := newDirReader(next.ino).readWhole(w.tree, w.add); err != nil {
			w.out.Abandon() // who asks for it alone learns why
			return
		}
		w.out.End(true)
		dirs = w.subdirs()
	}
}

// describe answers with what the files are that a directory has listed, as far as
// there is room.
func (d *reader) describe(r wire.Describe, b []byte) ([]byte, error) {
	t, err := d.tree(r.Tree)
	if err != nil {
		return nil, err
	}
	w := &walker{tree: t, survey: newSurvey(), contents: r.Contents}
	start, content, nothing := len(b), 0, new(wire.Entry)
	for _, ino := range r.Inos {
		e := nothing
		if !wire.Full(len(b)-start, content) {
			e = w.describe(disk.DirEntry{Ino: ino})
			content += len(e.Content)
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
		w.tellContent(e.Ino, n.Size)
	}
	if list, err := t.checkedXattrs(e.Ino); err == nil && xattrBytes(list) <= wire.MaxInlineXattrs {
		out.Xattrs, out.HasXattrs = list, true
	}
	return out
}

// tellContent adds to the entry where the content of its file lies, if all of it can be
// read without the worker, or the content, if it lies within the metadata and is wanted.
func (w *walker) tellContent(ino uint64, size int64) {
	content, err := w.tree.Open(ino)
	if err != nil || content.Size() != size {
		return
	}
	list, err := w.survey.pieces(content, w.tree.place(ino), 0, size, wire.MaxInlinePieces+1)
	if err != nil || len(list) > wire.MaxInlinePieces {
		return
	}
	if !slices.ContainsFunc(list, func(p wire.Piece) bool { return p.Kind == disk.ExtentData && p.File == wire.NoFile }) {
		w.entry.Pieces = list
		return
	}
	if !w.contents || size > wire.MaxInlineContent || len(list) > 1 || w.survey.below {
		return
	}
	if err := readExactly(content, w.content[:size], 0); err == nil {
		w.entry.Content = w.content[:size]
	}
}

func xattrBytes(list []disk.Xattr) int {
	n := 0
	for _, x := range list {
		n += len(x.Name) + len(x.Value)
	}
	return n
}
