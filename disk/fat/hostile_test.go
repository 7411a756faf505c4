package fat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

const (
	markBad = 0x0ffffff7
	markEnd = 0x0fffffff
)

// wantError checks that err is a disk.Error of this layer that wraps want and
// mentions text.
func wantError(t testing.TB, err, want error, text string) {
	t.Helper()
	var e *disk.Error
	if !errors.Is(err, want) || !errors.As(err, &e) || e.Layer != "fat" || e.Structure == "" || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want one that is %q and mentions %q", err, want, text)
	}
}

// chainOf returns the clusters of the file "pieces" of a seed.
func chainOf(t testing.TB, fs *fat.Filesystem, e *editor) (list []int) {
	t.Helper()
	f, err := fs.Open(disktest.Lookup(t, fs, "pieces"))
	if err != nil {
		t.Fatal(err)
	}
	err = f.(disk.Locator).Locate(0, f.Size(), func(l disk.Location) error {
		for off := int64(0); off < l.Length; off += 512 {
			list = append(list, (int(l.At+off)-e.data)/512+2)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestDamagedFile damages one file in each way: it is refused, and all others are
// as they were.
func TestDamagedFile(t *testing.T) {
	for _, v := range []struct {
		name, text string
		change     func(e *editor, entry []byte, chain []int)
	}{
		{"free", "is marked as free", func(e *editor, _ []byte, c []int) { e.set(c[5], 0) }},
		{"bad", "is marked as bad", func(e *editor, _ []byte, c []int) { e.set(c[5], markBad) }},
		{"to number 1", "leads to 1,", func(e *editor, _ []byte, c []int) { e.set(c[5], 1) }},
		{"too far", "leads to", func(e *editor, _ []byte, c []int) { e.set(c[5], uint32((len(e.raw)-e.data)/512+2)) }},
		{"reserved", "leads to", func(e *editor, _ []byte, c []int) { e.set(c[5], markBad-1) }},
		{"short", "end after 6", func(e *editor, _ []byte, c []int) { e.set(c[5], markEnd) }},
		{"to itself", "leads back", func(e *editor, _ []byte, c []int) { e.set(c[5], uint32(c[5])) }},
		{"to the first", "leads back", func(e *editor, _ []byte, c []int) { e.set(c[20], uint32(c[0])) }},
		{"circle", "leads back", func(e *editor, _ []byte, c []int) { e.set(c[12], uint32(c[7])) }},
		{"large circle", "leads back", func(e *editor, _ []byte, c []int) { e.set(c[39], uint32(c[1])) }},
		{"no cluster", "starts at cluster 0", func(_ *editor, n []byte, _ []int) { setStart(n, 0) }},
		{"starts too far", "starts at cluster", func(_ *editor, n []byte, _ []int) { setStart(n, 65000) }},
		{"too large", "does not fit", func(_ *editor, n []byte, _ []int) { setSize(n, 1<<32-1) }},
		{"larger than its clusters", "end after 41", func(_ *editor, n []byte, _ []int) { setSize(n, 41*512+1) }},
	} {
		for _, s := range seeds {
			t.Run(v.name+"/"+s.name, func(t *testing.T) {
				e := edit(t, s.name)
				want := make(map[string]string)
				if err := disktest.WalkLeniently(e.open(), func(p string, n disktest.Node) { want[p] = fmt.Sprint(n) }); err != nil {
					t.Fatal(err)
				}
				v.change(e, e.entry("PIECES     "), chainOf(t, e.open(), e))
				got := make(map[string]string)
				err := disktest.WalkLeniently(e.open(), func(p string, n disktest.Node) { got[p] = fmt.Sprint(n) })
				wantError(t, err, disk.ErrCorrupt, v.text)
				for path := range want {
					if path != "/pieces" && got[path] != want[path] {
						t.Errorf("%s is %s, was %s", path, got[path], want[path])
					}
				}
			})
		}
	}
}

// TestGoodClusters are odd, and right.
func TestGoodClusters(t *testing.T) {
	for _, s := range seeds {
		e := edit(t, s.name)
		c := chainOf(t, e.open(), e)
		e.set(c[len(c)-1], 0) // behind the end
		e.set(c[0], uint32(c[1])|0xf<<28)
		setStart(e.entry("EMPTY      "), c[0]) // without a use
		if s.bits != 32 {
			e.entry("PIECES     ")[0x14] = 7 // OS/2's
		}
		fs := e.open()
		if got := readAll(t, fs, disktest.Lookup(t, fs, "pieces")); !bytes.Equal(got, large(seedPieces)) {
			t.Errorf("%s: other content", s.name)
		}
		if got := readAll(t, fs, disktest.Lookup(t, fs, "empty")); len(got) != 0 {
			t.Errorf("%s: %d bytes in an empty file", s.name, len(got))
		}
		e.entry("README  TXT")[12] |= 1
		if n, err := e.open().Inode(disktest.Lookup(t, e.open(), "README.TXT")); err != nil || n.Flags != disk.FlagEncrypted {
			t.Errorf("%s: encrypted by Windows: %+v, %v", s.name, n, err)
		}
		// Two files may share clusters.
		setStart(e.entry("README  TXT"), c[3])
		fs = e.open()
		if got := readAll(t, fs, disktest.Lookup(t, fs, "README.TXT")); !bytes.Equal(got, large(seedPieces)[3*512:][:5]) {
			t.Errorf("%s: shared content is %q", s.name, got)
		}
	}
}

// TestDamagedDirectory: what is in the clusters of a directory must be one.
func TestDamagedDirectory(t *testing.T) {
	const many = "MANY       "
	for _, v := range []struct {
		name, text string
		change     func(e *editor)
	}{
		{"content of a file", "does not start", func(e *editor) { setStart(e.entry(many), start(e.entry("PIECES     "))) }},
		{"the middle of it", "does not start", func(e *editor) { setStart(e.entry(many), start(e.entry(many))+1) }},
		{"nothing", "does not start", func(e *editor) { clear(e.cluster(start(e.entry(many)))) }},
		{"only itself", "does not start", func(e *editor) { clear(e.cluster(start(e.entry(many)))[32:]) }},
		{"a file called dot", "does not start", func(e *editor) { e.cluster(start(e.entry(many)))[11] = 0x20 }},
		{"another parent", "does not start", func(e *editor) { e.cluster(start(e.entry(many)))[33] = 'X' }},
		{"no cluster", "starts at cluster 0", func(e *editor) { setStart(e.entry(many), 0) }},
		{"circle", "leads back", func(e *editor) { e.set(start(e.entry(many)), uint32(start(e.entry(many)))) }},
		{"free cluster", "is marked as free", func(e *editor) { e.set(start(e.entry(many)), 0) }},
		{"slash", "left out", func(e *editor) { e.entry("README  TXT")[3] = '/' }},
		{"control character", "left out", func(e *editor) { e.entry("README  TXT")[3] = 0x1f }},
		{"blank", "left out", func(e *editor) { copy(e.entry("README  TXT"), "           ") }},
		{"dot", "left out", func(e *editor) { copy(e.entry("README  TXT"), ".          ") }},
		{"dots", "left out", func(e *editor) { copy(e.entry("README  TXT"), "..         ") }},
	} {
		for _, s := range seeds {
			t.Run(v.name+"/"+s.name, func(t *testing.T) {
				e := edit(t, s.name)
				v.change(e)
				files := 0
				fs := e.open()
				ignore := func(disk.DirEntry) error { return nil }
				err := fs.ReadDir(disktest.Lookup(t, fs, "dir/many"), ignore)
				if err == nil {
					err = fs.ReadDir(fs.Info().Root, ignore)
				}
				wantError(t, err, disk.ErrCorrupt, v.text)
				err = disktest.WalkLeniently(fs, func(string, disktest.Node) { files++ })
				wantError(t, err, disk.ErrCorrupt, "")
				if files < 10 { // 30 without damage, 20 of them in dir/many
					t.Errorf("%d files are left", files)
				}
				readAll(t, fs, disktest.Lookup(t, fs, "pieces"))
			})
		}
	}
}

// TestSharedDirectory: of two directories that share clusters, one can be read.
func TestSharedDirectory(t *testing.T) {
	for name, change := range map[string]func(e *editor){
		"the same": func(e *editor) { setStart(e.entry("SUB        "), start(e.entry("MANY       "))) },
		"one behind": func(e *editor) {
			e.set(start(e.entry("SUB        ")), uint32(start(e.entry("MANY       "))))
			e.fill("SUB        ")
		},
		"the one above":   func(e *editor) { setStart(e.entry("SUB        "), start(e.entry("DIR        "))) },
		"the root itself": func(e *editor) { setStart(e.entry("SUB        "), int(binary.LittleEndian.Uint32(e.raw[0x2c:]))) },
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t, "fat32")
			change(e)
			names := make(map[string]int)
			err := disktest.WalkLeniently(e.open(), func(path string, _ disktest.Node) { names[path]++ })
			wantError(t, err, disk.ErrCorrupt, "as well")
			both := names["/dir/many/number 19, long"] + names["/dir/sub/number 19, long"]
			if both != 1 || names["/README.TXT"]+names["/dir/sub/README.TXT"] != 1 {
				t.Errorf("not once: %v", names)
			}
		})
	}
}

// fill makes the first cluster of a directory full.
func (e *editor) fill(short string) {
	for at := 64; at < 512; at += 32 {
		if p := e.cluster(start(e.entry(short)))[at:]; p[0] == 0 {
			p[0] = 0xe5
		}
	}
}

// TestDirectoryTooLong: the clusters of the largest directory that there may be
// are read, and no more.
func TestDirectoryTooLong(t *testing.T) {
	for _, extra := range []int{0, 1} {
		e, first := largeDirectory(t, 65536/16+extra, func(p []byte, i int) { copy(p, fmt.Sprintf("%-11d ", i)) })
		fs := e.open()
		names := 0
		err := fs.ReadDir(inodeOf(e, "DIR        "), func(disk.DirEntry) error { names++; return nil })
		if names != 65534 {
			t.Errorf("%d names from cluster %d on", names, first)
		}
		if extra == 0 && err != nil {
			t.Error(err)
		} else if extra != 0 {
			wantError(t, err, disk.ErrCorrupt, "more than 65536 entries")
		}
	}
}

// TestDirectoryBomb: 65,534 directories that all have the same 65,534 entries are
// four thousand million names on four megabytes. One of them is read.
func TestDirectoryBomb(t *testing.T) {
	e, first := largeDirectory(t, 65536/16, func(p []byte, i int) {
		copy(p, fmt.Sprintf("%-11d\x10", i))
		setStart(p, 3)
	})
	if first != 3 {
		t.Fatalf("the directory starts at cluster %d", first)
	}
	fs := e.open()
	var list []uint64
	dir := inodeOf(e, "DIR        ")
	if err := fs.ReadDir(dir, func(d disk.DirEntry) error { list = append(list, d.Ino); return nil }); err != nil || len(list) != 65534 {
		t.Fatalf("%d names, %v", len(list), err)
	}
	for _, ino := range list {
		err := fs.ReadDir(ino, func(disk.DirEntry) error { return errors.New("read again") })
		wantError(t, err, disk.ErrCorrupt, "as well")
	}
}

// inodeOf is the number of the file whose entry has a short name.
func inodeOf(e *editor, short string) uint64 {
	e.t.Helper()
	return uint64(e.root+bytes.Index(e.raw[e.root:], []byte(short))) / 32
}

// largeDirectory makes a FAT32 with a directory DIR of so many clusters, all of
// whose entries but the first two entry writes.
func largeDirectory(t *testing.T, clusters int, entry func(p []byte, i int)) (e *editor, first int) {
	t.Helper()
	image := makeImage(t, 34<<20, "-F", "32", "-s", "1")
	mtools(t, image, "mmd", "::/DIR")
	e = &editor{t: t, raw: make([]byte, 34<<20), bits: 32}
	if _, err := disktest.OpenImage(t, image).ReadAt(e.raw, 0); err != nil {
		t.Fatal(err)
	}
	e.fat = int(binary.LittleEndian.Uint16(e.raw[0x0e:])) * 512
	e.root = e.fat + 2*512*int(binary.LittleEndian.Uint32(e.raw[0x24:]))
	e.data = e.root
	first = start(e.entry("DIR        "))
	for i := range clusters {
		next := uint32(first + i + 1)
		if i == clusters-1 {
			next = markEnd
		}
		e.set(first+i, next)
		for at := range 16 {
			if i > 0 || at > 1 {
				entry(e.cluster(first + i)[32*at:][:32], i*16+at)
			}
		}
	}
	return e, first
}

// TestBadClusters: clusters marked as bad are in use, since Linux takes the mark for
// the end of a file.
func TestBadClusters(t *testing.T) {
	for _, s := range seeds {
		e := edit(t, s.name)
		before := used(t, e.open())
		c := chainOf(t, e.open(), e)
		free := c[len(c)-1] + 20
		e.set(free, markBad)
		if after := used(t, e.open()); after != before+512 {
			t.Errorf("%s: %d bytes in use, %d without the bad cluster", s.name, after, before)
		}
		e.set(free, markEnd)
		e.set(free+2, 1) // neither
		if after := used(t, e.open()); after != before+1024 {
			t.Errorf("%s: %d bytes in use, %d without two lost clusters", s.name, after, before)
		}
	}
}

// TestUnsound: where the guest did not unmount the filesystem, or noted errors,
// nothing is free for sure.
func TestUnsound(t *testing.T) {
	for _, s := range seeds {
		e := edit(t, s.name)
		if e.bits == 12 {
			continue // without a place for that in the table
		}
		for _, bit := range []int{1, 2} {
			e.set(1, markEnd&^(1<<(min(e.bits, 28)-bit)))
			err := e.open().Used(0, func(int64, int64) error { return nil })
			wantError(t, err, disk.ErrCorrupt, "did not unmount")
		}
	}
}

func used(t testing.TB, fs *fat.Filesystem) (total int64) {
	t.Helper()
	if err := fs.Used(0, func(_, length int64) error { total += length; return nil }); err != nil {
		t.Fatal(err)
	}
	return total
}

// TestLabels has the label in the forms that its directory entry can have.
func TestLabels(t *testing.T) {
	for raw, want := range map[string]string{
		"SEED       ":      "SEED",
		"           ":      "",
		"A LABEL 123":      "A LABEL 123",
		"  SPACES   ":      "  SPACES",
		"\x05UROPA     ":   "\xe5UROPA",      // as for names: E5 itself stands for no entry
		"\x1b[2J\x00/..  ": "\x1b[2J\x00/..", // hostile bytes
	} {
		e := edit(t, "fat16")
		label := e.raw[bytes.Index(e.raw, []byte("SEED       \x08")):]
		copy(label, raw)
		if got := e.open().Info().Label; string(got) != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
}
