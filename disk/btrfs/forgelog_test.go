package btrfs

import (
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestForgedLog has logs whose items are no such items.
func TestForgedLog(t *testing.T) {
	original := seedBytes(t, "log")
	for _, c := range []struct {
		text   string
		path   string
		kind   uint8
		change func(item []byte)
	}{
		{`a reference with the name "/ew"`, "a/new", kindInodeRef, func(p []byte) { p[10] = '/' }},
		{"a reference of 13 bytes", "a/new", kindInodeRef, func(p []byte) { put16(p[8:], 300) }},
		{"an item of type 7", "a/new", kindExtentData, func(p []byte) { p[0x14] = 7 }},
		{"mode 0", "a/new", kindInode, func(p []byte) { put32(p[modeOffset:], 0) }},
		{"an entry of", "a", kindDirIndex, func(p []byte) { put16(p[0x1b:], 300) }},
		{"an entry of", "a", kindDirIndex, func(p []byte) { p[dirItemSize] = 0 }},
		{"a symlink of", "a/new", kindInode, func(p []byte) { put32(p[modeOffset:], 0o120777); put64(p[sizeOffset:], 1<<40) }},
	} {
		t.Run(c.text, func(t *testing.T) {
			f := forge(t, original)
			f.leaf(treeLog, key{f.object(c.path), c.kind, 0}, func(_, item []byte) { c.change(item) })
			checkForged(t, f.read(), c.text)
		})
	}
}

// TestLogInodes changes what the log says of inodes, within what is possible.
func TestLogInodes(t *testing.T) {
	original := seedBytes(t, "log")
	open := func(f *forgery) *Filesystem {
		t.Helper()
		fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}

	f := forge(t, original)
	f.leaf(treeLog, key{f.object("a/new"), kindInode, 0}, func(_, item []byte) { put32(item[linksOffset:], 0) })
	if _, err := disk.Lookup(open(f), []byte("a/new")); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("a file without a name comes back: %v", err)
	}

	f = forge(t, original)
	before, err := disk.Lookup(f.fs, []byte("xattrs"))
	if err != nil {
		t.Fatal(err)
	}
	f.leaf(treeLog, key{f.object("xattrs"), kindInode, 0}, func(_, item []byte) {
		put64(item, 0) // says only that it is there, and how large
		put64(item[sizeOffset:], 12345)
		put32(item[modeOffset:], 0o100777)
	})
	after, err := disk.Lookup(open(f), []byte("xattrs"))
	if err != nil || after.Size != 12345 || after.Mode != before.Mode || after.Generation != before.Generation {
		t.Errorf("from %+v it becomes %+v: %v", before, after, err)
	}

	f = forge(t, original)
	f.leaf(treeLog, key{f.object("a/new"), kindInode, 0}, func(_, item []byte) { put64(item, 0) })
	if n, err := disk.Lookup(open(f), []byte("a/new")); err != nil || uint64(n.Generation) != f.fs.sb.generation+1 {
		t.Errorf("a new file of no generation is %+v: %v", n, err)
	}
}

// TestLogRoots damages the way to the logs: none of that may pass for a
// filesystem without a log.
func TestLogRoots(t *testing.T) {
	original := seedBytes(t, "log")
	for text, change := range map[string]func(p []byte){
		"a tree at":                    func(p []byte) { put64(p[0x60:], 5) },
		"are in no chunk":              func(p []byte) { put64(p[0x60:], 1<<45) },
		"where 1 is due":               func(p []byte) { p[0xc8] = 1 },
		"parent transid verify failed": func(p []byte) { put64(p[0x48:], generationOf(original)+1) },
	} {
		f := forge(t, original)
		f.superblock(change)
		err := f.read()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want one that says %q", err, text)
		}
	}
	// Without the log it is the filesystem of the last commit.
	f := forge(t, original)
	f.superblock(func(p []byte) { put64(p[0x60:], 0) })
	fs, err := Open([]disk.Sparse{disktest.Mem(f.raw)}, Options{})
	if err != nil || fs.Replayed() != 0 {
		t.Fatal(err)
	}
	if _, err := disk.Lookup(fs, []byte("a/small")); err != nil {
		t.Error(err)
	}
	if _, err := disk.Lookup(fs, []byte("a/new")); !errors.Is(err, disk.ErrNotExist) {
		t.Error("the new file is there without the log")
	}
}

// generationOf is the generation of an image.
func generationOf(raw []byte) uint64 { return newCursor(raw[superblockOffset+0x48:]).U64() }
