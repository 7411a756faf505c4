package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// TestContract holds files of all kinds against the contract of package disk.
func TestContract(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			disktest.CheckContract(t, openSeed(t, s.name, ext4.Options{}), disktest.LoadSeed(t, s.name))
		})
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
