package btrfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// makeFilled makes a filesystem with some files, and returns what the kernel sees.
func makeFilled(t *testing.T, count int, options string, mkfs ...string) ([]string, disktest.Tree) {
	t.Helper()
	paths := makeImages(t, count, 256<<20, mkfs...)
	dir, unmount := mount(t, paths, options)
	g := &disktest.Generator{T: t, Dir: dir, Rand: rand.NewChaCha8([32]byte{9}), BlockSize: 4096}
	for _, name := range []string{"a", "b", "c"} {
		content := make([]byte, 3_000_000)
		g.Rand.Read(content)
		g.File(name, content)
	}
	g.ACLs()
	unmount()
	return paths, withoutSubvolume(kernelTree(t, paths, ""))
}

// spoiled is a device whose content is bad in turns of 64 KiB, but for what it
// keeps: the first MiB, with the superblock.
type spoiled struct {
	disktest.Image
	odd int64 // which turns are bad: 0 or 1; 2 for all
}

func (s spoiled) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Image.ReadAt(p, off)
	for i := range p[:n] {
		if at := off + int64(i); at >= 1<<20 && (s.odd == 2 || at>>16&1 == s.odd) {
			p[i] ^= 0xff
		}
	}
	return n, err
}

// TestCopies reads filesystems of which each device is bad in other places, or of
// which one is missing.
func TestCopies(t *testing.T) {
	for _, p := range []struct {
		name    string
		count   int
		profile string
	}{{"raid1", 2, "raid1"}, {"raid1c3", 3, "raid1c3"}, {"raid10", 4, "raid10"}} {
		t.Run(p.name, func(t *testing.T) {
			paths, want := makeFilled(t, p.count, "rw", "-m", p.profile, "-d", p.profile)
			var bad []disk.Sparse
			for i, path := range paths {
				bad = append(bad, spoiled{disktest.OpenImage(t, path), int64(i & 1)})
			}
			if p.name == "raid1" { // with others two copies may be bad in one place
				compareOpened(t, want, bad)
			}
			good := openImages(t, paths)
			good[1] = spoiled{disktest.OpenImage(t, paths[1]), 2}
			compareOpened(t, want, good)
			slices.Reverse(good)
			compareOpened(t, want, good)

			rest := openImages(t, append([]string{paths[0]}, paths[2:]...))
			fs := compareOpened(t, want, rest)
			if r := fs.Info().Remarks; len(r) != 1 || !strings.Contains(r[0], "device 2 is missing") {
				t.Errorf("remarks are %q", r)
			}
			if p.name == "raid10" {
				_, err := btrfs.Open(openImages(t, paths[:1]), btrfs.Options{})
				checkRefused(t, err, disk.ErrCorrupt, "is missing or out of date")
			}
		})
	}
}

func compareOpened(t *testing.T, want disktest.Tree, devices []disk.Sparse) *btrfs.Filesystem {
	t.Helper()
	fs, err := btrfs.Open(devices, btrfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disktest.CompareTrees(t, want, withoutSubvolume(disktest.ReadTree(t, fs)))
	return fs
}

func checkRefused(t *testing.T, err, kind error, text string) {
	t.Helper()
	var detail *disk.Error
	if !errors.Is(err, kind) || !errors.As(err, &detail) || !strings.Contains(detail.Detail, text) || detail.Layer != "btrfs" {
		t.Errorf("%v, want one that is %q and says %q", err, kind, text)
	}
}

// zeroed is a device on which 4 MiB are zero at some places.
type zeroed struct {
	disktest.Image
	places []int64
}

func (z zeroed) ReadAt(p []byte, off int64) (int, error) {
	n, err := z.Image.ReadAt(p, off)
	for _, at := range z.places {
		if from, to := max(off, at), min(off+int64(n), at+4<<20); from < to {
			clear(p[from-off : to-off])
		}
	}
	return n, err
}

// TestDUP reads a filesystem whose only device has bad places: the starts of the
// first or the second copies of its chunks, or of both.
func TestDUP(t *testing.T) {
	paths, want := makeFilled(t, 1, "rw", "-m", "dup", "-d", "dup")
	m := disktest.OpenImage(t, paths[0])
	copies := [2][]int64{}
	for i := range copies {
		text := string(disktest.Run(t, "btrfs", "inspect-internal", "dump-tree", "-t", "chunk", paths[0]))
		for line := range strings.Lines(text) {
			var at int64
			if _, err := fmt.Sscanf(strings.TrimSpace(line), fmt.Sprintf("stripe %d devid 1 offset %%d", i), &at); err == nil {
				copies[i] = append(copies[i], at)
			}
		}
		if len(copies[i]) < 3 {
			t.Fatalf("chunks at %v", copies[i])
		}
		compareOpened(t, want, openMany(zeroed{m, copies[i]}))
	}
	if _, err := open(zeroed{m, slices.Concat(copies[0], copies[1])}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("both copies are bad: %v", err)
	}
}

// TestWrongDevices opens devices that do not belong together.
func TestWrongDevices(t *testing.T) {
	a, _ := makeFilled(t, 2, "rw", "-m", "raid1", "-d", "raid0")
	b := makeImages(t, 1, 128<<20)
	for name, c := range map[string]struct {
		paths []string
		text  string
	}{
		"missing": {a[:1], "give all 2 devices"},
		"foreign": {append(slices.Clone(a), b...), "they cannot be opened together"},
		"twice":   {[]string{a[0], a[0]}, "one is a copy of the other"},
	} {
		_, err := btrfs.Open(openImages(t, c.paths), btrfs.Options{})
		t.Run(name, func(t *testing.T) { checkRefused(t, err, disk.ErrCorrupt, c.text) })
	}
	if _, err := btrfs.Open(nil, btrfs.Options{}); !errors.Is(err, disk.ErrLimit) {
		t.Errorf("no devices: %v", err)
	}
	// One that lost a sector, and superblocks that say different things of the whole.
	whole := openImages(t, a)
	short := disktest.OpenImage(t, a[1])
	short.Length--
	_, err := btrfs.Open(openMany(whole[0], short), btrfs.Options{})
	checkRefused(t, err, disk.ErrCorrupt, "it has 268435455 bytes, but the filesystem uses 268435456")
	for name, change := range map[string]func(sb []byte){
		"sector size": func(sb []byte) { binary.LittleEndian.PutUint32(sb[0x90:], 8192) },
		"node size":   func(sb []byte) { binary.LittleEndian.PutUint32(sb[0x94:], 32768) },
		"metadata UUID": func(sb []byte) {
			sb[0xbd] |= 4 // the feature that it is of
			sb[0xc9+0x52] ^= 1
			copy(sb[0x23b:], sb[0xc9+0x52:][:16])
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := patchImage(t, disktest.OpenImage(t, a[1]), 0, change)
			_, err := btrfs.Open(openMany(whole[0], other), btrfs.Options{})
			checkRefused(t, err, disk.ErrCorrupt, "its superblock contradicts that of another device")
		})
	}
}

// TestStale opens a device that was away for some commits.
func TestStale(t *testing.T) {
	paths, _ := makeFilled(t, 2, "rw", "-m", "raid1", "-d", "raid1")
	stale := disktest.CopyImage(t, paths[1])
	dir, unmount := mount(t, paths, "rw")
	c := &crash{t: t, dir: dir}
	c.write("d", "newer")
	(&disktest.CrashWriter{T: t, Dir: dir}).Settle()
	c.write("a", strings.Repeat("newer", 1000))
	unmount()
	want := withoutSubvolume(kernelTree(t, paths, ""))
	fs := compareOpened(t, want, openImages(t, []string{stale, paths[0]}))
	if r := fs.Info().Remarks; len(r) != 2 || !strings.Contains(r[0], "device 2 missed writes") {
		t.Errorf("remarks are %q", r)
	}
}

// TestMetadataUUID reads a filesystem whose UUID is not that of its tree blocks.
func TestMetadataUUID(t *testing.T) {
	paths, want := makeFilled(t, 1, "rw")
	disktest.Run(t, "btrfstune", "-m", paths[0])
	compareOpened(t, want, openImages(t, paths))
	compare(t, paths, openFilesystem(t, paths, btrfs.Options{}), "")
}

// TestRefused opens what is refused by name.
func TestRefused(t *testing.T) {
	paths := makeImages(t, 3, 256<<20, "-m", "raid1", "-d", "raid5")
	_, err := btrfs.Open(openImages(t, paths), btrfs.Options{})
	checkRefused(t, err, disk.ErrUnsupported, "raid56")

	seed := makeImages(t, 1, 128<<20)
	disktest.Run(t, "btrfstune", "-S", "1", seed[0])
	_, err = btrfs.Open(openImages(t, seed), btrfs.Options{})
	checkRefused(t, err, disk.ErrUnsupported, "seeding")

	sprouted := append(seed, disktest.EmptyImage(t, 128<<20))
	dir, unmount := mount(t, seed[:1], "ro")
	loop := testmount.Loop(t, sprouted[1], 0, 0)
	disktest.Run(t, "btrfs", "device", "add", loop, dir)
	unmount()
	testmount.Detach(t, loop)
	_, err = btrfs.Open(openImages(t, sprouted[1:]), btrfs.Options{})
	checkRefused(t, err, disk.ErrUnsupported, "seeding")

	for _, f := range []struct {
		off  int64
		bit  uint64
		text string
	}{
		{0xbc, 1 << 12, "zoned"}, {0xbc, 1 << 13, "extent_tree_v2"}, {0xbc, 1 << 14, "raid_stripe_tree"},
		{0xbc, 1 << 40, "incompat bit 0x10000000000"}, {0xb4, 1 << 9, "compat_ro bit 0x200"},
		{0x38, 1 << 35, "UUID"}, {0x38, 1 << 38, "block group tree"}, {0x38, 1 << 39, "checksums"},
	} {
		_, err := open(patchSuperblock(t, f.off, func(p []byte) {
			binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)|f.bit)
		}))
		checkRefused(t, err, disk.ErrUnsupported, f.text)
	}
	// The block group tree is for who writes.
	if _, err := open(patchSuperblock(t, 0xb4, func(p []byte) { p[0] |= 8 })); err != nil {
		t.Error(err)
	}
	_, err = open(disktest.Patched{Image: disktest.LoadSeed(t, "mixed"), Off: 65536 + 200, Data: []byte{1}})
	checkRefused(t, err, disk.ErrCorrupt, "super-recover")
}

// patchSuperblock is the seed "mixed" with a change at an offset of its
// superblock, whose checksum is right.
func patchSuperblock(t *testing.T, off int64, change func([]byte)) disk.Sparse {
	t.Helper()
	return patchImage(t, disktest.LoadSeed(t, "mixed"), off, change)
}

// patchImage is an image with such a change, whose checksums are CRC32C.
func patchImage(t *testing.T, m disktest.Image, off int64, change func([]byte)) disk.Sparse {
	t.Helper()
	raw := make([]byte, 4096)
	if _, err := m.ReadAt(raw, 65536); err != nil {
		t.Fatal(err)
	}
	change(raw[off:])
	binary.LittleEndian.PutUint32(raw, crc32.Checksum(raw[32:], crc32.MakeTable(crc32.Castagnoli)))
	return disktest.Patched{Image: m, Off: 65536, Data: raw}
}

// TestRecognise checks what is no filesystem at all.
func TestRecognise(t *testing.T) {
	for _, size := range []int{0, 1, 65536, 65600, 65608, 65609, 70_000} {
		m := disktest.Image{ReaderAt: bytes.NewReader(make([]byte, size)), Length: int64(size)}
		if known, err := btrfs.Recognise(m); known || err != nil {
			t.Errorf("%d zeros: %v, %v", size, known, err)
		}
		if _, known, err := btrfs.Identify(m); known || err != nil {
			t.Errorf("%d zeros: %v, %v", size, known, err)
		}
		if _, err := open(m); err == nil {
			t.Errorf("%d zeros open", size)
		}
	}
	if known, err := btrfs.Recognise(disktest.LoadSeed(t, "mixed")); !known || err != nil {
		t.Errorf("a seed: %v, %v", known, err)
	}
}

// TestUsed leaves out what Used does not name, and reads all the same.
func TestUsed(t *testing.T) {
	for _, p := range []struct {
		name  string
		count int
		mkfs  []string
	}{
		{"single", 1, nil},
		{"no-skinny", 1, []string{"-O", "^skinny-metadata"}},
		{"dup", 1, []string{"-m", "dup", "-d", "dup"}},
		{"raid0", 3, []string{"-m", "raid0", "-d", "raid0"}},
		{"raid10", 4, []string{"-m", "raid10", "-d", "raid10"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			paths, _ := makeFilled(t, p.count, "rw", p.mkfs...)
			used := checkUsage(t, openFilesystem(t, paths, btrfs.Options{}), paths)
			// Some 9 MB of content, twice at most, and little else.
			if used < 9_000_000 || used > 2*9_000_000+8<<20 {
				t.Errorf("%d bytes are in use", used)
			}
			// What was cut off behind the filesystem does not matter; what is
			// in use must be there for the kernel, too.
			for i, path := range paths {
				keepUsed(t, openFilesystem(t, paths, btrfs.Options{}), i, path)
			}
			compare(t, paths, openFilesystem(t, paths, btrfs.Options{}), "")
		})
	}
}

// keepUsed makes holes of what is not in use.
func keepUsed(t *testing.T, fs *btrfs.Filesystem, device int, path string) {
	t.Helper()
	m := disktest.OpenImage(t, path)
	kept, err := os.Create(path + ".kept")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	err = fs.Used(device, func(off, length int64) error {
		_, err := io.Copy(io.NewOffsetWriter(kept, off), io.NewSectionReader(m, off, length))
		return err
	})
	if err == nil {
		err = kept.Truncate(m.Length)
	}
	if err == nil {
		err = os.Rename(path+".kept", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMetadump reads what btrfs-image keeps of a filesystem: all but content.
func TestMetadump(t *testing.T) {
	paths, want := makeFilled(t, 1, "rw")
	dump, restored := filepath.Join(t.TempDir(), "dump"), disktest.EmptyImage(t, 256<<20)
	disktest.Run(t, "btrfs-image", paths[0], dump)
	disktest.Run(t, "btrfs-image", "-r", dump, restored)
	fs := openFilesystem(t, []string{restored}, btrfs.Options{})
	if r := fs.Info().Remarks; len(r) != 1 || !strings.Contains(r[0], "no content") {
		t.Errorf("remarks are %q", r)
	}
	seen := 0
	err := disktest.WalkLeniently(fs, func(path string, n disktest.Node) {
		seen++
		if k, ok := want[path]; !ok || k.Mode != n.Mode || k.Size != n.Size || k.Xattrs != n.Xattrs {
			t.Errorf("%s is %+v", path, n)
		}
	})
	if seen != len(want)-1 || !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "content of inode") {
		t.Errorf("%d of %d files, and reading their content gives %v", seen, len(want)-1, err)
	}
}
