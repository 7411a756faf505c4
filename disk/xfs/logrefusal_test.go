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

// TestIntents leaves operations half done. The kernel cannot judge: they go with
// others that are not there.
func TestIntents(t *testing.T) {
	const medium = 2 // MAP is 1, UNMAP 2
	content := func(t *testing.T, r *rules) (string, error) {
		fs := openFilesystem(t, r.image())
		f, err := fs.Open(r.small)
		if err != nil {
			return "", err
		}
		p := make([]byte, f.Size())
		_, err = f.ReadAt(p, 0)
		if errors.Is(err, disk.ErrCorrupt) {
			return "", err
		}
		return string(p), nil
	}
	block := func(r *rules) uint64 { return uint64(bytes.Index(r.raw, []byte("mediummedium")) / 1024) }
	for _, c := range []struct {
		name  string
		build func(r *rules)
		want  string
	}{
		{"mapped", func(r *rules) { r.record(transaction(1, r.change(1, 1, block(r)))...) }, "mediu"},
		{"unmapped", func(r *rules) { r.record(transaction(1, r.change(1, medium, block(r)))...) }, "\x00\x00\x00\x00\x00"},
		{"unmapped, then mapped", func(r *rules) {
			r.record(transaction(1, r.change(1, medium, 99), r.change(2, 1, block(r)))...)
		}, "mediu"},
		{"mapped as unwritten", func(r *rules) { r.record(transaction(1, r.change(1, 1|1<<30, block(r)))...) }, "\x00\x00\x00\x00\x00"},
		{"done", func(r *rules) {
			r.record(transaction(1, r.change(1, 1, block(r)))...)
			r.record(transaction(2, [][]byte{little(uint16(0x1245), uint16(1), uint32(0), uint64(1))})...)
		}, "small"},
		{"another done", func(r *rules) {
			r.record(transaction(1, r.change(1, 1, block(r)))...)
			r.record(transaction(2, [][]byte{little(uint16(0x1245), uint16(1), uint32(0), uint64(2))})...)
		}, "mediu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRules(t, 100)
			c.build(r)
			if got, err := content(t, r); got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	t.Run("exchange", func(t *testing.T) {
		r := newRules(t, 100)
		r.record(transaction(1, [][]byte{little(uint16(0x1248), uint16(1), uint32(0), uint64(1), r.small, uint64(99), uint64(0))})...)
		if _, err := content(t, r); !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("the content gives %v", err)
		}
		r = newRules(t, 100)
		dir, link := disktest.Lookup(t, r.fs, "large"), disktest.Lookup(t, r.fs, "symlink")
		r.record(transaction(1, [][]byte{little(uint16(0x1248), uint16(1), uint32(0), uint64(1), dir, link, uint64(0))})...)
		fs := openFilesystem(t, r.image())
		if err := fs.ReadDir(dir, nil); !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("the entries give %v", err)
		}
		if _, err := fs.Readlink(link); !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("the target gives %v", err)
		}
	})
	t.Run("attribute", func(t *testing.T) {
		for operation, want := range map[uint32]error{1: disk.ErrUnsupported, 4: nil} {
			r := newRules(t, 100)
			ino := disktest.Lookup(t, r.fs, "xattrs")
			r.record(transaction(1, [][]byte{little(uint16(0x1246), uint16(1), uint32(0), uint64(1), ino, operation, uint32(0), uint32(0), uint32(0))})...)
			fs := openFilesystem(t, r.image())
			if _, err := fs.Xattrs(ino); !errors.Is(err, want) {
				t.Errorf("operation %d: the attributes give %v", operation, err)
			}
			if _, err := fs.Open(ino); err != nil {
				t.Error(err)
			}
			if remarks := fs.Info().Remarks; len(remarks) != 2 || !strings.Contains(remarks[1], "1 operation") {
				t.Errorf("the remarks are %q", remarks)
			}
		}
	})
}

// TestLogRefusals has logs refused that cannot be replayed, by name.
func TestLogRefusals(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(r *rules)
		want  error
		text  string
	}{
		{"unknown item", func(r *rules) { r.record(transaction(1, [][]byte{little(uint16(0x1299), uint16(1))})...) }, disk.ErrUnsupported, "item type 0x1299"},
		{"a region is missing", func(r *rules) { r.record(transaction(1, r.relinked()[:1])...) }, disk.ErrCorrupt, "of which 1 are there"},
		{"too many regions", func(r *rules) { r.record(transaction(1, [][]byte{little(uint16(0x123c), uint16(0xffff))})...) }, disk.ErrCorrupt, "65535 regions"},
		{"a bad intent", func(r *rules) {
			item := r.change(1, 1, 5)
			item[0] = item[0][:20]
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "of type 0x1244"},
		{"an intent of many extents", func(r *rules) {
			item := r.change(1, 1, 5)
			item[0][4] = 2
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "2 extents"},
		{"an intent outside", func(r *rules) { r.record(transaction(1, r.change(1, 1, 1<<50))...) }, disk.ErrCorrupt, "are said to be at"},
		{"an inode outside", func(r *rules) {
			item := r.chmod(0o600)
			binary.LittleEndian.PutUint64(item[0][40:], 1<<50)
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "32 sectors from"},
		{"an inode where none is", func(r *rules) {
			item := r.chmod(0o600)
			binary.LittleEndian.PutUint64(item[0][16:], 2)
			binary.LittleEndian.PutUint64(item[0][40:], 0)
			binary.LittleEndian.PutUint32(item[0][52:], 2*512)
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "there is no inode"},
		{"an inode in the place of another", func(r *rules) {
			item := r.chmod(0o600)
			binary.LittleEndian.PutUint32(item[0][52:], binary.LittleEndian.Uint32(item[0][52:])^512)
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "of the 32 sectors"},
		{"an inode without its core", func(r *rules) { r.record(transaction(1, r.chmod(0o600)[:1])...) }, disk.ErrCorrupt, "of which 1 are there"},
		{"a creation outside", func(r *rules) {
			item := append(little(uint16(0x123f), uint16(1)), 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 64, 0, 0, 2, 0, 0, 0, 0, 32, 0, 0, 0, 0)
			r.record(transaction(1, [][]byte{item})...)
		}, disk.ErrCorrupt, "64 inodes of 512 bytes in 32 blocks"},
		{"more in a buffer than its map has", func(r *rules) {
			item := r.relinked()
			item[1] = append(item[1], make([]byte, 128)...)
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "more bytes than the map has"},
		{"a map without bits", func(r *rules) {
			item := r.relinked()
			clear(item[0][20:])
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "more regions than the map has"},
		{"no header", func(r *rules) { r.record(transaction(1, r.relinked())[0], op{1, 0, make([]byte, 16)}) }, disk.ErrCorrupt, "start with its header"},
		{"flags", func(r *rules) { r.record(op{1, 1, nil}, op{1, 0x40, nil}) }, disk.ErrCorrupt, "flags 0x40"},
		{"behind the disk", func(r *rules) {
			item := r.relinked()
			binary.LittleEndian.PutUint64(item[0][8:], 1<<40)
			r.record(transaction(1, item)...)
		}, disk.ErrCorrupt, "8 sectors"},
		{"unknown client", func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.at(r.last + 1)[8] = 1
			r.reseal()
		}, disk.ErrCorrupt, "client 0x1"},
		{"of another filesystem", func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.at(r.last)[304] ^= 1
			r.reseal()
		}, disk.ErrCorrupt, "this one is"},
		{"of IRIX", func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.at(r.last)[303] = 2
			r.reseal()
		}, disk.ErrUnsupported, "log format 2"},
		{"damaged at its tail", func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			bad := r.last
			for i := range 20 {
				r.record(transaction(uint32(i+2), r.chmod(0o600))...)
			}
			r.at(bad + 1)[100] ^= 1
		}, disk.ErrCorrupt, "checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRules(t, 100)
			c.build(r)
			_, err := xfs.Open(disktest.OpenImage(t, r.image()), xfs.Options{})
			var detail *disk.Error
			if !errors.Is(err, c.want) || !errors.As(err, &detail) || !strings.Contains(detail.Detail, c.text) || detail.Hint == "" {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}
