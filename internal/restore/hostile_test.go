package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

var damage = &disk.Error{Layer: "fake", Structure: "inode", Offset: -1, Err: disk.ErrCorrupt}

func text(s string) treetest.Content { return treetest.Content{Data: []byte(s)} }

func reports(t *testing.T, rep restore.Report, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(strings.Join(rep.Warnings, "\n"), w) {
			t.Errorf("%q is not reported in %q", w, rep.Warnings)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func content(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is %q, %v; want %q", path, got, err, want)
	}
}

func TestNothingIsWrittenThroughLinksOfTheGuest(t *testing.T) {
	outside := t.TempDir()
	f := treetest.NewFake()
	// The same name twice, once as a symlink: the second is refused.
	f.Symlink(treetest.Root, "var", 3, outside)
	f.Dir(treetest.Root, "var", 4)
	f.File(4, "owned", 5, text("owned"))
	// A hardlink to a symlink, and attributes on one.
	f.Symlink(treetest.Root, "link", 6, filepath.Join(outside, "victim"))
	f.Add(treetest.Root, "other", 6, 0)
	n := f.Inodes[6]
	n.Links, n.UID = 2, 12345
	f.Inodes[6] = n
	f.Attrs[6] = []disk.Xattr{{Name: []byte("trusted.x"), Value: []byte("x")}}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	before := treetest.List(t, outside)
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, f, dst, restore.Options{})
	treetest.Compare(t, treetest.List(t, outside), before)
	reports(t, rep, "a name is there twice")
	if rep.Symlinks != 2 || rep.Links != 1 {
		t.Errorf("report %+v", rep)
	}
}

func TestNothingIsWrittenThroughLinksInTheTarget(t *testing.T) {
	outside, dst := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "file"), []byte("mine"), 0o640),
		os.Symlink(outside, filepath.Join(dst, "dir")),
		os.Symlink(filepath.Join(outside, "file"), filepath.Join(dst, "file")),
		os.Mkdir(filepath.Join(dst, "kept"), 0o700),
		os.WriteFile(filepath.Join(dst, "kept", "before"), []byte("before"), 0o600),
		os.Mkdir(filepath.Join(dst, "in the way"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f := treetest.NewFake()
	f.File(f.Dir(treetest.Root, "dir", 3), "file", 4, text("theirs"))
	f.File(treetest.Root, "file", 5, text("theirs"))
	f.File(f.Dir(treetest.Root, "kept", 6), "after", 7, text("after"))
	f.File(treetest.Root, "in the way", 8, text("no"))

	if _, err := restore.Run(t.Context(), f, dst, restore.Options{}); !errors.Is(err, restore.ErrTarget) {
		t.Errorf("a target that is not empty: %v", err)
	}
	before := treetest.List(t, outside)
	rep := run(t, f, dst, restore.Options{Overwrite: true})
	treetest.Compare(t, treetest.List(t, outside), before)
	content(t, filepath.Join(dst, "dir", "file"), "theirs")
	content(t, filepath.Join(dst, "file"), "theirs")
	content(t, filepath.Join(dst, "kept", "before"), "before")
	content(t, filepath.Join(dst, "kept", "after"), "after")
	reports(t, rep, "/in the way: ")
	if rep.Failed != 1 {
		t.Errorf("report %+v", rep)
	}
}

func TestNamesThatLeaveTheFolder(t *testing.T) {
	f := treetest.NewFake()
	for i, name := range []string{"..", ".", "../x", "/etc/passwd", "a/b", "", "nul\x00"} {
		f.File(treetest.Root, name, uint64(10+i), text("x"))
		f.File(f.Dir(treetest.Root, name+"/", uint64(50+i)), "in", uint64(90+i), text("x"))
	}
	f.File(treetest.Root, "good\x1b[2J", 200, treetest.Content{Data: []byte("xx"), BadFrom: 1, Err: damage})
	parent := t.TempDir()
	rep := run(t, f, filepath.Join(parent, "to"), restore.Options{})
	if rep.Failed != 15 || rep.Files+rep.Dirs != 0 {
		t.Errorf("report %+v", rep)
	}
	for _, w := range rep.Warnings {
		if strings.ContainsAny(w, "\x1b\x00\n") {
			t.Errorf("warning %q is not escaped", w)
		}
	}
	if got := names(t, parent); len(got) != 1 || len(names(t, filepath.Join(parent, "to"))) != 0 {
		t.Errorf("there is %q", got)
	}
}

func TestFoldersWithoutEnd(t *testing.T) {
	f := treetest.NewFake()
	f.Dir(f.Dir(f.Dir(treetest.Root, "a", 3), "b", 4), "again", 3)
	f.Dir(4, "root", treetest.Root)
	f.Add(treetest.Root, "odd", 5, 0o644)
	for i, name := range []string{"d", strings.Repeat("l", 250)} {
		deep := f.Dir(treetest.Root, "deep "+name[:1], uint64(10_000*(i+1)))
		for range 3000 {
			deep = f.Dir(deep, name, deep+1)
		}
	}
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, f, dst, restore.Options{})
	reports(t, rep, "/a/b/again: ", "/a/b/root: ", "two places", "/odd: ", "folders deep", "the path has")
	if rep.Failed != 5 || rep.Dirs != 2+2048+262 {
		t.Errorf("%d failed, %d folders", rep.Failed, rep.Dirs)
	}
}

func TestDamagedFilesCostThemselves(t *testing.T) {
	f := treetest.NewFake()
	f.File(treetest.Root, "bad", 3, treetest.Content{Data: make([]byte, 5<<20), BadFrom: 3 << 20, Err: damage})
	f.File(treetest.Root, "good", 4, text("good"))
	f.File(treetest.Root, "lost", 5, text("lost"))
	f.Fails[5] = damage
	f.File(treetest.Root, "short", 6, text("short"))
	n := f.Inodes[6]
	n.Size = 100
	f.Inodes[6] = n
	f.File(treetest.Root, "backwards", 7, treetest.Extents{{Length: 10}, {Offset: 5, Length: 10}})
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, f, dst, restore.Options{})
	reports(t, rep, "/bad: ", "/lost: ", "/short: ", "/backwards: ")
	if got := names(t, dst); len(got) != 1 || got[0] != "good" || rep.Failed != 4 || rep.Files != 1 {
		t.Errorf("there is %q; report %+v", got, rep)
	}
}

func TestALostSourceEndsTheRestore(t *testing.T) {
	f := treetest.NewFake()
	lost := errors.New("the disk reader died")
	f.File(f.Dir(treetest.Root, "dir", 5), "a", 3, treetest.Content{Data: make([]byte, 5<<20), BadFrom: 3 << 20, Err: lost})
	f.File(treetest.Root, "b", 4, text("b"))
	dst := filepath.Join(t.TempDir(), "to")
	_, err := restore.Run(t.Context(), f, dst, restore.Options{})
	if !errors.Is(err, lost) || !strings.HasSuffix(err.Error(), dst+": /dir/a: "+lost.Error()) {
		t.Errorf("error %v", err)
	}
	if got := names(t, dst); len(got) != 2 || got[0] != "b" || len(names(t, filepath.Join(dst, "dir"))) != 0 {
		t.Errorf("there is %q", got)
	}
}

func TestCalledOffLeavesNoPartialFile(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := treetest.NewFake()
	f.File(treetest.Root, "a", 3, text("whole"))
	reads := 0
	f.File(treetest.Root, "b", 4, treetest.Content{Data: bytes.Repeat([]byte("x"), 5<<20), OnRead: func() {
		if reads++; reads == 3 {
			cancel()
		}
	}})
	dst := filepath.Join(t.TempDir(), "to")
	if _, err := restore.Run(ctx, f, dst, restore.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := names(t, dst); len(got) != 1 || got[0] != "a" {
		t.Errorf("there is %q", got)
	}
}

func TestFullTarget(t *testing.T) {
	dst := testmount.Memory(t, "1m")
	f := treetest.NewFake()
	f.File(treetest.Root, "a", 3, treetest.Content{Data: bytes.Repeat([]byte("x"), 5<<20)})
	f.File(treetest.Root, "b", 4, text("b"))
	_, err := restore.Run(t.Context(), f, dst, restore.Options{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("error %v", err)
	}
	if got := names(t, dst); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
}

func TestHolesAreWhereTheSourceSays(t *testing.T) {
	const k = 1 << 10
	for name, layout := range map[string]treetest.Extents{
		"only a hole":       {{Length: 300 * k, Kind: disk.ExtentHole}},
		"hole, data, zeros": {{Length: 9<<20 + 1, Kind: disk.ExtentHole}, {Length: 5000}, {Length: 2<<20 + 7, Kind: disk.ExtentZero}},
		"data, hole, data":  {{Length: 100*k + 1}, {Length: 5 << 20, Kind: disk.ExtentHole}, {Length: 3<<20 - 5}},
		"zeros as data":     {{Length: 40 * k}, {Length: 64 * k, Kind: disk.ExtentHole}, {Length: 1}, {Length: 200 * k, Kind: disk.ExtentHole}, {Length: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			want := make([]byte, layout.Size())
			if _, err := layout.ReadAt(want, 0); err != nil {
				t.Fatal(err)
			}
			f := treetest.NewFake()
			f.File(treetest.Root, "told", 3, layout)
			f.File(treetest.Root, "all data", 4, treetest.Content{Data: want})
			dst := filepath.Join(t.TempDir(), "to")
			rep := run(t, f, dst, restore.Options{})
			for _, name := range []string{"told", "all data"} {
				got, err := os.ReadFile(filepath.Join(dst, name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
				}
			}
			data := int64(len(want))
			for _, e := range layout {
				if e.Kind == disk.ExtentData {
					data += e.Length
				}
			}
			if rep.Written != data {
				t.Errorf("%d bytes were written, want %d", rep.Written, data)
			}
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	f := treetest.NewFake()
	for i := range 1000 {
		f.Add(treetest.Root, fmt.Sprint(i), uint64(10+i), 0o644)
	}
	rep := run(t, f, filepath.Join(t.TempDir(), "to"), restore.Options{})
	if len(rep.Warnings) != 100 || rep.WarningsTotal != 1000 || rep.Failed != 1000 {
		t.Errorf("%d warnings of %d, %d failed", len(rep.Warnings), rep.WarningsTotal, rep.Failed)
	}
}

func TestSocketsAndSymlinkAttributes(t *testing.T) {
	f := treetest.NewFake()
	f.Add(treetest.Root, "socket", 3, disk.ModeSocket|0o640)
	f.Symlink(treetest.Root, "link", 4, "not\xffutf8")
	n := f.Inodes[4]
	n.UID, n.GID, n.Modify = 77, 88, disk.Time{Sec: -5, Nsec: 7}
	f.Inodes[4] = n
	f.Attrs[4] = []disk.Xattr{{Name: []byte("trusted.x"), Value: []byte("x")}, {Name: []byte("btrfs.y")}, {Name: []byte("user.no")}}
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, f, dst, restore.Options{})
	treetest.Compare(t, treetest.List(t, dst), []string{
		`"link" 120777 77:88 -5.000000007 → "not\xffutf8" trusted.x="x"`,
		`"socket" 140640 0:0 0.000000000`,
	})
	reports(t, rep, `/link: attribute "user.no"`)
	if rep.LeftOut.Xattrs != 1 || rep.Failed != 0 || rep.Specials != 1 {
		t.Errorf("report %+v", rep)
	}
}

// TestMuchOfLittle: what a repository has once and shows many times ends at a limit,
// with an error that says so.
func TestMuchOfLittle(t *testing.T) {
	f := treetest.NewFake()
	for i := range uint64(20) {
		d := f.Dir(treetest.Root, fmt.Sprintf("d%02d", i), 100+i)
		f.File(d, "file", 200+i, text("the same text"))
	}
	for name, c := range map[string]struct {
		opts restore.Options
		want string
	}{
		"entries": {restore.Options{MaxEntries: 30}, "more than 30 files and folders (restore a part of it)"},
		"bytes":   {restore.Options{MaxBytes: 100}, "files of more than 100 bytes (restore a part of it)"},
		"neither": {restore.Options{MaxEntries: 40, MaxBytes: 20 * 13}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := restore.Run(t.Context(), f, filepath.Join(t.TempDir(), "to"), c.opts)
			if c.want == "" && (err != nil || rep.Files != 20) {
				t.Errorf("%+v, %v", rep, err)
			}
			if c.want != "" && (!errors.Is(err, disk.ErrLimit) || !strings.Contains(err.Error(), c.want) || rep.Files > 10) {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
}
