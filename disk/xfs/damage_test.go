package xfs_test

import (
	"bytes"
	"errors"
	"flag"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

var thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// damage reads damaged images. The memory is the cache's and as much again.
func damage() *disktest.Damage {
	d := &disktest.Damage{
		Layer: "xfs", Open: open, BigEndian: true, Share: 250, MaxAlloc: 32 << 20, MaxRead: 64 << 20,
		Thorough: *thorough, Single: []string{"superblock", "log"},
	}
	if *thorough {
		d.Share = 3
	}
	return d
}

// TestDamage damages each field of each structure, see [disktest.Damage].
func TestDamage(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			d := damage()
			if s.dirty {
				d.Share *= 3 // each of them replays the log
			}
			d.Fields(t, disktest.LoadSeed(t, s.name), s.version == 5 && !s.dirty)
		})
	}
}

// TestSealedDamage damages fields, and makes the checksums right again.
func TestSealedDamage(t *testing.T) {
	for _, s := range seeds {
		if s.version == 5 {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				d := sealedDamage()
				if s.dirty {
					d.Share *= 3
				}
				d.Fields(t, disktest.LoadSeed(t, s.name), false)
			})
		}
	}
}

func sealedDamage() *disktest.Damage {
	d := damage()
	d.Open = func(s disk.Sparse) (disk.Filesystem, error) { return open(resealed{s}) }
	return d
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
	m := disktest.LoadSeed(t, "v5-1k")
	seen := make(map[string]bool)
	for _, off := range damage().Structures(t, m) {
		// The last byte of a block is covered by its checksum, or is part of it.
		p := disktest.Patched{Image: m, Off: off.Offset + off.Length - 1, Data: []byte{0xa5}}
		var detail *disk.Error
		if got := damage().Read(p); errors.As(got.Err, &detail) {
			seen[disktest.KindOf(detail.Structure)] = true
		}
	}
	for _, kind := range []string{"superblock", "directory #", "extents of inode #", "extended attributes of inode #", "attribute value of inode #"} {
		if !seen[kind] {
			t.Errorf("no error names %q: %v", kind, seen)
		}
	}
	fs, err := open(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, ino := range []uint64{0, 1, fs.Info().Root + 1, fs.Info().Root + 60, 1 << 32, 1<<56 - 1, 1<<64 - 1} {
		if _, err := fs.Inode(ino); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("inode %d: %v", ino, err)
		}
	}
}

// TestUnusedBytes damages bytes that the reader does not use, of structures that
// it does: only the checksum can tell.
func TestUnusedBytes(t *testing.T) {
	m := disktest.LoadSeed(t, "v5-1k")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	fs := openSeed(t, "v5-1k", xfs.Options{})
	for _, d := range []struct {
		at   int
		want string
	}{
		{0x7f, "superblock"}, // the most that inodes take
		{inodeAt(disktest.Lookup(t, fs, "a/small")) + 104 + 7, "inode #"}, // the count of changes
		{blockWith(raw, "XSLM") + 1000, "symlink #"},                      // behind the target
		{blockWith(raw, "XARM") + 48, "attribute value of inode #"},
		{blockWith(raw, "XDD3") + 48, "directory #"}, // the largest free piece
		{blockWith(raw, "BMA3") + 1000, "extents of inode #"},
	} {
		p := disktest.Patched{Image: m, Off: int64(d.at), Data: []byte{raw[d.at] ^ 0x40}}
		var detail *disk.Error
		if got := damage().Read(p); !errors.As(got.Err, &detail) || disktest.KindOf(detail.Structure) != d.want {
			t.Errorf("byte %#x: %v, want one about %s", d.at, got.Err, d.want)
		}
	}
}

// inodeAt is where a seed of one group, with two inodes in a block of 1 KiB, has
// an inode.
func inodeAt(ino uint64) int { return int(ino) * 512 }

// blockWith is where the first block with a magic number starts.
func blockWith(raw []byte, magic string) int {
	for at := 0; at < len(raw); at += 1024 {
		if bytes.HasPrefix(raw[at:], []byte(magic)) {
			return at
		}
	}
	return -1
}
