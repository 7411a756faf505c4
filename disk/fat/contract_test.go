package fat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestContract holds the seeds against the contract of package disk.
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
	}
}

// TestLongFile reads a file of more clusters than are remembered, all of them
// apart, at many places.
func TestLongFile(t *testing.T) {
	const count = 2000
	e := edit(t, "fat16")
	entry := e.entry("PIECES     ")
	first := 200
	content := make([]byte, 0, count*512)
	at := func(i int) int { return first + i*997%count } // all numbers, in another order
	for i := range count {
		next := uint32(markEnd)
		if i < count-1 {
			next = uint32(at(i + 1))
		}
		e.set(at(i), next)
		copy(e.cluster(at(i)), bytes.Repeat(fmt.Appendf(nil, "%07d;", i), 64))
		content = append(content, e.cluster(at(i))...)
	}
	setStart(entry, first)
	setSize(entry, uint32(len(content)-3))
	fs := e.open()
	f, err := fs.Open(disktest.Lookup(t, fs, "pieces"))
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, f, content[:len(content)-3])
}

// TestConcurrent walks one filesystem from several goroutines, with a cache that
// is too small.
func TestConcurrent(t *testing.T) {
	for _, s := range seeds {
		fs, err := fat.Open(disktest.LoadSeed(t, s.name), fat.Options{CacheSize: 8192})
		if err != nil {
			t.Fatal(err)
		}
		want := disktest.ReadTree(t, openFilesystem(t, disktest.LoadSeed(t, s.name)))
		disktest.CheckConcurrent(t, want, fs)
	}
}

// TestWrongType asks of files what they are not, and for files that are none.
func TestWrongType(t *testing.T) {
	fs := openFilesystem(t, disktest.LoadSeed(t, "fat32"))
	file, dir := disktest.Lookup(t, fs, "README.TXT"), disktest.Lookup(t, fs, "dir")
	for _, ino := range []uint64{dir, fs.Info().Root} {
		_, err := fs.Open(ino)
		wantError(t, err, disk.ErrNotExist, "not a regular file")
	}
	wantError(t, fs.ReadDir(file, nil), disk.ErrNotExist, "not a directory")
	_, err := fs.Readlink(file)
	wantError(t, err, disk.ErrNotExist, "no symlinks")
	wantError(t, fs.Used(1, nil), disk.ErrNotExist, "device 1")

	stop := errors.New("stop")
	if err := fs.ReadDir(dir, func(disk.DirEntry) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
	if err := fs.Used(0, func(int64, int64) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
	n, err := fs.Inode(dir)
	if err != nil {
		t.Fatal(err)
	}
	dots := uint64(0) // the entry of itself, in the directory
	for ino := uint64(0); ino < uint64(fs.Info().Size/32)+2; ino++ {
		if _, err := fs.Inode(ino); err != nil {
			wantError(t, err, disk.ErrNotExist, "")
		} else {
			dots++
		}
	}
	// Those of the tree, and what looks like an entry in content.
	if dots < 30 || n.Ino != dir {
		t.Errorf("%d inodes", dots)
	}
	for _, ino := range []uint64{0, 2, 1 << 40, 1 << 59, 1<<64 - 1} {
		_, err := fs.Inode(ino)
		wantError(t, err, disk.ErrNotExist, "")
		_, err = fs.Xattrs(ino)
		wantError(t, err, disk.ErrNotExist, "")
	}
}

// TestBootSector checks what is refused, and what is said of it.
func TestBootSector(t *testing.T) {
	le := binary.LittleEndian
	for _, v := range []struct {
		name, seed string
		change     func(b []byte)
		want       error
		text       string
	}{
		{"sector of 0", "fat16", func(b []byte) { le.PutUint16(b[0x0b:], 0) }, disk.ErrCorrupt, "sectors of 0 bytes"},
		{"sector of 256", "fat16", func(b []byte) { le.PutUint16(b[0x0b:], 256) }, disk.ErrCorrupt, "sectors of 256 bytes"},
		{"sector of 520", "fat16", func(b []byte) { le.PutUint16(b[0x0b:], 520) }, disk.ErrCorrupt, "sectors of 520 bytes"},
		{"sector of 8192", "fat16", func(b []byte) { le.PutUint16(b[0x0b:], 8192) }, disk.ErrUnsupported, "sectors of 8192 bytes"},
		{"cluster of 0", "fat16", func(b []byte) { b[0x0d] = 0 }, disk.ErrCorrupt, "0 sectors per cluster"},
		{"cluster of 3", "fat16", func(b []byte) { b[0x0d] = 3 }, disk.ErrCorrupt, "3 sectors per cluster"},
		{"nothing reserved", "fat16", func(b []byte) { le.PutUint16(b[0x0e:], 0) }, disk.ErrCorrupt, "reserved"},
		{"no FAT", "fat16", func(b []byte) { b[0x10] = 0 }, disk.ErrCorrupt, "0 FATs"},
		{"FAT of 0", "fat32", func(b []byte) { le.PutUint32(b[0x24:], 0) }, disk.ErrCorrupt, "FATs of 0 sectors"},
		{"media", "fat16", func(b []byte) { b[0x15] = 0xf7 }, disk.ErrCorrupt, "media 0xf7"},
		{"tables over the end", "fat32", func(b []byte) { le.PutUint32(b[0x24:], 1<<32-1) }, disk.ErrCorrupt, "the tables take"},
		{"less than a cluster", "fat12", func(b []byte) { b[0x0d] = 128; le.PutUint16(b[0x13:], 100) }, disk.ErrCorrupt, "no clusters"},
		{"no sectors", "fat12", func(b []byte) { le.PutUint16(b[0x13:], 0) }, disk.ErrCorrupt, "the tables take"},
		{"cut", "fat12", func(b []byte) { le.PutUint16(b[0x13:], 401) }, disk.ErrCorrupt, "but the disk only"},
		{"far too large", "fat12", func(b []byte) { le.PutUint16(b[0x13:], 0); le.PutUint32(b[0x20:], 1<<32-1) }, disk.ErrCorrupt, "but the disk only"},
		{"clusters of FAT16", "fat16", func(b []byte) {
			le.PutUint16(b[0x16:], 1000)
			le.PutUint16(b[0x13:], 0)
			le.PutUint32(b[0x20:], 80_000)
		}, disk.ErrCorrupt, "FAT16 has at most"},
		{"version", "fat32", func(b []byte) { b[0x2a] = 1 }, disk.ErrUnsupported, "version 0.1"},
		{"root", "fat32", func(b []byte) { le.PutUint32(b[0x2c:], 1) }, disk.ErrCorrupt, "start at cluster 1"},
		{"root too far", "fat32", func(b []byte) { le.PutUint32(b[0x2c:], 1<<20) }, disk.ErrCorrupt, "start at cluster"},
		{"no such FAT", "fat32", func(b []byte) { b[0x28] = 0x82 }, disk.ErrCorrupt, "FAT number 2"},
	} {
		t.Run(v.name, func(t *testing.T) {
			e := edit(t, v.seed)
			v.change(e.raw)
			_, err := fat.Open(e.image(), fat.Options{})
			wantError(t, err, v.want, v.text)
			known, err := fat.Recognise(e.image())
			cut := v.text == "but the disk only"
			if err != nil || known != (v.want == disk.ErrUnsupported || cut) {
				t.Errorf("recognised: %v, %v", known, err)
			}
		})
	}
}

// TestRemarks: what the guest left behind.
func TestRemarks(t *testing.T) {
	for name, v := range map[string]struct {
		seed   string
		change func(e *editor)
		want   int
	}{
		"dirty of Linux, FAT16":   {"fat16", func(e *editor) { e.raw[0x25] |= 1 }, 1},
		"dirty of Linux, FAT32":   {"fat32", func(e *editor) { e.raw[0x41] |= 1 }, 1},
		"dirty of Windows, FAT16": {"fat16", func(e *editor) { e.set(1, 0x7fff) }, 1},
		"dirty of Windows, FAT32": {"fat32", func(e *editor) { e.set(1, 0x07ffffff) }, 1},
		"errors, FAT16":           {"fat16", func(e *editor) { e.set(1, 0xbfff) }, 1},
		"both, FAT32":             {"fat32", func(e *editor) { e.set(1, 0x03ffffff) }, 2},
		"nothing, FAT12":          {"fat12", func(e *editor) { e.set(1, 0) }, 0},
		"second table": {"fat32", func(e *editor) {
			clear(e.raw[e.fat:][: (e.root-e.fat)/2 : (e.root-e.fat)/2])
			e.raw[0x28] = 0x81
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t, v.seed)
			v.change(e)
			fs := e.open()
			if got := fs.Info().Remarks; len(got) != v.want {
				t.Errorf("%q", got)
			}
			if got := readAll(t, fs, disktest.Lookup(t, fs, "pieces")); !bytes.Equal(got, large(seedPieces)) {
				t.Error("other content")
			}
		})
	}
}

// TestRecognise checks what is no FAT.
func TestRecognise(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 4096} {
		m := disktest.Mem(make([]byte, size))
		if known, err := fat.Recognise(m); known || err != nil {
			t.Errorf("%d zeros: %v, %v", size, known, err)
		}
		if _, err := fat.Open(m, fat.Options{}); err == nil {
			t.Errorf("%d zeros open", size)
		}
	}
	for _, command := range [][]string{{"mke2fs", "-q", "-F"}, {"mkfs.btrfs", "-q"}, {"sfdisk", "-q", "--wipe=never"}} {
		path := disktest.EmptyImage(t, 320<<20)
		if command[0] == "sfdisk" {
			disktest.Run(t, "sgdisk", "-n", "1:2048:+16M", path)
		} else {
			disktest.Run(t, command[0], append(command[1:], path)...)
		}
		if known, err := fat.Recognise(disktest.OpenImage(t, path)); known || err != nil {
			t.Errorf("%s: %v, %v", command[0], known, err)
		}
	}
	// Without marks it is read when it is asked for.
	e := edit(t, "fat16")
	copy(e.raw[0x36:], "        ")
	e.raw[510] = 0
	if known, err := fat.Recognise(e.image()); known || err != nil {
		t.Errorf("without marks: %v, %v", known, err)
	}
	e.open()
	if _, err := fat.Recognise(unreadable{}); !errors.Is(err, errDisk) {
		t.Errorf("unreadable: %v", err)
	}
}

var errDisk = errors.New("the disk is broken")

type unreadable struct{ disktest.Mem }

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

// TestUnreadable: what cannot be read is neither damage nor an end.
func TestUnreadable(t *testing.T) {
	e := edit(t, "fat12")
	m := disktest.LoadSeed(t, "fat12")
	content := e.data + (chainOf(t, e.open(), e)[0]-2)*512
	many := e.data + (start(e.entry("MANY       "))-2)*512
	for _, at := range []int{0, e.fat, e.root, many, content} {
		err := damage().Read(brokenAt{m, int64(at)}).Err
		var d *disk.Error
		if !errors.Is(err, errDisk) || errors.Is(err, disk.ErrCorrupt) || errors.Is(err, io.EOF) || !errors.As(err, &d) || d.Layer != "fat" {
			t.Errorf("byte %#x: %v", at, err)
		}
	}
	fs, err := fat.Open(brokenAt{m, int64(content)}, fat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, fs, disktest.Lookup(t, fs, "README.TXT")); string(got) != "upper" {
		t.Errorf("another file is %q", got)
	}
}

// lateBroken is an image that cannot be read from some time on.
type lateBroken struct {
	disktest.Image
	broken *atomic.Bool
}

func (b lateBroken) ReadAt(p []byte, off int64) (int, error) {
	if b.broken.Load() {
		return 0, errDisk
	}
	return b.Image.ReadAt(p, off)
}

// TestLost: the disk goes away while the filesystem is open. What is asked then
// gives an error of the disk, without the cache's help.
func TestLost(t *testing.T) {
	for _, s := range seeds {
		d := lateBroken{disktest.LoadSeed(t, s.name), new(atomic.Bool)}
		fs, err := fat.Open(d, fat.Options{CacheSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		pieces, dir := disktest.Lookup(t, fs, "pieces"), disktest.Lookup(t, fs, "dir")
		f, err := fs.Open(pieces)
		if err != nil {
			t.Fatal(err)
		}
		d.broken.Store(true)
		for what, ask := range map[string]func() error{
			"inode":     func() error { _, err := fs.Inode(pieces); return err },
			"xattrs":    func() error { _, err := fs.Xattrs(dir); return err },
			"open":      func() error { _, err := fs.Open(pieces); return err },
			"directory": func() error { return fs.ReadDir(dir, nil) },
			"root":      func() error { return fs.ReadDir(fs.Info().Root, nil) },
			"used":      func() error { return fs.Used(0, func(int64, int64) error { return nil }) },
			"content":   func() error { _, err := f.ReadAt(make([]byte, 10), 2000); return err },
			"extents":   func() error { return f.Extents(0, f.Size(), func(disk.Extent) error { return nil }) },
			"locate":    func() error { return f.(disk.Locator).Locate(5000, 1, func(disk.Location) error { return nil }) },
		} {
			if err := ask(); !errors.Is(err, errDisk) {
				t.Errorf("%s, %s: %v", s.name, what, err)
			}
		}
	}
}

// TestChanged: whoever opened a file before its disk changed gets an error, and
// not what lies elsewhere.
func TestChanged(t *testing.T) {
	for mark, text := range map[uint32]string{markEnd: "did not when it was opened", 0: "is marked as free"} {
		e := edit(t, "fat16")
		fs, err := fat.Open(e.image(), fat.Options{CacheSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.Open(disktest.Lookup(t, fs, "pieces"))
		if err != nil {
			t.Fatal(err)
		}
		e.set(chainOf(t, fs, e)[5], mark)
		_, err = f.ReadAt(make([]byte, seedPieces), 0)
		wantError(t, err, disk.ErrCorrupt, text)
		_, err = f.ReadAt(make([]byte, 1), 6*512)
		wantError(t, err, disk.ErrCorrupt, text)
		if _, err := f.ReadAt(make([]byte, 1), 5*512); err != nil {
			t.Errorf("the cluster before: %v", err)
		}
	}
}

// brokenAt is an image with a byte that cannot be read.
type brokenAt struct {
	disktest.Image
	at int64
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, errDisk
	}
	return b.Image.ReadAt(p, off)
}
