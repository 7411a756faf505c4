package disktest

import (
	"errors"
	"fmt"
	"hash/maphash"

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

// ErrTooMuch ends a walk through more than a test looks at.
var ErrTooMuch = errors.New("more than a test looks at")

// WalkLeniently reads all that can be read, from each directory once, and calls
// visit, if it is not nil, for each file. It returns the first error.
func WalkLeniently(fs disk.Filesystem, visit func(path string, n Node)) error {
	w := &lenientWalk{fs: fs, visit: visit, seen: make(map[uint64]bool)}
	w.dir("", fs.Info().Root)
	return w.first
}

type lenientWalk struct {
	fs    disk.Filesystem
	visit func(string, Node)
	seen  map[uint64]bool
	files int
	bytes int64
	buf   []byte
	first error
}

func (w *lenientWalk) note(err error) {
	if w.first == nil {
		w.first = err
	}
}

func (w *lenientWalk) dir(path string, ino uint64) {
	if w.seen[ino] || len(w.seen) >= maxLenientDirs {
		return
	}
	w.seen[ino] = true
	w.note(w.fs.ReadDir(ino, func(e disk.DirEntry) error {
		if w.files++; w.files > maxLenientFiles {
			return fmt.Errorf("more than %d files: %w", maxLenientFiles, ErrTooMuch)
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
			return ErrTooMuch
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
