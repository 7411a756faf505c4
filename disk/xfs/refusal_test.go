package xfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// TestRefusals checks that what is not supported is refused by its name.
func TestRefusals(t *testing.T) {
	incompat := func(bit uint32) func([]byte) {
		return func(sb []byte) { binary.BigEndian.PutUint32(sb[216:], binary.BigEndian.Uint32(sb[216:])|bit) }
	}
	for _, r := range []struct {
		name   string
		damage func(sb []byte)
		want   error
		text   string
	}{
		{"needsrepair", incompat(0x10), disk.ErrUnsupported, "needsrepair"},
		{"metadir", incompat(0x100), disk.ErrUnsupported, "metadir"},
		{"zoned", incompat(0x200), disk.ErrUnsupported, "zoned"},
		{"unknown incompat", incompat(1 << 31), disk.ErrUnsupported, "incompat bit 0x80000000"},
		{"unknown ro_compat", func(sb []byte) { sb[212] |= 0x40 }, disk.ErrUnsupported, "ro_compat bit 0x40000000"},
		{"unknown compat", func(sb []byte) { sb[208] |= 0x40 }, disk.ErrUnsupported, "compat bit 0x40000000"},
		{"unknown log_incompat", func(sb []byte) { sb[220] |= 0x40 }, disk.ErrUnsupported, "log_incompat bit 0x40000000"},
		{"version 3", func(sb []byte) { sb[101] = sb[101]&0xf0 | 3 }, disk.ErrUnsupported, "version 3"},
		{"directories of version 1", func(sb []byte) { sb[100] &^= 0x20 }, disk.ErrUnsupported, "directories of version 1"},
		{"external log", func(sb []byte) { clear(sb[48:56]) }, disk.ErrUnsupported, "external log"},
		{"mkfs in progress", func(sb []byte) { sb[126] = 1 }, disk.ErrCorrupt, "mkfs.xfs did not finish"},
		{"block size", func(sb []byte) { sb[7]++ }, disk.ErrCorrupt, "blocks of 1025 bytes"},
		{"block shift", func(sb []byte) { sb[120] = 255 }, disk.ErrCorrupt, "or 2^255"},
		{"block of 512 bytes", func(sb []byte) { sb[6], sb[120] = 2, 9 }, disk.ErrCorrupt, "blocks of 512 bytes"},
		{"block of 128 KiB", func(sb []byte) { copy(sb[4:8], []byte{0, 2, 0, 0}); sb[120] = 17 }, disk.ErrCorrupt, "blocks of 131072 bytes"},
		{"block of another size than its shift", func(sb []byte) { sb[120]++ }, disk.ErrCorrupt, "blocks of 1024 bytes, or 2^11"},
		{"sector size", func(sb []byte) { sb[121]++ }, disk.ErrCorrupt, "sectors of 512 bytes, or 2^10"},
		{"inode size", func(sb []byte) { sb[104] = 1 }, disk.ErrCorrupt, "inodes of 256 bytes"},
		{"inodes in a block", func(sb []byte) { sb[107]++ }, disk.ErrCorrupt, "3 inodes of 512 bytes"},
		{"directory blocks", func(sb []byte) { sb[192] = 7 }, disk.ErrCorrupt, "directory blocks of 2^17"},
		{"sb_shared_vn", func(sb []byte) { sb[179] = 1 }, disk.ErrCorrupt, "sb_shared_vn"},
		{"no groups", func(sb []byte) { clear(sb[88:92]) }, disk.ErrCorrupt, "0 allocation groups"},
		{"many groups", func(sb []byte) { sb[88] = 1 }, disk.ErrCorrupt, "groups of 16384"},
		{"group shift", func(sb []byte) { sb[124]++ }, disk.ErrCorrupt, "numbered in 15 bits"},
		{"no log", func(sb []byte) { clear(sb[96:100]) }, disk.ErrCorrupt, "a log of 0 blocks"},
		{"log outside", func(sb []byte) { sb[50] = 1 }, disk.ErrCorrupt, "is outside"},
		{"root outside", func(sb []byte) { sb[56] = 1 }, disk.ErrCorrupt, "the root is inode"},
		{"log sectors", func(sb []byte) { sb[100] |= 8; sb[193] = 3 }, disk.ErrCorrupt, "log sectors"},
		{"features2", func(sb []byte) { sb[200] |= 0x80 }, disk.ErrUnsupported, "features2 bit 0x80000000"},
		{"too large", func(sb []byte) { sb[85]++; sb[14]++ }, disk.ErrCorrupt, ""},
		{"newer than the log", func(sb []byte) { sb[240]++ }, disk.ErrCorrupt, "the log ends at"},
	} {
		t.Run(r.name, func(t *testing.T) {
			m := disktest.LoadSeed(t, "v5-1k")
			sb := make([]byte, 512)
			if _, err := m.ReadAt(sb, 0); err != nil {
				t.Fatal(err)
			}
			r.damage(sb)
			seal(sb, 224)
			_, err := xfs.Open(disktest.Patched{Image: m, Data: sb}, xfs.Options{})
			var detail *disk.Error
			if !errors.Is(err, r.want) || !errors.As(err, &detail) || detail.Structure != "superblock" || !strings.Contains(detail.Detail, r.text) || detail.Hint == "" {
				t.Errorf("got %v, want %v with %q", err, r.want, r.text)
			}
		})
	}
}

// TestRealtime refuses the one file whose content lies on another device.
func TestRealtime(t *testing.T) {
	m := disktest.LoadSeed(t, "v5-1k")
	fs := openSeed(t, "v5-1k", xfs.Options{})
	ino := disktest.Lookup(t, fs, "a/small")
	flags := disktest.Patched{Image: m, Off: int64(ino)*512 + 90, Data: []byte{0, 1}}
	fs, err := xfs.Open(resealed{flags}, xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Open(ino); !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(err.Error(), "realtime") {
		t.Errorf("the content gives %v", err)
	}
	if _, err := fs.Open(disktest.Lookup(t, fs, "a/medium")); err != nil {
		t.Error(err)
	}
}

// TestRecognise checks what is no filesystem at all.
func TestRecognise(t *testing.T) {
	for _, size := range []int{0, 1, 3, 4, 512, 4096} {
		m := disktest.Image{ReaderAt: bytes.NewReader(make([]byte, size)), Length: int64(size)}
		if known, err := xfs.Recognise(m); known || err != nil {
			t.Errorf("%d zeros: %v, %v", size, known, err)
		}
		if _, err := xfs.Open(m, xfs.Options{}); err == nil {
			t.Errorf("%d zeros open", size)
		}
	}
}

// TestHuge opens a sparse disk of 16 TiB, and counts what that reads.
func TestHuge(t *testing.T) {
	var proto strings.Builder
	proto.WriteString("/boot\n0 0\nd--755 0 0\nd d--755 0 0\n")
	for i := range 10 {
		fmt.Fprintf(&proto, "%d p--644 0 0\n", i)
	}
	proto.WriteString("$\n$\n")
	file := t.TempDir() + "/prototype"
	if err := os.WriteFile(file, []byte(proto.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	path := makeImage(t, 16<<40-64<<10, "-p", file)
	counted := &disktest.Counted{Sparse: disktest.OpenImage(t, path)}
	fs, err := xfs.Open(counted, xfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	if err := disktest.WalkLeniently(fs, func(string, disktest.Node) { names++ }); err != nil {
		t.Fatal(err)
	}
	if names != 11 {
		t.Errorf("%d names", names)
	}
	if counted.Bytes.Load() > 1<<20 {
		t.Errorf("%d bytes read for %d small files", counted.Bytes.Load(), names)
	}
	used := int64(0)
	if err := fs.Used(0, func(_, length int64) error { used += length; return nil }); err != nil || used > 4<<30 {
		t.Errorf("%d bytes are used: %v", used, err)
	}
}
