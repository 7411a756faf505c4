package worker

import (
	"fmt"
	"hash/maphash"
	"iter"

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

// readDir answers with a page of a directory.
func (d *openDisk) readDir(req wire.ReadDir, b []byte) ([]byte, error) {
	fs, err := d.mounted(req.Volume)
	if err != nil {
		return nil, err
	}
	r, err := fs.resume(req.Ino, req.Skip)
	if err != nil {
		return nil, err
	}
	page := wire.NewDirPageWriter(b)
	for !page.Full() {
		e, ok, err := r.entry()
		if err != nil {
			// What stands before the damage is lost to the caller, who could
			// not trust the directory anyway.
			r.stop()
			return nil, err
		}
		if !ok {
			r.stop()
			return page.Finish(true), nil
		}
		page.Add(fs.describe(e))
	}
	fs.pause(r)
	return page.Finish(false), nil
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
