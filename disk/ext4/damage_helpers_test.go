package ext4_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// rawCRC is CRC-32C as ext4 keeps it, in the test's own words.
func rawCRC(seed uint32, p []byte) uint32 {
	return ^crc32.Update(^seed, crc32.MakeTable(crc32.Castagnoli), p)
}

// sealSuperblock makes the checksum of a superblock right, if it has one.
func sealSuperblock(raw []byte) {
	if binary.LittleEndian.Uint32(raw[0x64:])&0x400 != 0 {
		binary.LittleEndian.PutUint32(raw[0x3fc:], rawCRC(^uint32(0), raw[:0x3fc]))
	}
}

const (
	// maxLenientDirs, maxLenientFiles and maxLenientBytes stop a walk through
	// whatever a damaged filesystem turns into.
	maxLenientDirs  = 2000
	maxLenientFiles = 20_000
	maxLenientBytes = 16 << 20
	lenientRead     = 32 << 10 // of each file
)

// walkLeniently reads all that can be read, from each directory once, and calls
// visit, if it is not nil, for each file. It returns the first error.
func walkLeniently(fs disk.Filesystem, visit func(path string, n node)) error {
	w := &lenientWalk{fs: fs, visit: visit, seen: make(map[uint64]bool)}
	w.dir("", fs.Info().Root)
	return w.first
}

type lenientWalk struct {
	fs    disk.Filesystem
	visit func(string, node)
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
	seen := node{Ino: ino, Mode: n.Mode, UID: n.UID, GID: n.GID, Links: n.Links, Size: n.Size, Times: fmt.Sprint(n.Access, n.Modify, n.Change)}
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
	return fmt.Sprintf("%x", rawCRC(0, p))
}

// patched is an image some of whose bytes read as others.
type patched struct {
	image
	off  int64
	data []byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.image.ReadAt(b, off)
	if from, to := max(off, p.off), min(off+int64(n), p.off+int64(len(p.data))); from < to {
		copy(b[from-off:to-off], p.data[from-p.off:])
	}
	return n, err
}

// patch returns the image at path with length bytes at off changed.
func patch(t testing.TB, path string, off int64, length int, change func([]byte)) patched {
	t.Helper()
	p := patched{image: openImage(t, path), off: off, data: make([]byte, length)}
	if _, err := p.image.ReadAt(p.data, off); err != nil {
		t.Fatal(err)
	}
	change(p.data)
	return p
}
