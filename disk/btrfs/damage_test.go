package btrfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// damage reads damaged images. The memory is the caches' and as much again.
func damage(share int) *disktest.Damage {
	d := &disktest.Damage{Layer: "btrfs", Open: open, Share: share, MaxAlloc: 64 << 20}
	if *btrfs.Thorough {
		d.Share = 1
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage]: the
// checksums must tell.
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			damage(100).Fields(t, disktest.LoadSeed(t, s.name), true)
		})
	}
}

// TestForged does so behind checksums that are right again, as an attacker would.
func TestForged(t *testing.T) {
	for _, s := range seeds {
		if s.name == "xxhash" {
			continue // sealed makes only crc32c
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			d := damage(150)
			d.Open = func(m disk.Sparse) (disk.Filesystem, error) { return open(sealed{m}) }
			d.Fields(t, disktest.LoadSeed(t, s.name), false)
		})
	}
}

// sealed makes the checksums of superblocks and tree blocks right.
type sealed struct{ disk.Sparse }

// sealedFSID is where the superblock and every tree block have the filesystem's ID.
const sealedFSID = 0x20

func (s sealed) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Sparse.ReadAt(p, off)
	if n != 4096 || off%4096 != 0 {
		return n, err
	}
	var fsid [16]byte
	if _, err := s.Sparse.ReadAt(fsid[:], 65536+sealedFSID); err != nil || off != 65536 && !bytes.Equal(fsid[:], p[sealedFSID:sealedFSID+16]) {
		return n, err
	}
	binary.LittleEndian.PutUint32(p, crc32.Checksum(p[32:4096], crc32.MakeTable(crc32.Castagnoli)))
	return n, err
}

// TestCut cuts images at each structure.
func TestCut(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			damage(1).Cuts(t, disktest.LoadSeed(t, s.name))
		})
	}
}

// TestBadSectors has a disk that cannot be read in places.
func TestBadSectors(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) { damage(1).BadSectors(t, disktest.LoadSeed(t, s.name)) })
	}
}

// TestErrorsName checks that errors say where the damage is.
func TestErrorsName(t *testing.T) {
	m := disktest.LoadSeed(t, "mixed")
	fs := openSeed(t, "mixed", btrfs.Options{})
	seen := make(map[string]bool)
	for _, off := range damage(1).Structures(t, m) {
		p := disktest.Patched{Image: m, Off: off.Offset + off.Length - 1, Data: []byte{0xa5}}
		var detail *disk.Error
		if got := damage(1).Read(p); errors.As(got.Err, &detail) {
			seen[detail.Structure] = true
		}
	}
	for _, name := range []string{"superblock", "chunk tree", "tree of roots", "subvolume 5", "subvolume 256"} {
		if !seen[name] {
			t.Errorf("no error names %q: %v", name, seen)
		}
	}
	for _, ino := range []uint64{0, 5, 5<<40 | 255, 5<<40 | 9999, 6<<40 | 256, 255<<40 | 256, 0xffff<<40 | 256, 1 << 56, 1<<64 - 1} {
		if _, err := fs.Inode(ino); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("inode %#x: %v", ino, err)
		}
	}
}

// TestContent damages content: its checksum must tell, and cost that file alone.
func TestContent(t *testing.T) {
	for _, s := range seeds {
		m := disktest.LoadSeed(t, s.name)
		raw := make([]byte, m.Length)
		if _, err := m.ReadAt(raw, 0); err != nil {
			t.Fatal(err)
		}
		at := int64(bytes.Index(raw, bytes.Repeat([]byte("c"), 4000))) // block 4 of "holes", or what the log replaced
		if s.dirty {
			at = int64(bytes.LastIndex(raw, append([]byte("log"), bytes.Repeat([]byte("c"), 4000)...)))
		}
		p := disktest.Patched{Image: m, Off: at + 100, Data: []byte("x")}
		fs, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		bad := 0
		walk := func(path string, n disktest.Node) {
			if path == "/holes" {
				bad++
			}
		}
		err = disktest.WalkLeniently(fs, walk)
		if bad != 1 || !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "content of inode") {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// TestChecksumTree damages the tree of checksums.
func TestChecksumTree(t *testing.T) {
	m := disktest.LoadSeed(t, "mixed")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	root := newestBlock(raw, 7)
	fs, err := open(disktest.Patched{Image: m, Off: root + 200, Data: []byte{0xa5}})
	if err != nil {
		t.Fatal(err)
	}
	err = disktest.WalkLeniently(fs, nil)
	if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "checksum tree") {
		t.Errorf("a damaged tree of checksums: %v", err)
	}
	// One item less: what it was for has no checksum.
	forged := bytes.Clone(raw[root : root+4096])
	binary.LittleEndian.PutUint32(forged[0x60:], binary.LittleEndian.Uint32(forged[0x60:])-1)
	fs, err = open(sealed{disktest.Patched{Image: m, Off: root, Data: forged}})
	if err != nil {
		t.Fatal(err)
	}
	err = disktest.WalkLeniently(fs, nil)
	if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "there is no checksum") {
		t.Errorf("a checksum that is not there: %v", err)
	}
}

// newestBlock returns where the newest leaf of a tree lies in an image of one
// device whose addresses are those of the device.
func newestBlock(raw []byte, owner uint64) int64 {
	var newest uint64
	at := int64(-1)
	for off := 0; off < len(raw); off += 4096 {
		b := raw[off : off+4096]
		if !bytes.Equal(b[sealedFSID:sealedFSID+16], raw[65536+sealedFSID:65536+sealedFSID+16]) || off == 65536 {
			continue
		}
		if generation := binary.LittleEndian.Uint64(b[0x50:]); binary.LittleEndian.Uint64(b[0x58:]) == owner && b[0x64] == 0 && generation > newest {
			newest, at = generation, int64(off)
		}
	}
	return at
}
