package newimage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// TestSeveralAtOnce: a second one works beside the first, and clears away what is left of
// one that was killed.
func TestSeveralAtOnce(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "web.data")
	open := func() *workplace {
		t.Helper()
		w, err := openAnyWorkplace(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.begin(1 << 20); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first, second, third := open(), open(), open()
	if first.image == second.image || second.image == third.image {
		t.Fatalf("%s, %s and %s", first.image, second.image, third.image)
	}
	third.lock.Release() // as when the process is killed
	first.close()
	again := open()
	if again.image != first.image {
		t.Errorf("%s, want %s again", again.image, first.image)
	}
	if _, err := os.Lstat(third.image); !os.IsNotExist(err) {
		t.Errorf("of the one that was killed: %v", err)
	}
	if _, err := os.Lstat(second.image); err != nil {
		t.Errorf("of the one that works: %v", err)
	}
	again.close()
	second.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	var all []*workplace
	for range maxAtOnce {
		all = append(all, open())
	}
	if _, err := openAnyWorkplace(target); !errors.Is(err, ErrTarget) {
		t.Errorf("one too many: %v", err)
	}
	for _, w := range all {
		w.close()
	}
}

// TestPlacesThatMakeNoSense: what a reader says of a filesystem that lies is refused.
func TestPlacesThatMakeNoSense(t *testing.T) {
	const size = 16 * blockSize
	good := disk.Location{Offset: blockSize, Length: 2*blockSize + 1, At: 13 * blockSize}
	runs := func(list ...disk.Location) ([]Run, error) {
		l := &runList{size: size}
		for i, at := range list {
			if err := l.add(uint64(7+i/2), at); err != nil {
				return nil, err
			}
		}
		return l.runs, sortRuns(l.runs)
	}
	want := Run{Offset: 13 * blockSize, Length: 3 * blockSize, Ino: 7, At: blockSize}
	if got, err := runs(good); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(*disk.Location){
		"nowhere":            func(l *disk.Location) { l.Device = -1 },
		"on another disk":    func(l *disk.Location) { l.Device = 1 },
		"with checksums":     func(l *disk.Location) { l.Sums = &disk.Checksums{} },
		"within a block":     func(l *disk.Location) { l.At-- },
		"beyond the end":     func(l *disk.Location) { l.At += blockSize },
		"longer than a disk": func(l *disk.Location) { l.Length, l.At = size+1, 0 },
	} {
		bad := good
		change(&bad)
		if got, err := runs(bad); !errors.Is(err, errRuns) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	block := func(offset, at int64) disk.Location {
		return disk.Location{Offset: offset * blockSize, Length: blockSize, At: at * blockSize}
	}
	for name, c := range map[string]struct {
		list []disk.Location
		want int
	}{
		"what continues":      {[]disk.Location{block(0, 1), block(1, 2)}, 1},
		"what lies elsewhere": {[]disk.Location{block(0, 1), block(1, 5)}, 2},
		"what lies before":    {[]disk.Location{block(0, 1), block(1, 0)}, 2},
		"of another file":     {[]disk.Location{block(0, 1), block(1, 2), block(2, 3)}, 2},
	} {
		if got, err := runs(c.list...); err != nil || len(got) != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := runs(block(0, 1), block(1, 2), block(0, 2)); !errors.Is(err, errRuns) {
		t.Errorf("a block of two: %+v, %v", got, err)
	}
}

// lying is a file that says where it lies.
type lying struct {
	treetest.Content
	at int64
}

func (l lying) Locate(off, length int64, yield func(disk.Location) error) error {
	return yield(disk.Location{Offset: off, Length: length, At: l.at + off})
}

// TestFilesystemsThatLie: what is missing in the filesystem that was made is told, what is
// too much passed over, and a file of another size is an error, that is no damage of the
// backup.
func TestFilesystemsThatLie(t *testing.T) {
	content := treetest.Content{Data: make([]byte, 5000)}
	was, made := treetest.NewFake(), treetest.NewFake()
	for i, name := range []string{"good", "missing", "a folder", "damaged"} {
		was.File(treetest.Root, name, uint64(10+i), content)
	}
	was.File(was.Dir(treetest.Root, "lost", 20), "in it", 21, content)
	made.File(treetest.Root, "good", 100, lying{content, 3 * blockSize})
	made.File(treetest.Root, "too much", 101, lying{content, 9 * blockSize})
	made.Dir(treetest.Root, "a folder", 102)
	made.File(treetest.Root, "lost", 103, lying{content, 9 * blockSize})
	made.File(treetest.Root, "damaged", 104, lying{content, 6 * blockSize})
	for _, f := range []*treetest.Fake{was, made} {
		for dir, list := range f.Entries {
			for i := range list {
				inode := f.Inodes[list[i].Ino]
				f.Entries[dir][i].Type = inode.Type()
			}
		}
	}
	var missing []string
	m := newHollow(t.Context(), was, "", Options{
		Filesystem: "xfs", Size: 16 * blockSize,
		Read: func(context.Context, *os.File) (disk.Filesystem, func(), error) { return made, func() {}, nil },
		Warn: func(path []byte, _ string) { missing = append(missing, string(path)) },
	})
	if _, err := m.src.survey(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	runs, err := m.locate(os.DevNull)
	want := []Run{{Offset: 6 * blockSize, Length: 2 * blockSize, Ino: 13}, {Offset: 3 * blockSize, Length: 2 * blockSize, Ino: 10}}
	if err != nil || !slices.Equal(runs, want) {
		t.Errorf("%+v, %v, want %+v", runs, err, want)
	}
	if want := []string{"/a folder", "/lost", "/missing"}; !slices.Equal(missing, want) {
		t.Errorf("%q, want %q", missing, want)
	}
	m.warned = &warnings{}
	m.warned.add([]byte("/a folder"))
	m.warned.add([]byte("/missing"))
	if runs, err := m.locate(os.DevNull); err == nil || !strings.Contains(err.Error(), `left out "/lost" without a word`) {
		t.Errorf("what nobody has warned of: %+v, %v", runs, err)
	}
	missing = nil
	m.warned.add([]byte("/lost"))
	if _, err := m.locate(os.DevNull); err != nil || len(missing) > 0 {
		t.Errorf("what was warned of: %v, again of %q", err, missing)
	}
	made.Files[100] = lying{treetest.Content{Data: content.Data[:4999]}, 3 * blockSize}
	if runs, err := m.locate(os.DevNull); !errors.Is(err, errRuns) {
		t.Errorf("of another size: %+v, %v", runs, err)
	}
	made.Files[100] = unlocated{content}
	damage := (*disk.Error)(nil)
	if runs, err := m.locate(os.DevNull); err == nil || errors.As(err, &damage) {
		t.Errorf("that cannot be read: %+v, %v", runs, err)
	}
}

// unlocated is a file whose places cannot be read.
type unlocated struct{ treetest.Content }

func (unlocated) Locate(int64, int64, func(disk.Location) error) error {
	return &disk.Error{Layer: "made", Structure: "file", Offset: -1, Err: disk.ErrCorrupt}
}
