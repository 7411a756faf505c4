package disktest

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// maxTestDepth stops a walk through directories that contain themselves.
const maxTestDepth = 64

// ReadTree reads all of a filesystem through the reader under test.
func ReadTree(t testing.TB, fs disk.Filesystem) Tree {
	t.Helper()
	all := make(Tree)
	var walk func(path string, ino uint64, depth int)
	walk = func(path string, ino uint64, depth int) {
		if depth > maxTestDepth {
			t.Fatalf("%s: too deep", path)
		}
		n, err := fs.Inode(ino)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		all[path] = ourNode(t, fs, path, &n)
		if n.Type() != disk.ModeDir {
			return
		}
		err = fs.ReadDir(ino, func(e disk.DirEntry) error {
			child := path + "/" + string(e.Name)
			if _, twice := all[child]; twice {
				return fmt.Errorf("%q is there twice", child)
			}
			walk(child, e.Ino, depth+1)
			if kind := all[child].Mode & disk.ModeType; e.Type != 0 && e.Type != kind {
				return fmt.Errorf("%q: the directory says type %#o, the inode %#o", child, e.Type, kind)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
	}
	walk("", fs.Info().Root, 0)
	return all
}

func ourNode(t testing.TB, fs disk.Filesystem, path string, n *disk.Inode) Node {
	t.Helper()
	out := Node{
		Ino: n.Ino, Mode: n.Mode, UID: n.UID, GID: n.GID, Links: n.Links, Size: n.Size,
		Rdev: formatDevice(n.Rdev.Major, n.Rdev.Minor),
	}
	for _, at := range []disk.Time{n.Access, n.Modify, n.Change, n.Birth} {
		out.Times += formatTime(at.Sec, at.Nsec) + " "
	}
	xattrs, err := fs.Xattrs(n.Ino)
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	for i, x := range xattrs {
		if i > 0 && bytes.Compare(xattrs[i-1].Name, x.Name) >= 0 {
			t.Errorf("%q: attributes are not sorted: %q", path, x.Name)
		}
		out.Xattrs += formatXattr(x.Name, x.Value)
	}
	switch n.Type() {
	case disk.ModeSymlink:
		target, err := fs.Readlink(n.Ino)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		out.Target = string(target)
	case disk.ModeRegular:
		f, err := fs.Open(n.Ino)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		out.Content, out.Data = ourContent(t, path, f)
	}
	return out
}

// digestSeed makes the digests of one run comparable, and fast.
var digestSeed = maphash.MakeSeed()

// maxWholeDigest is the size up to which all of a file is read; of larger ones
// the ranges with data are.
const maxWholeDigest = 64 << 20

// contentDigest reads a file in pieces of an odd size. Ranges of zeros do not
// count, so that it does not matter where exactly a large file has its holes.
func contentDigest(t testing.TB, path string, f io.ReaderAt, size int64, ranges []disk.Extent) string {
	t.Helper()
	if size <= maxWholeDigest {
		ranges = []disk.Extent{{Length: size}}
	}
	const piece = 64<<10 - 1
	var sum maphash.Hash
	sum.SetSeed(digestSeed)
	buf := make([]byte, min(piece, size))
	next := int64(0) // two ranges can lie in one piece
	for _, r := range ranges {
		end := r.Offset + r.Length
		for off := max(next, r.Offset-r.Offset%piece); off < end; off += piece {
			next = off + piece
			p := buf[:min(piece, size-off)]
			if n, err := f.ReadAt(p, off); n != len(p) {
				t.Fatalf("%q: read %d of %d bytes at %d: %v", path, n, len(p), off, err)
			}
			if !isZero(p) {
				fmt.Fprintf(&sum, "%d:%x;", off, maphash.Bytes(digestSeed, p))
			}
		}
	}
	return fmt.Sprintf("%x", sum.Sum64())
}

// ourContent reads a file, and checks that its extents cover it.
func ourContent(t testing.TB, path string, f disk.Sparse) (digest, data string) {
	t.Helper()
	var ranges []disk.Extent
	next := int64(0)
	err := f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 {
			return fmt.Errorf("extent %+v, where offset %d is due", e, next)
		}
		next += e.Length
		if e.Kind != disk.ExtentData {
			return nil
		}
		if n := len(ranges); n > 0 && ranges[n-1].Offset+ranges[n-1].Length == e.Offset {
			ranges[n-1].Length += e.Length
		} else {
			ranges = append(ranges, e)
		}
		return nil
	})
	if err != nil || next != f.Size() {
		t.Fatalf("%q: extents end at %d of %d: %v", path, next, f.Size(), err)
	}
	return contentDigest(t, path, f, f.Size(), ranges), formatRanges(ranges)
}

func formatRanges(ranges []disk.Extent) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d-%d ", r.Offset, r.Offset+r.Length)
	}
	return b.String()
}

func formatXattr(name, value []byte) string {
	if len(value) > 32 {
		return fmt.Sprintf("%q=%d bytes %x\n", name, len(value), maphash.Bytes(digestSeed, value))
	}
	return fmt.Sprintf("%q=%x\n", name, value)
}

// ReadInode reads all there is of one inode but its content.
func ReadInode(fs disk.Filesystem, ino uint64) error {
	n, err := fs.Inode(ino)
	if err != nil {
		return err
	}
	if _, err := fs.Xattrs(ino); err != nil {
		return err
	}
	switch n.Type() {
	case disk.ModeDir:
		return fs.ReadDir(ino, func(disk.DirEntry) error { return nil })
	case disk.ModeSymlink:
		_, err := fs.Readlink(ino)
		return err
	case disk.ModeRegular:
		f, err := fs.Open(ino)
		if err != nil {
			return err
		}
		return f.Extents(0, f.Size(), func(disk.Extent) error { return nil })
	}
	return nil
}
