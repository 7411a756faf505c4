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

func (fs *filesystem) newDirReader(ino uint64) *dirReader {
	r := &dirReader{ino: ino, names: make(map[uint64]struct{}), seed: maphash.MakeSeed()}
	r.next, r.stop = iter.Pull2(func(yield func(disk.DirEntry, error) bool) {
		stopped := false
		err := fs.ReadDir(ino, func(e disk.DirEntry) error {
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
func (fs *filesystem) resume(ino, skip uint64) (*dirReader, error) {
	if r := fs.takePaused(ino, skip); r != nil {
		return r, nil
	}
	r := fs.newDirReader(ino)
	for r.pos < skip {
		if _, ok, err := r.entry(); err != nil || !ok {
			r.stop()
			return r, err // at the end: an empty last page
		}
	}
	return r, nil
}

func (fs *filesystem) takePaused(ino, skip uint64) *dirReader {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, r := range fs.paused {
		if r.ino == ino && r.pos == skip {
			fs.paused = append(fs.paused[:i], fs.paused[i+1:]...)
			return r
		}
	}
	return nil
}

func (fs *filesystem) pause(r *dirReader) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.paused) == maxPaused {
		fs.paused[0].stop()
		fs.paused = append(fs.paused[:0], fs.paused[1:]...)
	}
	fs.paused = append(fs.paused, r)
}

// readDir answers with a page of a directory, and, on a walk, with as many
// directories below it as fit.
func (d *openDisk) readDir(req wire.ReadDir, b []byte) ([]byte, error) {
	fs, err := d.mounted(req.Volume)
	if err != nil {
		return nil, err
	}
	r, err := fs.resume(req.Ino, req.Skip)
	if err != nil {
		return nil, err
	}
	w := &walker{fs: fs, out: wire.NewDirPagesWriter(b), order: req.Walk, seen: map[uint64]bool{req.Ino: true}}
	w.out.Begin(req.Ino)
	dirs, last, err := w.fill(r)
	if err != nil {
		// What stands before the damage is lost to the caller, who could
		// not trust the directory anyway.
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
	fs    *filesystem
	out   *wire.DirPagesWriter
	order wire.Walk
	seen  map[uint64]bool // directories: a damaged disk may hold circles
}

// fill adds entries until the directory or the room in the answer ends. It
// returns the directories among them, in the order of the walk.
func (w *walker) fill(r *dirReader) (dirs []subdir, last bool, err error) {
	for !w.out.Full() {
		e, ok, err := r.entry()
		if err != nil || !ok {
			r.stop()
			w.sort(dirs)
			return dirs, true, err
		}
		full := w.fs.describe(e)
		w.out.Add(full)
		if w.order != wire.NoWalk && full.Inode != nil && full.Inode.Type() == disk.ModeDir {
			dirs = append(dirs, subdir{ino: e.Ino, name: string(e.Name)})
		}
	}
	w.fs.pause(r)
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
		below, last, err := w.fill(w.fs.newDirReader(next.ino))
		if err != nil || !last {
			w.out.Abandon() // who asks for it alone learns why
			return
		}
		w.out.End(true)
		dirs = below
	}
}

// describe adds to an entry what can be told about its file in passing. What
// fails here is left out, and fails again when it is asked for.
func (fs *filesystem) describe(e disk.DirEntry) *wire.Entry {
	out := &wire.Entry{DirEntry: e}
	n, err := fs.checkedInode(e.Ino)
	if err != nil {
		return out
	}
	out.Inode = &n
	if n.Type() == disk.ModeSymlink {
		if target, err := fs.checkedTarget(e.Ino); err == nil {
			out.Target = target
		}
	}
	if list, err := fs.checkedXattrs(e.Ino); err == nil && xattrBytes(list) <= wire.MaxInlineXattrs {
		out.Xattrs, out.HasXattrs = list, true
	}
	return out
}

func xattrBytes(list []disk.Xattr) int {
	n := 0
	for _, x := range list {
		n += len(x.Name) + len(x.Value)
	}
	return n
}
