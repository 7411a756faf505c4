package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damage reads damaged images. The memory is the cache's and as much again.
func damage() *disktest.Damage {
	d := &disktest.Damage{
		Layer: "ext4", Open: open, Share: 25, MaxAlloc: 32 << 20, MaxRead: 64 << 20, Optional: 1024,
		Thorough: *thorough, Single: []string{"superblock", "journal superblock", "fast commit"},
	}
	if *thorough {
		d.Share = 1
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage].
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			damage().Fields(t, disktest.LoadSeed(t, s.name), s.name == "csum" || s.name == "ea-inode" || s.name == "journal-clean")
		})
	}
}

// TestCut cuts images at each structure.
func TestCut(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage().Cuts(t, disktest.LoadSeed(t, s.name)) })
	}
}

// TestBadSectors has a disk that cannot be read in places.
func TestBadSectors(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage().BadSectors(t, disktest.LoadSeed(t, s.name)) })
	}
}

// TestErrorsName checks that errors say where the damage is.
func TestErrorsName(t *testing.T) {
	m := disktest.LoadSeed(t, "csum")
	fs, err := ext4.Open(m, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, off := range damage().Structures(t, m) {
		// The last byte of a block is covered by its checksum, or is part of it.
		p := disktest.Patched{Image: m, Off: off.Offset + off.Length - 1, Data: []byte{0xa5}}
		var detail *disk.Error
		if got := damage().Read(p); errors.As(got.Err, &detail) {
			seen[disktest.KindOf(detail.Structure)] = true
		}
	}
	for _, kind := range []string{"superblock", "directory block # of inode #", "extent tree of inode #", "attribute block of inode #"} {
		if !seen[kind] {
			t.Errorf("no error names %q: %v", kind, seen)
		}
	}
	for _, ino := range []uint64{0, 1, 8, 95, 96, 97, 1 << 32, 1<<64 - 1} {
		if _, err := fs.Inode(ino); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("inode %d: %v", ino, err)
		}
	}
}

// TestUnusedBytes damages bytes that the reader does not use, of structures
// that it does: only the checksum can tell.
func TestUnusedBytes(t *testing.T) {
	m := disktest.LoadSeed(t, "csum")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	fs := openSeed(t, "csum", ext4.Options{})
	large := binary.LittleEndian.AppendUint32(nil, uint32(disktest.Lookup(t, fs, "large")))
	root := bytes.Index(raw, append(large, 12, 0, 1, 2, '.', 0)) // block 0 of the directory
	table := int(binary.LittleEndian.Uint32(raw[2048+8:])) * 1024
	for _, d := range []struct {
		at   int
		want string
	}{
		{1024 + 0x2c, "superblock"},                                               // time of the last mount
		{2048 + 0x0c, "group descriptor 0"},                                       // free blocks
		{table + 256 + 0x14, "inode 2"},                                           // deletion time
		{root + 32 + 8, "directory block 0 of inode #"},                           // a hash
		{root + 12 + 12 + 5, "directory block 0 of inode #"},                      // levels of the hash tree
		{bytes.Index(raw, []byte("39nnnn")) + 62, "directory block # of inode #"}, // padding behind a name
	} {
		p := disktest.Patched{Image: m, Off: int64(d.at), Data: []byte{raw[d.at] ^ 0x40}}
		var detail *disk.Error
		if got := damage().Read(p); !errors.As(got.Err, &detail) || !bytes.Contains([]byte(disktest.KindOf(detail.Structure)), []byte(disktest.KindOf(d.want))) {
			t.Errorf("byte %#x: %v, want one about %s", d.at, got.Err, d.want)
		}
	}
}
