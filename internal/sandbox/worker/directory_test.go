package worker

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// fake is a filesystem of directories, as no honest disk need be.
type fake struct {
	disk.Filesystem
	dirs  map[uint64][]disk.DirEntry
	err   map[uint64]error // comes after the entries
	lists int              // how often a directory was listed

	xattrs  []disk.Xattr // of each file
	content *inMetadata  // of each file; or nil
}

func (f *fake) Inode(ino uint64) (disk.Inode, error) {
	if _, ok := f.dirs[ino]; ok {
		return disk.Inode{Ino: ino, Mode: disk.ModeDir | 0o755}, nil
	}
	if ino == 666 {
		return disk.Inode{}, disk.ErrCorrupt
	}
	n := disk.Inode{Ino: ino, Mode: disk.ModeRegular | 0o644, Size: 5}
	if f.content != nil {
		n.Size = f.content.Size()
	}
	return n, nil
}

func (f *fake) Xattrs(uint64) ([]disk.Xattr, error) { return f.xattrs, nil }

func (f *fake) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	f.lists++
	for _, e := range f.dirs[ino] {
		if err := yield(e); err != nil {
			return fmt.Errorf("listing %d: %w", ino, err)
		}
	}
	return f.err[ino]
}

// Open fails where the files have no content.
func (f *fake) Open(uint64) (disk.Sparse, error) {
	if f.content == nil {
		return nil, disk.ErrNotExist
	}
	return f.content, nil
}

func (f *fake) open() *reader {
	return &reader{trees: map[uint32]*tree{0: newTree(f, nil)}}
}

// list reads a directory, page by page.
func list(t *testing.T, d *reader, ino uint64) (names []string, pages int, err error) {
	t.Helper()
	req := wire.ReadDir{Node: wire.Node{Ino: ino}}
	for {
		answer, err := d.readDir(req, nil)
		if err != nil {
			return names, pages, err
		}
		got, err := wire.DecodeDirPages(answer, req, nil)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, e := range got[0].Entries {
			names = append(names, string(e.Name))
		}
		if got[0].Last {
			return names, pages, nil
		}
		req.Skip += uint64(len(got[0].Entries))
	}
}

func many(n int) []disk.DirEntry {
	var list []disk.DirEntry
	for i := range n {
		list = append(list, disk.DirEntry{Name: fmt.Appendf(nil, "file %d", i), Ino: uint64(1000 + i)})
	}
	return list
}

// A large directory comes in pages, and is listed once for all of them.
func TestPages(t *testing.T) {
	f := &fake{dirs: map[uint64][]disk.DirEntry{2: many(20000)}}
	names, pages, err := list(t, f.open(), 2)
	if err != nil || len(names) != 20000 || names[19999] != "file 19999" || pages < 10 {
		t.Errorf("%d names in %d pages, %v", len(names), pages, err)
	}
	if f.lists != 1 {
		t.Errorf("the directory was read %d times", f.lists)
	}
}

// A page can be asked for again, and when the reader that stood there is gone.
func TestPagesAgain(t *testing.T) {
	f := &fake{dirs: map[uint64][]disk.DirEntry{2: many(5000)}}
	d := f.open()
	req := wire.ReadDir{Node: wire.Node{Ino: 2}, Skip: 1234}
	for range 3 {
		answer, err := d.readDir(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeDirPages(answer, req, nil)
		if err != nil || string(got[0].Entries[0].Name) != "file 1234" {
			t.Fatalf("%v", err)
		}
	}
	for range 2 * maxPaused {
		if _, err := d.readDir(wire.ReadDir{Node: wire.Node{Ino: 2}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.trees[0].paused); n > maxPaused {
		t.Errorf("%d readers are kept", n)
	}
	answer, err := d.readDir(wire.ReadDir{Node: wire.Node{Ino: 2}, Skip: 99999}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wire.DecodeDirPages(answer, wire.ReadDir{Node: wire.Node{Ino: 2}}, nil); err != nil || !got[0].Last || len(got[0].Entries) != 0 {
		t.Errorf("behind the end: %+v, %v", got, err)
	}
}

// A page of names tells nothing else, but goes on with directories that are wanted next.
func TestNames(t *testing.T) {
	f := &fake{dirs: map[uint64][]disk.DirEntry{2: append(many(3), disk.DirEntry{Name: []byte("d"), Ino: 10, Type: disk.ModeDir}), 10: many(1)}}
	req := wire.ReadDir{Node: wire.Node{Ino: 2}, Skip: 1, Names: true, Walk: wire.WalkDisk}
	answer, err := f.open().readDir(req, nil)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := wire.DecodeDirPages(answer, req, nil)
	if err != nil || len(pages) != 2 || len(pages[0].Entries) != 3 {
		t.Fatalf("%+v, %v", pages, err)
	}
	for _, e := range pages[0].Entries {
		if e.Inode != nil || e.HasXattrs {
			t.Errorf("%q is described", e.Name)
		}
	}
	if pages[1].Ino != 10 || pages[1].Entries[0].Inode == nil {
		t.Errorf("the directory behind it: %+v", pages[1])
	}
}

// Files are described in the order in which they are asked for. Of one that is damaged
// nothing is told, and neither is of those for which there is no room.
func TestDescribe(t *testing.T) {
	ask := func(f *fake, inos ...uint64) []wire.Entry {
		req := wire.Describe{Inos: inos}
		answer, err := f.open().describe(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := wire.DecodeDescriptions(answer, req, nil)
		if err != nil || len(answer) > wire.MaxAnswer {
			t.Fatalf("%d bytes: %v", len(answer), err)
		}
		return list
	}
	list := ask(new(fake), 1001, 666, 1000)
	if list[0].Inode.Ino != 1001 || list[1].Inode != nil || list[2].Inode.Ino != 1000 || !list[2].HasXattrs {
		t.Errorf("%+v", list)
	}
	large := &fake{xattrs: []disk.Xattr{{Name: []byte("user.a"), Value: make([]byte, wire.MaxInlineXattrs-6)}}}
	var inos []uint64
	for ino := range uint64(wire.MaxDescribe) {
		inos = append(inos, 1000+ino)
	}
	list = ask(large, inos...)
	if list[0].Inode == nil || list[wire.MaxDescribe-1].Inode != nil {
		t.Errorf("of %d files with large attributes the first and the last are %+v and %+v", len(inos), list[0], list[wire.MaxDescribe-1])
	}
}

// Content is told with a file if it is asked for and lies within the metadata; what lies
// in a device, or is large, is not read for it.
func TestContents(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		device int
		ask    bool
		told   bool
	}{
		"asked for":       {5, -1, true, true},
		"the largest":     {wire.MaxInlineContent, -1, true, true},
		"not asked for":   {5, -1, false, false},
		"large":           {wire.MaxInlineContent + 1, -1, true, false},
		"on another disk": {5, 0, true, false},
	} {
		f := &fake{content: &inMetadata{data: bytes.Repeat([]byte("x"), c.size), device: c.device}}
		d := &reader{trees: map[uint32]*tree{0: newTree(f, func(uint64) place { return nowhere{} })}}
		req := wire.Describe{Contents: c.ask, Inos: []uint64{1000}}
		answer, err := d.describe(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := wire.DecodeDescriptions(answer, req, nil)
		if err != nil || list[0].Inode == nil {
			t.Fatalf("%s: %+v, %v", name, list, err)
		}
		if c.told != bytes.Equal(list[0].Content, f.content.data) || f.content.read != c.told {
			t.Errorf("%s: %d bytes are told, read: %v", name, len(list[0].Content), f.content.read)
		}
	}
	// As many are told as there is room for.
	f := &fake{content: &inMetadata{data: make([]byte, wire.MaxInlineContent), device: -1}}
	d := &reader{trees: map[uint32]*tree{0: newTree(f, func(uint64) place { return nowhere{} })}}
	req := wire.Describe{Contents: true}
	for ino := range uint64(wire.MaxDescribe) {
		req.Inos = append(req.Inos, 1000+ino)
	}
	answer, err := d.describe(req, nil)
	if err != nil || len(answer) > wire.ContentSize+wire.DirPageSize {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
	list, err := wire.DecodeDescriptions(answer, req, nil)
	if err != nil || list[100].Content == nil || list[wire.MaxDescribe-1].Inode != nil {
		t.Errorf("%v", err)
	}
}

// inMetadata is content that lies in a device, or in none.
type inMetadata struct {
	data   []byte
	device int
	read   bool
}

func (c *inMetadata) Size() int64 { return int64(len(c.data)) }

func (c *inMetadata) ReadAt(p []byte, off int64) (int, error) {
	c.read = true
	return copy(p, c.data[off:]), nil
}

func (c *inMetadata) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

func (c *inMetadata) Locate(off, length int64, yield func(disk.Location) error) error {
	return yield(disk.Location{Offset: off, Length: length, Device: c.device})
}

// nowhere is a place of which nothing can be read by others: a compressed image.
type nowhere struct{}

func (nowhere) below(_ int, _, length, off int64, yield func(wire.Piece) error) error {
	return yield(wire.Piece{Extent: disk.Extent{Offset: off, Length: length}, File: wire.NoFile})
}

// What package disk rules out is an error of the disk, not a message that makes
// the parent think that the worker lies.
func TestBadDirectories(t *testing.T) {
	entry := func(name string, ino uint64, kind uint32) []disk.DirEntry {
		return append(many(3), disk.DirEntry{Name: []byte(name), Ino: ino, Type: kind})
	}
	for name, c := range map[string]struct {
		list []disk.DirEntry
		err  error
		want error
	}{
		"slash":        {entry("a/b", 1, 0), nil, disk.ErrCorrupt},
		"NUL":          {entry("a\x00", 1, 0), nil, disk.ErrCorrupt},
		"no name":      {entry("", 1, 0), nil, disk.ErrCorrupt},
		"long name":    {entry(strings.Repeat("n", 256), 1, 0), nil, disk.ErrCorrupt},
		"dot":          {entry(".", 1, 0), nil, disk.ErrCorrupt},
		"dots":         {entry("..", 1, 0), nil, disk.ErrCorrupt},
		"no inode":     {entry("a", 0, 0), nil, disk.ErrCorrupt},
		"unknown type": {entry("a", 1, 0o30000), nil, disk.ErrCorrupt},
		"twice":        {append(many(3), many(1)...), nil, disk.ErrCorrupt},
		"twice far":    {append(many(5000), many(1)...), nil, disk.ErrCorrupt},
		"error":        {many(3), disk.ErrLimit, disk.ErrLimit},
		"fine":         {entry("a", 666, 0), nil, nil}, // the inode is told of elsewhere
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{dirs: map[uint64][]disk.DirEntry{2: c.list}, err: map[uint64]error{2: c.err}}
			names, _, err := list(t, f.open(), 2)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(names) < 3 {
				t.Errorf("what stands before the damage is lost: %q", names)
			}
		})
	}
}

// A walk goes down before it goes on, in the order that was asked for, and ends
// on disks that hold circles.
func TestWalk(t *testing.T) {
	dir := func(name string, ino uint64) disk.DirEntry {
		return disk.DirEntry{Name: []byte(name), Ino: ino, Type: disk.ModeDir}
	}
	f := &fake{dirs: map[uint64][]disk.DirEntry{
		2:  {dir("z", 10), dir("a", 11), {Name: []byte("f"), Ino: 100}},
		10: {dir("y", 12), dir("up", 2)},
		11: {dir("b", 13), dir("a", 11)},
		12: {}, 13: {dir("up", 11)}, 14: {}, 15: {}, 16: {},
	}, err: map[uint64]error{15: disk.ErrCorrupt}}
	for _, c := range []struct {
		walk wire.Walk
		then []uint64
		want string
	}{
		{wire.NoWalk, nil, "[2]"},
		{wire.WalkDisk, nil, "[2 10 12 11 13]"},
		{wire.WalkNames, nil, "[2 11 13 10 12]"},
		{wire.WalkNames, []uint64{14, 2, 16}, "[2 11 13 10 12 14 16]"},
		{wire.WalkNames, []uint64{14, 15, 16}, "[2 11 13 10 12 14]"},
	} {
		req := wire.ReadDir{Node: wire.Node{Ino: 2}, Walk: c.walk, Then: c.then}
		answer, err := f.open().readDir(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		pages, err := wire.DecodeDirPages(answer, req, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, p := range pages {
			got = append(got, p.Ino)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("walk %d: %v, want %s", c.walk, got, c.want)
		}
	}
}

// Extents of a reader that breaks its promise are refused.
func TestBadExtents(t *testing.T) {
	for name, list := range map[string][]disk.Extent{
		"gap":      {{Length: 10}, {Offset: 20, Length: 80}},
		"overlap":  {{Length: 50}, {Offset: 40, Length: 60}},
		"short":    {{Length: 99}},
		"long":     {{Length: 101}},
		"negative": {{Length: -1}},
		"kind":     {{Length: 100, Kind: 3}},
	} {
		if _, err := listExtents(told(list), 0, 100, 10); !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := listExtents(told{{Length: 10}, {Offset: 10, Length: 0}, {Offset: 10, Length: 20}, {Offset: 30, Length: 70, Kind: disk.ExtentHole}}, 0, 100, 10)
	if err != nil || len(got) != 2 || got[0].Length != 30 {
		t.Errorf("neighbours are not merged: %v, %v", got, err)
	}
	got, err = listExtents(told{{Length: 10}, {Offset: 10, Length: 10, Kind: disk.ExtentHole}, {Offset: 20, Length: 80}}, 0, 100, 2)
	if err != nil || len(got) != 2 {
		t.Errorf("a list that is cut: %v, %v", got, err)
	}
}

// told is content of 100 bytes with given extents.
type told []disk.Extent

func (told) Size() int64                           { return 100 }
func (told) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (l told) Extents(_, _ int64, yield func(disk.Extent) error) error {
	for _, e := range l {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}
