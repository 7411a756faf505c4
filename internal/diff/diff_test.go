package diff_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// run compares two trees, and returns the changes and what was damaged, as lines.
func run(t *testing.T, before, after disk.Filesystem, o diff.Options) (lines []string, s *diff.Summary) {
	t.Helper()
	o.Changed = func(c *diff.Change) error {
		lines = append(lines, fmt.Sprintf("%c%s %s", " +-~"[c.Kind], c.Path, c.What))
		return nil
	}
	o.Damaged = func(path []byte, err error) { lines = append(lines, fmt.Sprintf("!%s", path)) }
	s, err := diff.Run(t.Context(), diff.Side{FS: before}, diff.Side{FS: after}, o)
	if err != nil {
		t.Fatal(err)
	}
	return lines, s
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func file(text string) treetest.Content { return treetest.Content{Data: []byte(text)} }

// change makes an inode of a tree another.
func change(f *treetest.Fake, ino uint64, how func(*disk.Inode)) {
	n := f.Inodes[ino]
	how(&n)
	f.Inodes[ino] = n
}

func TestEveryDifference(t *testing.T) {
	tree := func() *treetest.Fake {
		f := treetest.NewFake()
		for i, name := range []string{"content", "ctime", "links", "mode", "owner", "same", "time", "xattrs"} {
			f.File(treetest.Root, name, uint64(10+i), file("12345"))
		}
		f.Symlink(treetest.Root, "target", 20, "a")
		f.Add(treetest.Root, "device", 21, disk.ModeChar|0o600)
		f.Dir(treetest.Root, "folder", 22)
		f.Dir(treetest.Root, "type", 23)
		f.File(23, "below", 24, file("1"))
		return f
	}
	a, b := tree(), tree()
	b.Files[10] = file("54321")
	change(b, 10, func(n *disk.Inode) { n.Modify.Nsec = 1 })
	change(b, 11, func(n *disk.Inode) { n.Change.Sec = 1 })
	change(b, 12, func(n *disk.Inode) { n.Links = 2 })
	change(b, 13, func(n *disk.Inode) { n.Mode |= 0o4000; n.Change.Sec = 1 })
	change(b, 14, func(n *disk.Inode) { n.GID = 7 })
	change(b, 16, func(n *disk.Inode) { n.Modify.Sec = -1 })
	b.Attrs[17] = []disk.Xattr{{Name: []byte("user.a"), Value: []byte{}}}
	b.Targets[20] = "b"
	change(b, 21, func(n *disk.Inode) { n.Rdev.Minor = 3 })
	change(b, 22, func(n *disk.Inode) { n.Modify.Sec = 5; n.Links = 9; n.Size = 4096 })
	change(b, 23, func(n *disk.Inode) { n.Mode = disk.ModeFIFO })
	delete(b.Entries, 23)

	want := []string{"~/content content,time", "~/ctime ctime", "~/device device", "~/links links", "~/mode mode", "~/owner owner",
		"~/target target", "~/time content,time", "~/type type", "-/type/below", "~/xattrs xattrs"}
	got, s := run(t, a, b, diff.Options{})
	check(t, got, want...)
	if s.Changed.Files != 7 || s.Changed.Others != 3 || s.Removed.Files != 1 || s.Content.Files != 2 || s.Damaged != 0 {
		t.Errorf("%+v", s)
	}
	// What is read is not suspected.
	want[7] = "~/time time"
	want = slices.Insert(slices.Delete(want, 1, 2), 3-1, "~/folder time")
	got, _ = run(t, a, b, diff.Options{Content: true, FolderTimes: true})
	slices.Sort(got)
	slices.Sort(want)
	check(t, got, want...)
}

// TestHugeFilesAreCounted: a guest makes files of 8 EiB with a truncate, as many as it likes.
func TestHugeFilesAreCounted(t *testing.T) {
	after := treetest.NewFake()
	for i, name := range []string{"a", "b", "c"} {
		after.File(treetest.Root, name, uint64(10+i), file("12345"))
		change(after, uint64(10+i), func(n *disk.Inode) { n.Size = math.MaxInt64 })
	}
	_, s := run(t, treetest.NewFake(), after, diff.Options{})
	s.Add(s)
	if want := (diff.Count{Files: 6, Bytes: math.MaxInt64}); s.Added != want {
		t.Errorf("%+v, want %+v", s.Added, want)
	}
}

// identified is a tree whose folders and files have identities.
type identified struct {
	*treetest.Fake
	ids    map[uint64]byte
	listed int
}

func (f *identified) Identity(ino uint64) ([32]byte, bool) {
	id, ok := f.ids[ino]
	return [32]byte{id}, ok
}

func (f *identified) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	f.listed++
	return f.Fake.ReadDir(ino, yield)
}

func TestWhatIsIdenticalIsNotLookedAt(t *testing.T) {
	tree := func(id byte) *identified {
		f := &identified{Fake: treetest.NewFake(), ids: map[uint64]byte{treetest.Root: id, 3: 50, 4: 60, 5: id, 6: 70}}
		f.Dir(treetest.Root, "same", 3)
		f.Dir(3, "below", 9)
		f.File(treetest.Root, "touched", 4, file("x"))
		f.File(treetest.Root, "written", 5, file("x"))
		f.Dir(treetest.Root, "mode", 6)
		return f
	}
	a, b := tree(1), tree(2)
	change(b.Fake, 4, func(n *disk.Inode) { n.Modify.Sec = 9 })
	change(b.Fake, 6, func(n *disk.Inode) { n.Mode |= 0o002 })
	got, _ := run(t, a, b, diff.Options{})
	check(t, got, "~/mode mode", "~/touched time", "~/written content")
	if a.listed != 1 || b.listed != 1 {
		t.Errorf("%d and %d folders were listed, want 1", a.listed, b.listed)
	}
	if got, _ = run(t, a, b, diff.Options{Content: true}); slices.Contains(got, "~/written content") {
		t.Errorf("the same bytes in other pieces differ: %q", got)
	}
}

// TestContentIsComparedWithoutReadingHoles compares files of a TiB with a few bytes
// of data, which must end within the test's patience.
func TestContentIsComparedWithoutReadingHoles(t *testing.T) {
	const end = 1 << 40
	hole := func(n int64) disk.Extent { return disk.Extent{Length: n, Kind: disk.ExtentHole} }
	data := func(n int64) disk.Extent { return disk.Extent{Length: n} }
	zero := func(n int64) disk.Extent { return disk.Extent{Length: n, Kind: disk.ExtentZero} }
	for name, c := range map[string]struct {
		a, b treetest.Extents
		same bool
	}{
		"the same":     {treetest.Extents{hole(end), data(5), hole(7)}, treetest.Extents{zero(9), hole(end - 9), data(5), hole(7)}, true},
		"all holes":    {treetest.Extents{hole(end)}, treetest.Extents{zero(1), hole(end - 1)}, true},
		"data earlier": {treetest.Extents{hole(end), data(5)}, treetest.Extents{hole(end - 1), data(6)}, false},
		"data more":    {treetest.Extents{data(5), hole(end)}, treetest.Extents{data(5), hole(end - 3), data(3)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := treetest.NewFake(), treetest.NewFake()
			a.File(treetest.Root, "f", 3, whole{c.a})
			b.File(treetest.Root, "f", 3, whole{c.b})
			got, s := run(t, a, b, diff.Options{Content: true})
			if (len(got) == 0) != c.same || s.Damaged != 0 {
				t.Errorf("got %q", got)
			}
		})
	}
}

// whole is extents that can be asked for a part of them.
type whole struct{ list treetest.Extents }

func (w whole) Size() int64 { return w.list.Size() }

func (w whole) ReadAt(p []byte, off int64) (int, error) { return w.list.ReadAt(p, off) }

func (w whole) Extents(off, length int64, yield func(disk.Extent) error) error {
	var at int64
	for _, e := range w.list {
		start, end := max(at, off), min(at+e.Length, off+length)
		at += e.Length
		if start >= end {
			continue
		}
		if err := yield(disk.Extent{Offset: start, Length: end - start, Kind: e.Kind}); err != nil {
			return err
		}
	}
	return nil
}

func TestDamageCostsOneFile(t *testing.T) {
	bad := &disk.Error{Layer: "fake", Structure: "it", Offset: -1, Err: disk.ErrCorrupt}
	tree := func() *treetest.Fake {
		f := treetest.NewFake()
		f.File(treetest.Root, "bad", 3, file("x"))
		f.File(treetest.Root, "unreadable", 4, treetest.Content{Data: []byte("xyz"), BadFrom: 1, Err: bad})
		f.Dir(treetest.Root, "loop", 5)
		f.Dir(5, "again", 5)
		return f
	}
	a, b := tree(), tree()
	b.Fails[3] = bad
	change(b, 4, func(n *disk.Inode) { n.Modify.Sec = 2 })
	b.File(treetest.Root, "more", 6, file("1"))
	got, s := run(t, a, b, diff.Options{Content: true})
	check(t, got, "!/bad", "!/loop/again", "!/loop/again", "+/more", "!/unreadable", "~/unreadable time")
	if s.Damaged != 4 {
		t.Errorf("%+v", s)
	}
	// What is no damage ends it.
	b.Fails[3] = errors.New("the reader died")
	if _, err := diff.Run(t.Context(), diff.Side{FS: a}, diff.Side{FS: b}, diff.Options{}); !errors.Is(err, b.Fails[3]) {
		t.Errorf("error %v", err)
	}
	stop := errors.New("stop")
	delete(b.Fails, 3)
	_, err := diff.Run(t.Context(), diff.Side{FS: a}, diff.Side{FS: b}, diff.Options{Changed: func(*diff.Change) error { return stop }})
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
}

func TestDepthIsBounded(t *testing.T) {
	f := treetest.NewFake()
	for i := uint64(0); i < 3000; i++ {
		f.Dir(treetest.Root+i, "d", treetest.Root+i+1)
	}
	got, s := run(t, treetest.NewFake(), f, diff.Options{})
	if n := len(got); s.Damaged != 1 || n < 2000 || n > 2100 || !strings.HasPrefix(got[n-1], "!/d/d/") {
		t.Errorf("%d lines, %+v", n, s)
	}
}

func TestChoices(t *testing.T) {
	tree := func() *treetest.Fake {
		f := treetest.NewFake()
		for i, name := range []string{"always", "both", "never", "through"} {
			dir := f.Dir(treetest.Root, name, uint64(10+i))
			f.File(dir, "f", 20+dir, file(name))
		}
		return f
	}
	choose := func(path []byte, _ bool) diff.Choice {
		name, _, _ := bytes.Cut(path, []byte("/"))
		switch {
		case string(path) == "through":
			return diff.Through
		case string(name) == "both":
			return diff.IfInBoth
		case string(name) == "never":
			return diff.Never
		}
		return diff.Always
	}
	a, b := treetest.NewFake(), tree()
	got, _ := run(t, a, b, diff.Options{Select: choose})
	check(t, got, "+/always", "+/always/f", "+/through/f")
	a = tree()
	for _, ino := range []uint64{30, 31, 32, 33} {
		change(a, ino, func(n *disk.Inode) { n.Mode = disk.ModeRegular })
	}
	got, _ = run(t, a, b, diff.Options{Select: choose})
	check(t, got, "~/always/f mode", "~/both/f mode", "~/through/f mode")
}
