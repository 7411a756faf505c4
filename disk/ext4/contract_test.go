package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

func openSeed(t *testing.T, name string, opts ext4.Options) *ext4.Filesystem {
	t.Helper()
	fs, err := ext4.Open(disktest.LoadSeed(t, name), opts)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestReadAt compares reads at random places with the whole, and the extents of
// random ranges with those of the whole.
func TestReadAt(t *testing.T) {
	for _, s := range seeds {
		for _, path := range []string{"holes", "a/medium", "a/small"} {
			if s.dirty && path != "holes" {
				continue // these were empty when the guest crashed
			}
			t.Run(s.name+"/"+path, func(t *testing.T) {
				fs := openSeed(t, s.name, ext4.Options{})
				f, err := fs.Open(disktest.Lookup(t, fs, path))
				if err != nil {
					t.Fatal(err)
				}
				checkReads(t, f)
			})
		}
	}
}

func checkReads(t *testing.T, f disk.Sparse) {
	size := min(f.Size(), 1<<20)
	whole := make([]byte, size)
	if n, err := f.ReadAt(whole, 0); n != len(whole) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d bytes: %v", n, len(whole), err)
	}
	kinds := make([]disk.ExtentKind, size)
	mark := func(into []disk.ExtentKind, base int64) func(disk.Extent) error {
		return func(e disk.Extent) error {
			for i := range e.Length {
				into[e.Offset-base+i] = e.Kind
			}
			return nil
		}
	}
	if err := f.Extents(0, size, mark(kinds, 0)); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		off := r.Int64N(size + 1)
		n := r.Int64N(min(size-off, 5000) + 1)
		p := bytes.Repeat([]byte{0xaa}, int(n))
		if got, err := f.ReadAt(p, off); int64(got) != n || err != nil && off+n < f.Size() || !bytes.Equal(p, whole[off:off+n]) {
			t.Fatalf("%d bytes at %d: read %d, %v, or other content", n, off, got, err)
		}
		part := make([]disk.ExtentKind, n)
		if err := f.Extents(off, n, mark(part, off)); err != nil || !slices.Equal(part, kinds[off:off+n]) {
			t.Fatalf("extents of %d bytes at %d: %v, or others", n, off, err)
		}
	}
	for i, kind := range kinds {
		if kind != disk.ExtentData && whole[i] != 0 {
			t.Fatalf("byte %d of a hole is %#x", i, whole[i])
		}
	}
	end := make([]byte, 10)
	if n, err := f.ReadAt(end, f.Size()-3); n != 3 || err != io.EOF {
		t.Errorf("a read across the end gives %d bytes, %v", n, err)
	}
	if n, err := f.ReadAt(end, f.Size()); n != 0 || err != io.EOF {
		t.Errorf("a read behind the end gives %d bytes, %v", n, err)
	}
	if _, err := f.ReadAt(end, -1); err == nil {
		t.Error("a read before the start gives no error")
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, f.Size() + 1}, {f.Size(), 1}, {1, -1}} {
		if err := f.Extents(bad[0], bad[1], func(disk.Extent) error { return nil }); err == nil {
			t.Errorf("extents of %v give no error", bad)
		}
	}
	stop := errors.New("stop")
	if err := f.Extents(0, f.Size(), func(disk.Extent) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
}

// TestConcurrent walks one filesystem from several goroutines, with a cache
// that is too small.
func TestConcurrent(t *testing.T) {
	for _, name := range []string{"csum", "journal-csum"} {
		fs := openSeed(t, name, ext4.Options{CacheSize: 2048})
		want := disktest.ReadTree(t, openSeed(t, name, ext4.Options{}))
		disktest.CheckConcurrent(t, want, fs)
	}
}

// TestWrongType asks of files what they are not.
func TestWrongType(t *testing.T) {
	fs := openSeed(t, "csum", ext4.Options{})
	file, dir := disktest.Lookup(t, fs, "a/small"), disktest.Lookup(t, fs, "a")
	disktest.CheckWrongType(t, fs, file, dir)
}

// TestRecognise checks what is no filesystem at all.
func TestRecognise(t *testing.T) {
	for _, size := range []int{0, 1, 1024, 1080, 1081, 4096} {
		m := disktest.Image{ReaderAt: bytes.NewReader(make([]byte, size)), Length: int64(size)}
		if known, err := ext4.Recognise(m); known || err != nil {
			t.Errorf("%d zeros: %v, %v", size, known, err)
		}
		if _, err := ext4.Open(m, ext4.Options{}); err == nil {
			t.Errorf("%d zeros open", size)
		}
	}
}

// TestBlockMapOfItself makes a block map whose blocks of numbers all are one
// that refers to itself: a file of 16 GiB out of one block.
func TestBlockMapOfItself(t *testing.T) {
	m := disktest.LoadSeed(t, "map")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	fs := openSeed(t, "map", ext4.Options{})
	ino := disktest.Lookup(t, fs, "holes")
	table := binary.LittleEndian.Uint32(raw[2048+8:]) // one group, blocks of 1 KiB
	n := raw[int(table)*1024+int(ino-1)*128:][:128]
	self := binary.LittleEndian.Uint32(n[0x28+12*4:])
	for i := range 3 {
		binary.LittleEndian.PutUint32(n[0x28+(12+i)*4:], self)
	}
	for i := range 256 {
		binary.LittleEndian.PutUint32(raw[int(self)*1024+i*4:], self)
	}
	binary.LittleEndian.PutUint32(n[0x6c:], 3) // i_size_high

	fs, err := ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(raw), Length: m.Length}, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(ino)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Extents(0, f.Size(), func(disk.Extent) error { return nil })
	if !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("the extents of %d bytes: %v", f.Size(), err)
	}
}
