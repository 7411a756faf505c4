package iso9660_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/iso9660"
)

var le = binary.LittleEndian

// wantError checks that err is a disk.Error of this layer that wraps want and
// mentions text.
func wantError(t testing.TB, err, want error, text string) {
	t.Helper()
	var e *disk.Error
	if !errors.Is(err, want) || !errors.As(err, &e) || e.Layer != "iso9660" || e.Structure == "" || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want one that is %q and mentions %q", err, want, text)
	}
}

// TestDamagedEntry damages one file in each way: it is refused, or left out, and all
// others are as they were.
func TestDamagedEntry(t *testing.T) {
	long := strings.Repeat("n", 200) // the symlink of the seed
	for _, v := range []struct {
		name, path string
		want       error
		text       string
		change     func(e *editor, record []byte)
	}{
		{"behind the end", "pieces.a", disk.ErrCorrupt, "do not lie on the disk", func(_ *editor, r []byte) { setBlock(r, 1<<31) }},
		{"over the end", "pieces.a", disk.ErrCorrupt, "do not lie on the disk", func(_ *editor, r []byte) { setSize(r, 1<<32-1) }},
		{"interleaved", "pieces.a", disk.ErrUnsupported, "interleaved", func(_ *editor, r []byte) { r[26] = 1 }},
		{"no other extent", "pieces.a", disk.ErrCorrupt, "extent number 2", func(_ *editor, r []byte) { r[25] |= 0x80 }},
		{"compressed", "pieces.a", disk.ErrUnsupported, "zisofs", func(e *editor, r []byte) { zisofs(e.entry(r, "TF")) }},
		{"sparse", "pieces.a", disk.ErrUnsupported, "sparse", func(e *editor, r []byte) { copy(e.entry(r, "TF"), "SF") }},
		{"mode of a directory", "pieces.a", disk.ErrCorrupt, "mode is 40", func(e *editor, r []byte) { le.PutUint32(e.entry(r, "PX")[4:], 0o40755) }},
		{"mode of no type", "pieces.a", disk.ErrCorrupt, "mode is 755", func(e *editor, r []byte) { le.PutUint32(e.entry(r, "PX")[4:], 0o755) }},
		{"entry too long", "pieces.a", disk.ErrCorrupt, "system use entry of 255", func(e *editor, r []byte) { e.entry(r, "PX")[2] = 255 }},
		{"entry too short", "pieces.a", disk.ErrCorrupt, "system use entry of 3", func(e *editor, r []byte) { e.entry(r, "PX")[2] = 3 }},
		{"PX too short", "pieces.a", disk.ErrCorrupt, "PX entry is too short", func(e *editor, r []byte) { e.entry(r, "PX")[2] = 20 }},
		{"name of the host", "pieces.a", disk.ErrCorrupt, "keeps for itself", func(e *editor, r []byte) { e.entry(r, "NM")[4] = 0x20 }},
		{"slash in the name", "pieces.a", disk.ErrCorrupt, "slash", func(e *editor, r []byte) { e.entry(r, "NM")[6] = '/' }},
		{"no symlink's target", long, disk.ErrCorrupt, "without a target", func(e *editor, r []byte) { copy(e.entry(r, "SL"), "XX") }},
		{"component too long", long, disk.ErrCorrupt, "ends within a component", func(e *editor, r []byte) { e.entry(r, "SL")[8] = 255 }},
		{"unknown component", long, disk.ErrCorrupt, "not known", func(e *editor, r []byte) { e.entry(r, "SL")[7] = 0x40 }},
		{"continues far away", long, disk.ErrCorrupt, "not within a sector", func(e *editor, r []byte) { le.PutUint32(e.continuation(r)[4:], 1<<30) }},
		{"continues over a sector", long, disk.ErrCorrupt, "not within a sector", func(e *editor, r []byte) { le.PutUint32(e.continuation(r)[20:], 3000) }},
		{"not moved there", "1/2/3/4/5/6/7/8", disk.ErrCorrupt, "does not begin with", func(e *editor, r []byte) { le.PutUint32(e.entry(r, "CL")[4:], 18) }},
		{"moved behind the end", "1/2/3/4/5/6/7/8", disk.ErrCorrupt, "would begin at", func(e *editor, r []byte) { le.PutUint32(e.entry(r, "CL")[4:], 1<<31) }},
		{"directory behind the end", "dir/many", disk.ErrCorrupt, "do not lie on the disk", func(_ *editor, r []byte) { setBlock(r, 1<<31) }},
		{"directory in content", "dir/many", disk.ErrCorrupt, "in a directory record of 97", func(e *editor, r []byte) { setBlock(r, block(e.record("pieces.a"))) }},
		{"directory in a circle", "dir/many", disk.ErrCorrupt, "is one of directory", func(e *editor, r []byte) { setBlock(r, block(e.record("dir"))) }},
	} {
		t.Run(v.name, func(t *testing.T) {
			e := edit(t, "rockridge")
			want := paths(e.open())
			r := e.record(v.path)
			v.change(e, r)
			fs := e.open()
			got := make(map[string]string)
			err := disktest.WalkLeniently(fs, func(p string, n disktest.Node) { got[p] = fmt.Sprint(n) })
			wantError(t, err, v.want, v.text)
			for p, n := range want {
				own := p == "/"+v.path || strings.HasPrefix(p, "/"+v.path+"/")
				if !own && got[p] != n && !strings.HasPrefix("/"+v.path, p) {
					t.Errorf("%q is %s, want %s", p, got[p], n)
				}
			}
		})
	}
}

// zisofs makes an entry of at least 16 bytes that of a compressed file.
func zisofs(entry []byte) {
	copy(entry, "ZF")
	le.PutUint32(entry[8:], 1_000_000)
}

// paths returns all that can be read of a filesystem.
func paths(fs disk.Filesystem) map[string]string {
	all := make(map[string]string)
	disktest.WalkLeniently(fs, func(p string, n disktest.Node) { all[p] = fmt.Sprint(n) })
	return all
}

// continuation returns the CE of a record's own area.
func (e *editor) continuation(record []byte) []byte {
	e.t.Helper()
	use := record[(33+int(record[32])+1)&^1:]
	for len(use) >= 4 && string(use[:2]) != "CE" {
		use = use[use[2]:]
	}
	return use[:use[2]]
}

// TestContinuationCircle lets system use go on in itself.
func TestContinuationCircle(t *testing.T) {
	e := edit(t, "rockridge")
	r := e.record(strings.Repeat("n", 200))
	ce := e.continuation(r)
	at := le.Uint32(ce[4:])*2048 + le.Uint32(ce[12:])
	copy(e.raw[at:], ce)
	le.PutUint32(ce[20:], uint32(len(ce)))
	le.PutUint32(e.raw[at+20:], uint32(len(ce)))
	err := disktest.WalkLeniently(e.open(), func(string, disktest.Node) {})
	wantError(t, err, disk.ErrCorrupt, "more than 32")
}

// TestManyEntries fills a continuation area with entries that say nothing.
func TestManyEntries(t *testing.T) {
	e := edit(t, "rockridge")
	r := e.record(strings.Repeat("n", 200))
	ce := e.continuation(r)
	at := le.Uint32(ce[4:]) * 2048
	le.PutUint32(ce[12:], 0)
	le.PutUint32(ce[20:], 2048)
	copy(e.raw[at:], bytes.Repeat([]byte{'X', 'X', 4, 1}, 512))
	err := disktest.WalkLeniently(e.open(), func(string, disktest.Node) {})
	wantError(t, err, disk.ErrCorrupt, "more than 256")
}

// TestSharedDirectory lets two directories have the same blocks: the first has them.
func TestSharedDirectory(t *testing.T) {
	for _, s := range seeds {
		e := edit(t, s.name)
		many, sub := e.record("dir/many"), e.record("dir/sub")
		copy(sub[2:18], many[2:18])
		fs := e.open()
		first := disktest.Lookup(t, fs, "dir/many")
		second := disktest.Lookup(t, fs, "dir/sub")
		count := 0
		if err := fs.ReadDir(first, func(disk.DirEntry) error { count++; return nil }); err != nil || count != 50 {
			t.Errorf("%d entries, %v", count, err)
		}
		wantError(t, fs.ReadDir(second, func(disk.DirEntry) error { return nil }), disk.ErrCorrupt, fmt.Sprintf("is one of directory %d", first))
	}
}

// TestExtents reads a file of two extents: two records with one name.
func TestExtents(t *testing.T) {
	e := edit(t, "plain")
	first, second := e.record("pieces.a"), e.record("pieces.b")
	copy(second[33:], first[33:33+int(first[32])])
	first[25] |= 0x80
	fs := e.open()
	want := seedTree()
	content := slices.Concat(want["pieces.a"], want["pieces.b"])
	all := disktest.ReadTree(t, fs)
	n, ok := all["/pieces.a"]
	if !ok || n.Size != int64(len(content)) {
		t.Fatalf("%+v", n)
	}
	f, err := fs.Open(n.Ino)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, f, content)
	if located, _ := disktest.CheckLocations(t, e.image(), fs); located == 0 {
		t.Error("nothing was located")
	}
	count := 0
	if err := fs.ReadDir(fs.Info().Root, func(d disk.DirEntry) error {
		if string(d.Name) == "pieces.a" {
			count++
		}
		return nil
	}); err != nil || count != 1 {
		t.Errorf("%d entries, %v", count, err)
	}
}

// TestDescriptors checks what is refused, and what is not.
func TestDescriptors(t *testing.T) {
	at := func(n int) int { return (16 + n) * 2048 }
	for _, v := range []struct {
		name   string
		change func(b []byte)
		want   error
		text   string
	}{
		{"nothing", func(b []byte) { clear(b[at(0):][:2048]) }, disk.ErrCorrupt, "CD001"},
		{"version", func(b []byte) { b[at(0)+6] = 2 }, disk.ErrCorrupt, "CD001"},
		{"no primary one", func(b []byte) { b[at(0)] = 9 }, disk.ErrCorrupt, "without a primary one"},
		{"blocks of 0", func(b []byte) { le.PutUint16(b[at(0)+128:], 0) }, disk.ErrCorrupt, "blocks of 0 bytes"},
		{"blocks of 4096", func(b []byte) { le.PutUint16(b[at(0)+128:], 4096) }, disk.ErrCorrupt, "blocks of 4096 bytes"},
		{"no end", func(b []byte) {
			for i := 1; at(i) < len(b); i++ {
				copy(b[at(i):], b[at(0):][:2048])
			}
		}, disk.ErrLimit, "more than 64"},
	} {
		t.Run(v.name, func(t *testing.T) {
			e := edit(t, "plain")
			v.change(e.raw)
			_, err := open(e.image())
			wantError(t, err, v.want, v.text)
		})
	}
	e := edit(t, "rockridge")
	want := paths(e.open())
	for i := 1; i < 8; i++ { // the terminator, and what genisoimage has behind it
		if e.raw[at(i)] == 255 {
			clear(e.raw[at(i):][:2048])
		}
	}
	if got := paths(e.open()); len(got) != len(want) {
		t.Errorf("without a terminator there are %d files of %d", len(got), len(want))
	}
}

// TestCutShort says that an image is not whole.
func TestCutShort(t *testing.T) {
	e := edit(t, "plain")
	e.raw = e.raw[:len(e.raw)-2048]
	if remarks := e.open().Info().Remarks; len(remarks) != 1 || !strings.Contains(remarks[0], "cut short") {
		t.Errorf("%q", remarks)
	}
}

// TestNoRockRidge breaks Rock Ridge at the root: Joliet's tree is shown instead, and a
// remark says why, unless it looks as if there had never been any.
func TestNoRockRidge(t *testing.T) {
	for _, c := range []struct {
		signature, remark string
		at                int // in the entry
	}{
		{"SP", "", 4},
		{"PX", "the tree of Joliet is shown, without what Rock Ridge may keep: iso9660: inode 32924 at offset 0x809c: damaged: a system use entry of 0 bytes", 2},
	} {
		e := edit(t, "rockridge")
		root := e.raw[e.open().Info().Root:]
		self := e.raw[block(root)*2048:]
		e.entry(self[:self[0]], c.signature)[c.at] = 0
		fs := e.open()
		n, ok := disktest.ReadTree(t, fs)["/pieces.a"]
		if !ok || n.Mode != disk.ModeRegular|0o555 {
			t.Errorf("%+v", n)
		}
		if got := strings.Join(fs.Info().Remarks, "\n"); !strings.HasPrefix(got, c.remark) || c.remark == "" && got != "" {
			t.Errorf("without %s the remarks are %q, want %q", c.signature, got, c.remark)
		}
	}
}

// TestTimes decodes times, and what is none.
func TestTimes(t *testing.T) {
	for _, v := range []struct {
		raw  []byte
		want int64
	}{
		{[]byte{70, 1, 1, 0, 0, 0, 0}, 0},
		{[]byte{70, 1, 1, 2, 0, 0, 8}, 0},                // two hours ahead
		{[]byte{70, 1, 1, 0, 0, 0, 0xfc}, 3600},          // one behind
		{[]byte{255, 12, 31, 23, 59, 59, 0}, 5869583999}, // 2155
		{[]byte{0, 1, 1, 0, 0, 0, 0}, -2208988800},       // 1900
		{[]byte{70, 13, 1, 0, 0, 0, 0}, 0},
		{[]byte{70, 1, 1, 24, 0, 0, 0}, 0},
		{[]byte{70, 1, 1, 1, 0, 0, 100}, 3600}, // no such zone
	} {
		e := edit(t, "plain")
		copy(e.record("readme.txt")[18:25], v.raw)
		n, err := e.open().Inode(disktest.Lookup(t, e.open(), "readme.txt"))
		if err != nil || n.Modify.Sec != v.want || n.Access != n.Modify {
			t.Errorf("%v is %+v, %v; want %d", v.raw, n.Modify, err, v.want)
		}
	}
	e := edit(t, "rockridge")
	r := e.record("pieces.a")
	tf := e.entry(r, "TF") // three times of 7 bytes: one of 17 fits
	tf[4] = 0x82
	copy(tf[5:], "2026112910345678\x04")
	n, err := e.open().Inode(disktest.Lookup(t, e.open(), "pieces.a"))
	if want := (disk.Time{Sec: 1795944896, Nsec: 780_000_000}); err != nil || n.Modify != want {
		t.Errorf("%+v, %v; want %+v", n.Modify, err, want)
	}
}

// TestContract holds the seeds against the contract of package disk, and checks that
// what is asked of the wrong file is refused.
func TestContract(t *testing.T) {
	for _, s := range seeds {
		m := disktest.LoadSeed(t, s.name)
		fs := openFilesystem(t, m)
		disktest.CheckContract(t, fs, m)
		for path, content := range seedTree() {
			f, err := fs.Open(disktest.Lookup(t, fs, path))
			if err != nil {
				t.Fatal(err)
			}
			disktest.Check(t, f, content)
		}
		file, dir := disktest.Lookup(t, fs, "readme.txt"), disktest.Lookup(t, fs, "dir")
		for _, ino := range []uint64{dir, fs.Info().Root} {
			_, err := fs.Open(ino)
			wantError(t, err, disk.ErrNotExist, "not a regular file")
		}
		wantError(t, fs.ReadDir(file, nil), disk.ErrNotExist, "not a directory")
		_, err := fs.Readlink(file)
		wantError(t, err, disk.ErrNotExist, "not a symlink")
		for _, ino := range []uint64{0, 1, 100, 1 << 40, 1<<64 - 1} {
			_, err := fs.Inode(ino)
			wantError(t, err, disk.ErrNotExist, "no directory record")
		}
		stop := errors.New("stop")
		if err := fs.ReadDir(dir, func(disk.DirEntry) error { return stop }); err != stop {
			t.Errorf("the error of yield comes back as %v", err)
		}
		small, err := iso9660.Open(disktest.LoadSeed(t, s.name), iso9660.Options{CacheSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		disktest.CheckConcurrent(t, disktest.ReadTree(t, fs), small)
	}
}

// TestRecognise tells images from what is none.
func TestRecognise(t *testing.T) {
	e := edit(t, "plain")
	for _, v := range []struct {
		raw  []byte
		want bool
	}{{e.raw, true}, {nil, false}, {e.raw[:32770], false}, {make([]byte, 64<<10), false}, {bytes.Repeat([]byte{0xff}, 64<<10), false}} {
		if got, err := iso9660.Recognise(disktest.Mem(v.raw)); got != v.want || err != nil {
			t.Errorf("%d bytes: %v, %v", len(v.raw), got, err)
		}
	}
}
