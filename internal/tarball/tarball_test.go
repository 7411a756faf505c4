package tarball_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/tarball"
)

// filesystem makes an ext4 of a folder and opens it.
func filesystem(t *testing.T, dir string) disk.Filesystem {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	c := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-I", "512", "-d", dir, path, "128M")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := raw.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := ext4.Open(d, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func write(t *testing.T, fsys disk.Filesystem, path string) ([]byte, tarball.Report) {
	t.Helper()
	var b bytes.Buffer
	rep, err := tarball.Write(t.Context(), &b, fsys, []byte(path), tarball.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), rep
}

// unpack lets the real tar unpack an archive.
func unpack(t *testing.T, archive []byte) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), "tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "--warning=no-timestamp", "-C", dir)
	c.Stdin = bytes.NewReader(archive)
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

// members reads an archive with archive/tar, but of each member no more than the
// first 128 MiB.
func members(t *testing.T, archive []byte) map[string]*tar.Header {
	t.Helper()
	all := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 128<<20)); err != nil {
			t.Fatal(err)
		}
		all[h.Name] = h
	}
}

func TestRoundTrip(t *testing.T) {
	src := treetest.Make(t, treetest.Without{Nanoseconds: true}) // mke2fs keeps none
	fsys := filesystem(t, src)
	archive, rep := write(t, fsys, "/")
	got := treetest.List(t, unpack(t, archive))
	want := slices.DeleteFunc(treetest.List(t, src), func(line string) bool { return strings.HasPrefix(line, `"etc/socket"`) })
	treetest.Compare(t, got, want)
	if rep.Sockets != 1 || rep.Links != 3 || rep.Damaged != 0 || rep.WarningsTotal != 0 {
		t.Errorf("report %+v", rep)
	}
	if len(archive) > 10<<20 {
		t.Errorf("the archive has %d bytes: the holes are in it", len(archive))
	}
	again, _ := write(t, fsys, "/")
	if !bytes.Equal(archive, again) {
		t.Error("the same tree made two archives")
	}
	if h := members(t, archive)["sparse"]; h == nil || h.Size != treetest.SparseSize || h.Uid != 4_000_000 || h.PAXRecords["SCHILY.xattr.user.comment"] == "" {
		t.Errorf("archive/tar reads %+v", h)
	}
}

func TestPartOfATree(t *testing.T) {
	fsys := filesystem(t, treetest.Make(t, treetest.Without{}))
	for path, want := range map[string][]string{
		"/var/lib/app/letter.txt": {"var/lib/app/letter.txt"},
		"//var/lib/":              {"var/lib/", "var/lib/app/", "var/lib/app/letter.txt"},
	} {
		archive, _ := write(t, fsys, path)
		var got []string
		for name := range members(t, archive) {
			got = append(got, name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if _, err := tarball.Write(t.Context(), io.Discard, fsys, []byte("/nothing"), tarball.Options{}); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

var damage = &disk.Error{Layer: "fake", Structure: "inode", Offset: -1, Err: disk.ErrCorrupt}

func TestDamagedFilesCostThemselves(t *testing.T) {
	f := treetest.NewFake()
	large := bytes.Repeat([]byte("x"), 4<<20)
	f.File(treetest.Root, "a small", 3, treetest.Content{Data: large[:1000], BadFrom: 10, Err: damage})
	f.File(treetest.Root, "b large", 4, treetest.Content{Data: large, BadFrom: 3 << 20, Err: damage})
	f.File(treetest.Root, "c lost", 5, treetest.Content{Data: large})
	f.Fails[5] = damage
	f.File(treetest.Root, "d good", 6, treetest.Content{Data: large})
	f.File(treetest.Root, "e backwards", 7, treetest.Extents{{Length: 2 << 20}, {Offset: 5, Length: 10}})
	f.Add(treetest.Root, "f odd", 8, 0o644)
	f.Add(treetest.Root, "g device", 9, disk.ModeChar)
	f.Inodes[9] = disk.Inode{Ino: 9, Mode: disk.ModeChar, Rdev: disk.Device{Major: 1<<32 - 1}}
	archive, rep := write(t, f, "/")
	dir := unpack(t, archive)
	got, err := os.ReadFile(filepath.Join(dir, "b large"))
	if err != nil || !bytes.Equal(got, append(large[:3<<20:3<<20], make([]byte, 1<<20)...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "d good")); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if all := members(t, archive); len(all) != 2 || rep.Damaged != 6 || rep.Files != 2 {
		t.Errorf("%d members; report %+v", len(all), rep)
	}
	if w := strings.Join(rep.Warnings, "\n"); !strings.Contains(w, "/b large: it is damaged, and some or all of its bytes from 3145728 on are zeros") {
		t.Errorf("warnings %s", w)
	}
}

func TestAnArchiveThatIsNotWholeHasNoEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lost := errors.New("the disk reader died")
	for name, c := range map[string]struct {
		content treetest.Content
		want    error
	}{
		"called off":  {treetest.Content{Data: make([]byte, 4<<20), OnRead: cancel}, context.Canceled},
		"lost source": {treetest.Content{Data: make([]byte, 4<<20), BadFrom: 2 << 20, Err: lost}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			f := treetest.NewFake()
			f.File(treetest.Root, "a", 3, c.content)
			use := t.Context()
			if c.want == context.Canceled {
				use = ctx
			}
			var b bytes.Buffer
			if _, err := tarball.Write(use, &b, f, []byte("/"), tarball.Options{}); !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
			cmd := exec.CommandContext(t.Context(), "tar", "-t")
			if cmd.Stdin = &b; b.Len() > 0 && cmd.Run() == nil {
				t.Error("tar takes it for whole")
			}
		})
	}
}

func TestHostileTree(t *testing.T) {
	f := treetest.NewFake()
	for i, name := range []string{"..", ".", "../x", "/etc/passwd", "a/b", "", "nul\x00"} {
		f.File(treetest.Root, name, uint64(10+i), treetest.Content{})
	}
	f.Dir(f.Dir(treetest.Root, "dir", 3), "again", 3)
	f.Dir(3, "root", treetest.Root)
	deep := f.Dir(treetest.Root, "deep", 100)
	for range 3000 {
		deep = f.Dir(deep, strings.Repeat("d", 200), deep+1)
	}
	f.File(treetest.Root, "huge", 5, treetest.Extents{{Length: 1<<62 + 1, Kind: disk.ExtentHole}})
	f.Symlink(treetest.Root, "link", 6, strings.Repeat("l", 1<<20))
	f.File(treetest.Root, "attrs", 7, treetest.Content{})
	for i := range 20 {
		f.Attrs[7] = append(f.Attrs[7], disk.Xattr{Name: fmt.Appendf(nil, "user.%%=%d", i), Value: make([]byte, 60<<10)})
	}
	f.Attrs[7] = append(f.Attrs[7], disk.Xattr{Name: []byte("user.\x00")})
	archive, rep := write(t, f, "/")
	all := members(t, archive)
	for name := range all {
		if !filepath.IsLocal(name) || strings.Contains(name, "..") {
			t.Errorf("there is %q", name)
		}
	}
	if h := all["huge"]; h == nil || h.Size != 1<<62+1 || len(archive) > 64<<20 {
		t.Errorf("huge: %+v", h)
	}
	if h := all["attrs"]; h == nil || len(h.PAXRecords["SCHILY.xattr.user.%25%3D0"]) != 60<<10 {
		t.Errorf("attrs: %+v", h)
	}
	if rep.Damaged != 7+2+1+1 {
		t.Errorf("report %+v", rep)
	}
}

func TestHoles(t *testing.T) {
	const k = 1 << 10
	hole := func(n int64) disk.Extent { return disk.Extent{Length: n, Kind: disk.ExtentHole} }
	data := func(n int64) disk.Extent { return disk.Extent{Length: n} }
	for name, layout := range map[string]treetest.Extents{
		"only a hole":        {hole(5<<20 + 3)},
		"hole at the end":    {data(2<<20 + 1), hole(9 << 20)},
		"hole at the front":  {hole(9 << 20), data(2<<20 + 1)},
		"in the middle":      {data(5), hole(2 << 20), data(7), {Length: 3 << 20, Kind: disk.ExtentZero}, data(1)},
		"too small to keep":  {hole(5), data(1 << 20), hole(60 * k), data(9), hole(3 * k)},
		"small ones at ends": {hole(5 * k), data(1 << 20), hole(600 * k), data(9), hole(3 * k)},
	} {
		t.Run(name, func(t *testing.T) {
			f := treetest.NewFake()
			f.File(treetest.Root, "ä", 3, layout)
			f.File(treetest.Root, "behind", 4, treetest.Content{Data: []byte("behind")})
			n := f.Inodes[3]
			n.UID, n.Modify = 1<<31, disk.Time{Sec: -2, Nsec: 250_000_000}
			f.Inodes[3] = n
			archive, _ := write(t, f, "/")
			want := make([]byte, layout.Size())
			layout.ReadAt(want, 0)
			dir := unpack(t, archive)
			if got, err := os.ReadFile(filepath.Join(dir, "ä")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
			}
			if got, err := os.ReadFile(filepath.Join(dir, "behind")); err != nil || string(got) != "behind" {
				t.Errorf("what is behind: %q, %v", got, err)
			}
			list := treetest.List(t, dir)
			if len(list) != 2 || !strings.HasPrefix(list[1], `"ä" 100644 2147483648:0 -2.250000000 `) {
				t.Errorf("there is %q", list)
			}
			members(t, archive)
		})
	}
}
