package newimage

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// source is the backup as the programs see it: without what is damaged. It counts
// what they read.
type source struct {
	disk.Filesystem
	told   func(bytes int64)
	hollow bool // files have a size, and nothing in them
	shares bool // files of one content have it only once in the image

	read atomic.Int64

	mu     sync.Mutex // guards what follows
	hidden map[uint64]bool
	faults map[uint64]error // of this attempt, by inode number
	paths  map[uint64][]byte
}

// restart begins to count anew.
func (s *source) restart() {
	s.read.Store(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = map[uint64]error{}
}

// failed is told by the mount what could not be read.
func (s *source) failed(ino uint64, err error) {
	var d *disk.Error
	if !errors.As(err, &d) {
		return // the storage is gone, and not one file
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[ino] = err
}

// hide hides a file, and reports whether it was not hidden.
func (s *source) hide(ino uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.hidden[ino]
	s.hidden[ino] = true
	return !was
}

// hideDamaged hides what could not be read, and reports whether there was any.
func (s *source) hideDamaged(tell func(path []byte, err error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for ino, err := range s.faults {
		if s.hidden[ino] || ino == s.Info().Root {
			continue
		}
		s.hidden[ino], found = true, true
		tell(s.paths[ino], err)
	}
	return found
}

func (s *source) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	return s.Filesystem.ReadDir(ino, func(e disk.DirEntry) error {
		s.mu.Lock()
		hidden := s.hidden[e.Ino]
		s.mu.Unlock()
		if hidden {
			return nil
		}
		return yield(e)
	})
}

func (s *source) Open(ino uint64) (disk.Sparse, error) {
	if s.hollow {
		inode, err := s.Inode(ino)
		return hollowFile(inode.Size), err
	}
	f, err := s.Filesystem.Open(ino)
	if err != nil {
		return nil, err
	}
	return &counted{f, s}, nil
}

// Identity is that of a file's content, where the backup knows one.
func (s *source) Identity(ino uint64) (id [32]byte, ok bool) {
	if known, is := s.Filesystem.(writervm.Identifier); is {
		return known.Identity(ino)
	}
	return id, false
}

// counted is a file of which the bytes that are read are counted.
type counted struct {
	disk.Sparse
	src *source
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Sparse.ReadAt(p, off)
	c.src.told(c.src.read.Add(int64(n)))
	return n, err
}

// survey is what there is to be made.
type survey struct {
	files, dirs int64
	bytes       int64    // the sizes of files
	stored      int64    // without holes, each file once
	least       int64    // the same, and content that files may share once
	subvolumes  []uint32 // their numbers
	xattrs      int      // of the file that has most, in bytes
}

const (
	// maxDepth is how deep folders may lie in each other.
	maxDepth = 2048
	// xattrEntry is what an attribute takes beside its name and its value.
	xattrEntry = 20
)

// survey walks the tree. What cannot be read is hidden from the start. It keeps the
// paths of files and folders, which takes some 100 MB for a million.
func (s *source) survey(ctx context.Context, tell func(path []byte, err error)) (survey, error) {
	w := &surveyor{ctx: ctx, src: s, tell: tell, seen: map[uint64]bool{}, contents: map[[32]byte]bool{}}
	s.restart()
	s.paths = map[uint64][]byte{}
	err := w.folder(s.Info().Root, []byte("/"), 0)
	return w.survey, err
}

type surveyor struct {
	survey
	ctx  context.Context
	src  *source
	tell func(path []byte, err error)
	seen map[uint64]bool

	contents map[[32]byte]bool
}

func (w *surveyor) folder(ino uint64, path []byte, depth int) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	w.dirs++
	w.seen[ino] = true
	entries, err := disk.List(w.src, ino)
	if err := w.fault(ino, path, err); err != nil {
		return err
	}
	for _, e := range entries {
		below := append(append([]byte{}, path...), e.Name...)
		if err := w.fault(e.Ino, below, w.entry(e, below, depth)); err != nil {
			return err
		}
	}
	return nil
}

// fault hides what one damaged file is to blame for, and returns any other error.
func (w *surveyor) fault(ino uint64, path []byte, err error) error {
	var d *disk.Error
	if err == nil || w.ctx.Err() != nil || !errors.As(err, &d) || ino == w.src.Info().Root {
		return err
	}
	w.src.hide(ino)
	w.tell(path, err)
	return nil
}

func (w *surveyor) entry(e disk.DirEntry, path []byte, depth int) error {
	inode, err := w.src.Inode(e.Ino)
	if err != nil {
		return err
	}
	xattrs, err := w.src.Xattrs(e.Ino)
	if err != nil {
		return err
	}
	total := 0
	for _, x := range xattrs {
		total += len(x.Name) + len(x.Value) + xattrEntry
	}
	w.xattrs = max(w.xattrs, total)
	w.src.paths[e.Ino] = path
	switch inode.Type() {
	case disk.ModeDir:
		if w.seen[e.Ino] || depth == maxDepth {
			return &disk.Error{Layer: w.src.Info().Type, Structure: "directory", Offset: -1, Err: disk.ErrLimit, Detail: "it is in itself, or too deep"}
		}
		if inode.Flags&disk.FlagSubvolume != 0 {
			w.subvolumes = append(w.subvolumes, inode.Subvolume)
		}
		return w.folder(e.Ino, append(path[:len(path):len(path)], '/'), depth+1)
	case disk.ModeRegular:
		return w.file(&inode)
	}
	return nil
}

func (w *surveyor) file(inode *disk.Inode) error {
	w.files++
	w.bytes += inode.Size
	if w.seen[inode.Ino] {
		return nil
	}
	if inode.Links > 1 {
		w.seen[inode.Ino] = true
	}
	f, err := w.src.Filesystem.Open(inode.Ino)
	if err != nil {
		return err
	}
	shared := w.shared(inode.Ino)
	return f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Kind == disk.ExtentData {
			w.stored += e.Length
			if !shared {
				w.least += e.Length
			}
		}
		return nil
	})
}

// maxContents is how many contents are remembered, to see which are the same.
const maxContents = 1 << 20

// shared reports whether a file may share its content with one that was seen.
func (w *surveyor) shared(ino uint64) bool {
	if !w.src.shares {
		return false
	}
	id, ok := w.src.Identity(ino)
	if !ok || w.contents[id] {
		return ok
	}
	if len(w.contents) < maxContents {
		w.contents[id] = true
	}
	return false
}
