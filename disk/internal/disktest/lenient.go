package disktest

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

const (
	// maxLenientDirs, maxLenientFiles and maxLenientBytes stop a walk through
	// whatever a damaged filesystem turns into.
	maxLenientDirs  = 2000
	maxLenientFiles = 20_000
	maxLenientBytes = 16 << 20
	lenientRead     = 32 << 10 // of each file
)

// WalkLeniently reads all that can be read, from each directory once, and calls
// visit, if it is not nil, for each file. It returns the first error.
func WalkLeniently(fs disk.Filesystem, visit func(path string, n Node)) (first error) {
	walkLeniently(fs, visit, func(err error) {
		if first == nil {
			first = err
		}
	})
	return first
}

// walkLeniently does so, and calls failed for each error.
func walkLeniently(fs disk.Filesystem, visit func(path string, n Node), failed func(error)) {
	w := &lenientWalk{fs: fs, visit: visit, failed: failed, seen: make(map[uint64]bool)}
	w.dir("", fs.Info().Root)
}

type lenientWalk struct {
	fs     disk.Filesystem
	visit  func(string, Node)
	failed func(error)
	seen   map[uint64]bool
	files  int
	bytes  int64
	buf    []byte
}

func (w *lenientWalk) note(err error) {
	if err != nil {
		w.failed(err)
	}
}

func (w *lenientWalk) dir(path string, ino uint64) {
	if w.seen[ino] || len(w.seen) >= maxLenientDirs {
		return
	}
	w.seen[ino] = true
	w.note(w.fs.ReadDir(ino, func(e disk.DirEntry) error {
		if w.files++; w.files > maxLenientFiles {
			return fmt.Errorf("more than %d files", maxLenientFiles)
		}
		w.entry(path+"/"+string(e.Name), e.Ino)
		return nil
	}))
}

func (w *lenientWalk) entry(path string, ino uint64) {
	n, err := w.fs.Inode(ino)
	if err != nil {
		w.note(err)
		return
	}
	seen := Node{Ino: ino, Mode: n.Mode, UID: n.UID, GID: n.GID, Links: n.Links, Size: n.Size, Times: fmt.Sprint(n.Access, n.Modify, n.Change)}
	xattrs, err := w.fs.Xattrs(ino)
	w.note(err)
	for _, x := range xattrs {
		seen.Xattrs += formatXattr(x.Name, x.Value)
	}
	switch n.Type() {
	case disk.ModeDir:
		w.dir(path, ino)
	case disk.ModeSymlink:
		target, err := w.fs.Readlink(ino)
		w.note(err)
		seen.Target = string(target)
	case disk.ModeRegular:
		seen.Content = w.content(ino)
	}
	if w.visit != nil {
		w.visit(path, seen)
	}
}

func (w *lenientWalk) content(ino uint64) string {
	f, err := w.fs.Open(ino)
	if err != nil {
		w.note(err)
		return ""
	}
	extents := 0
	w.note(f.Extents(0, f.Size(), func(disk.Extent) error {
		if extents++; extents > 1<<20 {
			return io.ErrShortBuffer
		}
		return nil
	}))
	size := min(f.Size(), lenientRead)
	if w.bytes += size; w.bytes > maxLenientBytes {
		return ""
	}
	if w.buf == nil {
		w.buf = make([]byte, lenientRead)
	}
	p := w.buf[:size]
	if n, err := f.ReadAt(p, 0); n < len(p) {
		w.note(err)
	}
	return fmt.Sprintf("%x", maphash.Bytes(digestSeed, p))
}

// EachFile opens each regular file that can be reached and opened, once, and calls
// visit.
func EachFile(fs disk.Filesystem, visit func(disk.Sparse)) {
	seen := make(map[uint64]bool)
	var dir func(ino uint64)
	dir = func(ino uint64) {
		_ = fs.ReadDir(ino, func(e disk.DirEntry) error {
			if seen[e.Ino] || len(seen) >= maxLenientFiles {
				return nil
			}
			seen[e.Ino] = true
			if e.Type == disk.ModeDir {
				dir(e.Ino)
			} else if f, err := fs.Open(e.Ino); err == nil {
				visit(f)
			}
			return nil
		})
	}
	dir(fs.Info().Root)
}

// ReadMore reads what [WalkLeniently] does not: what is in use, subvolumes, the
// start of each extent of each file, and where that lies. It calls failed for each
// error.
func ReadMore(fs disk.Filesystem, failed func(error)) {
	note := func(err error) {
		if err != nil {
			failed(err)
		}
	}
	if u, ok := fs.(disk.Usage); ok {
		note(u.Used(0, func(int64, int64) error { return nil }))
	}
	if l, ok := fs.(disk.SubvolumeLister); ok {
		list, err := l.Subvolumes()
		note(err)
		for _, s := range list {
			_, err := fs.Inode(s.Root)
			note(err)
		}
	}
	EachFile(fs, func(f disk.Sparse) {
		note(readStarts(f))
		if l, ok := f.(disk.Locator); ok {
			note(l.Locate(0, min(f.Size(), 1<<20), func(disk.Location) error { return nil }))
		}
	})
}

// maxStarts is how many extents of a file [ReadMore] reads from.
const maxStarts = 100

func readStarts(f disk.Sparse) error {
	p := make([]byte, 5000)
	count := 0
	err := f.Extents(0, f.Size(), func(e disk.Extent) error {
		if count++; count > maxStarts {
			return errStop
		}
		n, err := f.ReadAt(p[:min(e.Length, int64(len(p)))], e.Offset)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
