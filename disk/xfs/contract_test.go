package xfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

func openSeed(t testing.TB, name string, opts xfs.Options) *xfs.Filesystem {
	t.Helper()
	fs, err := xfs.Open(disktest.LoadSeed(t, name), opts)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestContract holds files of all kinds against the contract of package disk.
func TestContract(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			disktest.CheckContract(t, openSeed(t, s.name, xfs.Options{}), disktest.LoadSeed(t, s.name))
		})
	}
}

// TestConcurrent walks one filesystem from several goroutines, with a cache
// that is too small.
func TestConcurrent(t *testing.T) {
	for _, name := range []string{"v5-1k", "v5-dirty"} {
		fs := openSeed(t, name, xfs.Options{CacheSize: 40 << 10})
		want := disktest.ReadTree(t, openSeed(t, name, xfs.Options{}))
		disktest.CheckConcurrent(t, want, fs)
	}
}

// TestRemarks checks that an administrator is told what was replayed.
func TestRemarks(t *testing.T) {
	if remarks := openSeed(t, "v5-1k", xfs.Options{}).Info().Remarks; len(remarks) > 0 {
		t.Errorf("a clean filesystem has remarks: %q", remarks)
	}
	remarks := openSeed(t, "v5-dirty", xfs.Options{}).Info().Remarks
	if len(remarks) != 1 || !strings.Contains(remarks[0], "log was replayed") {
		t.Errorf("a dirty filesystem has remarks %q", remarks)
	}
}

// TestDirectoryOfItself maps all blocks of a directory to one: it would have
// the same names again and again.
func TestDirectoryOfItself(t *testing.T) {
	m := disktest.LoadSeed(t, "v4-1k")
	fs := openSeed(t, "v4-1k", xfs.Options{})
	ino := disktest.Lookup(t, fs, "large")
	raw := make([]byte, 512)
	if _, err := m.ReadAt(raw, int64(ino)*512); err != nil {
		t.Fatal(err)
	}
	if raw[5] != 2 || raw[79] < 2 {
		t.Fatalf("the directory has format %d and %d extents", raw[5], raw[79])
	}
	copy(raw[100+16+8:100+32], raw[100+8:100+16]) // block and length of the first extent
	copy(raw[100+16+7:], raw[100+7:100+8])
	damaged := disktest.Patched{Image: m, Off: int64(ino) * 512, Data: raw}
	again, err := xfs.Open(damaged, xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.ReadDir(ino, func(disk.DirEntry) error { return nil }); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("a directory with a block twice: %v", err)
	}
}

// TestSelfDescription copies a block over another of its kind, with all that it
// says of itself.
func TestSelfDescription(t *testing.T) {
	m := disktest.LoadSeed(t, "v5-1k")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	first := blockWith(raw, "XDD3")
	second := first + 4096 + blockWith(raw[first+4096:], "XDD3")
	p := disktest.Patched{Image: m, Off: int64(second), Data: bytes.Clone(raw[first : first+4096])}
	if got := damage().Read(p); !errors.Is(got.Err, disk.ErrCorrupt) {
		t.Errorf("a block in the place of another: %v", got.Err)
	}
	inode := bytes.Clone(raw[int(disktest.Lookup(t, openSeed(t, "v5-1k", xfs.Options{}), "a/small"))*512:][:512])
	other := disktest.Lookup(t, openSeed(t, "v5-1k", xfs.Options{}), "a/medium")
	p = disktest.Patched{Image: m, Off: int64(other) * 512, Data: inode}
	if got := damage().Read(p); !errors.Is(got.Err, disk.ErrCorrupt) {
		t.Errorf("an inode in the place of another: %v", got.Err)
	}
}

// TestFileOfItself maps all of a file to the same blocks, again and again, in one
// that shares no blocks.
func TestFileOfItself(t *testing.T) {
	m := disktest.LoadSeed(t, "v4-1k")
	ino := disktest.Lookup(t, openSeed(t, "v4-1k", xfs.Options{}), "a/small")
	raw := make([]byte, 512)
	if _, err := m.ReadAt(raw, int64(ino)*512); err != nil {
		t.Fatal(err)
	}
	const blocks = 10_000 // of 16,384
	for i := range uint64(8) {
		binary.BigEndian.PutUint64(raw[100+i*16:], i*blocks<<9)
		binary.BigEndian.PutUint64(raw[108+i*16:], 1<<21|blocks)
	}
	binary.BigEndian.PutUint32(raw[76:], 8)
	binary.BigEndian.PutUint64(raw[64:], 8*blocks)
	binary.BigEndian.PutUint64(raw[56:], 8*blocks<<10)
	fs, err := xfs.Open(disktest.Patched{Image: m, Off: int64(ino) * 512, Data: raw}, xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(ino)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Extents(0, f.Size(), func(disk.Extent) error { return nil }); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("the extents of %d bytes: %v", f.Size(), err)
	}
}

// TestAttributesInACircle lets the last leaf of a file's attributes lead back to
// one before.
func TestAttributesInACircle(t *testing.T) {
	m := disktest.LoadSeed(t, "v4-1k")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	circles := 0
	for at := 0; at < len(raw); at += 1024 {
		next, before := binary.BigEndian.Uint32(raw[at:]), raw[at+4:at+8]
		if binary.BigEndian.Uint16(raw[at+8:]) != 0xfbee || next != 0 || binary.BigEndian.Uint32(before) == 0 {
			continue
		}
		fs, err := xfs.Open(disktest.Patched{Image: m, Off: int64(at), Data: before}, xfs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Xattrs(disktest.Lookup(t, fs, "xattrs-many")); errors.Is(err, disk.ErrCorrupt) {
			circles++
		}
	}
	if circles == 0 {
		t.Error("no circle was noticed")
	}
}
