package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// open opens the seed as it was changed.
func (s *fieldSeed) open() (*ext4.Filesystem, error) {
	return ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(s.raw), Length: int64(len(s.raw))}, ext4.Options{})
}

// readInode opens the seed as it was changed, and reads all there is of one inode.
func (s *fieldSeed) readInode(ino uint64) error {
	fs, err := s.open()
	if err != nil {
		return err
	}
	return disktest.ReadInode(fs, ino)
}

// wantRefusal fails a test unless an error is a refusal that names the structure
// and says the text. Without a text there has to be no error.
func wantRefusal(t *testing.T, err, want error, structure, text string) {
	t.Helper()
	var detail *disk.Error
	switch {
	case want == nil && err == nil:
	case want == nil || !errors.Is(err, want) || !errors.As(err, &detail) || detail.Structure != structure || !strings.Contains(detail.Detail, text):
		t.Errorf("got %v, want %v of %s with %q", err, want, structure, text)
	}
}

// wantInodeRefusal fails a test unless reading an inode is refused as one that is of
// this inode, or, without a want, is not.
func (s *fieldSeed) wantInodeRefusal(t *testing.T, ino uint64, want error, text string) {
	t.Helper()
	err := s.readInode(ino)
	var detail *disk.Error
	structure := ""
	if errors.As(err, &detail) {
		structure = detail.Structure
	}
	if want != nil && !strings.HasSuffix(structure, fmt.Sprintf("inode %d", ino)) {
		t.Errorf("%q is not of inode %d", structure, ino)
	}
	wantRefusal(t, err, want, structure, text)
}

// extentNode puts the header of a node and its entries into p: numbers of three
// words each.
func extentNode(p []byte, depth, room uint16, entries ...uint32) {
	le := binary.LittleEndian
	le.PutUint16(p, 0xf30a)
	le.PutUint16(p[2:], uint16(len(entries)/3))
	le.PutUint16(p[4:], room)
	le.PutUint16(p[6:], depth)
	copy(p[12:], numbers(entries...))
}

// TestDamagedInodes: what is wrong with an inode, its tree of extents or its map of
// blocks is told by name.
func TestDamagedInodes(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name, seed, path string
		change           func(s *fieldSeed, n []byte) // n: the inode
		want             error
		text             string
	}{
		{"as it is", "plain", "a/small", func(*fieldSeed, []byte) {}, nil, ""},
		{"not in use", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n[0x1a:], 0) }, disk.ErrNotExist, "not in use"},
		{"no type", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n, 0o644) }, disk.ErrCorrupt, "no known file type"},
		{"type 3", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n, 0o030644) }, disk.ErrCorrupt, "no known file type"},
		{"size", "plain", "a/small", func(_ *fieldSeed, n []byte) { n[0x6f] = 0x80 }, disk.ErrCorrupt, "its size is"},
		{"size of a map", "map", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x6c:], 5) }, disk.ErrCorrupt, "its size is"},
		{"odd extra size", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n[0x80:], 30) }, disk.ErrCorrupt, "i_extra_isize is 30"},
		{"extra size to the end", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n[0x80:], 128) }, nil, ""},
		{"extra size beyond", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint16(n[0x80:], 132) }, disk.ErrCorrupt, "i_extra_isize is 132"},
		{"nanoseconds", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x88:], 1_000_000_000<<2) }, disk.ErrCorrupt, "1000000000 nanoseconds"},
		{"last nanosecond", "plain", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x88:], 999_999_999<<2) }, nil, ""},

		{"magic number", "plain", "a/small", func(_ *fieldSeed, n []byte) { n[0x28] ^= 1 }, disk.ErrCorrupt, "magic number"},
		{"no room", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 0) }, disk.ErrCorrupt, "0 entries of 0"},
		{"more room than there is", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 5) }, disk.ErrCorrupt, "0 entries of 5"},
		{"more entries than room", "plain", "a/small", func(_ *fieldSeed, n []byte) { n[0x2a] = 5 }, disk.ErrCorrupt, "5 entries of 4"},
		{"deep", "plain", "a/small", func(_ *fieldSeed, n []byte) { n[0x2e] = 6 }, disk.ErrCorrupt, "depth 6"},
		{"nothing", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4) }, nil, ""},
		{"index of nothing", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 1, 4) }, disk.ErrCorrupt, "an index node has no entries"},
		{"index to block 0", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 1, 4, 0, 0, 0) }, disk.ErrCorrupt, "is out of order"},
		{"index to the superblock", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 1, 4, 0, 1, 0) }, disk.ErrCorrupt, "block 1"},
		{"index behind the end", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 1, 4, 0, 512, 0) }, disk.ErrCorrupt, "block 512"},
		{"index far behind", "plain", "a/small", func(_ *fieldSeed, n []byte) { extentNode(n[0x28:], 1, 4, 0, 100, 1) }, disk.ErrCorrupt, "block 4294967396"},
		{"an index twice", "plain", "a/small", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 84, 0, 1, at)
			extentNode(n[0x28:], 1, 4, 0, at, 0, 0, at, 0)
		}, disk.ErrCorrupt, "is out of order"},
		{"a leaf", "plain", "a/small", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 84, 0, 1, at)
			extentNode(n[0x28:], 1, 4, 0, at, 0)
		}, nil, ""},
		{"an empty leaf", "plain", "a/small", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 84)
			extentNode(n[0x28:], 1, 4, 0, at, 0)
		}, disk.ErrCorrupt, "a node has no entries"},
		{"a leaf without room", "plain", "a/small", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 85, 0, 1, at)
			extentNode(n[0x28:], 1, 4, 0, at, 0)
		}, disk.ErrCorrupt, "1 entries of 85"},
		{"a leaf that is none", "plain", "a/small", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 1, 84, 0, at, 0)
			extentNode(n[0x28:], 1, 4, 0, at, 0)
		}, disk.ErrCorrupt, "depth 1 where 0 is due"},
		{"a leaf before its index", "plain", "a/medium", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 84, 0, 1, at)
			extentNode(n[0x28:], 1, 4, 1, at, 0)
		}, disk.ErrCorrupt, "is out of order"},
		{"a leaf behind its index", "plain", "a/medium", func(s *fieldSeed, n []byte) {
			at := uint32(s.freeBlock())
			extentNode(s.raw[at*1024:], 0, 84, 0, 2, at-1)
			extentNode(n[0x28:], 1, 4, 0, at, 0, 1, at, 0)
		}, disk.ErrCorrupt, "is out of order"},
		{"an extent of nothing", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 0, 100) }, disk.ErrCorrupt, "an extent of 0 blocks"},
		{"extents over one another", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 2, 100, 1, 1, 102) }, disk.ErrCorrupt, "is out of order"},
		{"extents side by side", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 2, 100, 2, 1, 102) }, nil, ""},
		{"extent to the last block of a file", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 1<<32-2, 1, 100) }, nil, ""},
		{"extent behind the last block of a file", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 1<<32-1, 2, 100) }, disk.ErrCorrupt, "is out of order"},
		{"extent at block 0", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 1, 0) }, disk.ErrCorrupt, "lies in blocks 0 to 0"},
		{"extent at the superblock", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 1, 1) }, disk.ErrCorrupt, "lies in blocks 1 to 1"},
		{"extent at the end", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 2, 510) }, nil, ""},
		{"extent over the end", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 3, 510) }, disk.ErrCorrupt, "lies in blocks 510 to 512"},
		{"extent far behind", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 1<<16|1, 100) }, disk.ErrCorrupt, "lies in blocks 4294967396"},
		{"unwritten extent over the end", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 32769+2, 510) }, disk.ErrCorrupt, "lies in blocks 510 to 512"},
		{"the longest extent", "plain", "a/small", func(s *fieldSeed, n []byte) { extentNode(n[0x28:], 0, 4, 0, 32768, 100) }, disk.ErrCorrupt, "lies in blocks 100 to 32867"},

		{"block of a map at the superblock", "map", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x28:], 1) }, disk.ErrCorrupt, "block 0 is said to be at 1"},
		{"last block of a map", "map", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x28:], 511) }, nil, ""},
		{"block of a map behind the end", "map", "a/small", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x28:], 512) }, disk.ErrCorrupt, "block 0 is said to be at 512"},
		{"indirect block at the superblock", "map", "holes", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x28+48:], 1) }, disk.ErrCorrupt, "block 1"},
		{"double indirect block behind the end", "map", "holes", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x28+52:], 512) }, disk.ErrCorrupt, "block 512"},

		{"a symlink of a block", "plain", "symlink", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x04:], 1024) }, disk.ErrCorrupt, "a symlink of 1024 bytes"},
		{"a symlink of almost a block", "plain", "symlink", func(s *fieldSeed, n []byte) {
			le.PutUint32(n[0x04:], 1023)
			copy(s.raw[s.blockOf([]byte("ssss")):][:1023], bytes.Repeat([]byte{'s'}, 1023))
		}, nil, ""},
		{"a symlink with a NUL", "plain", "symlink", func(s *fieldSeed, n []byte) { s.raw[s.blockOf([]byte("ssss"))+199] = 0 }, disk.ErrCorrupt, "has a NUL in it"},
		{"a symlink to nothing", "plain", "symlink", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x04:], 0) }, disk.ErrCorrupt, "is empty"},
		{"a long symlink without a block", "plain", "symlink", func(_ *fieldSeed, n []byte) { le.PutUint32(n[0x1c:], 0) }, disk.ErrCorrupt, "200 bytes without a block"},
		{"a short symlink of 60 bytes", "plain", "a/fast", func(_ *fieldSeed, n []byte) {
			le.PutUint32(n[0x04:], 60)
			copy(n[0x28:], bytes.Repeat([]byte{'s'}, 60))
		}, nil, ""},
		{"a short symlink of 61 bytes", "plain", "a/fast", func(_ *fieldSeed, n []byte) {
			le.PutUint32(n[0x04:], 61)
			copy(n[0x28:], bytes.Repeat([]byte{'s'}, 60))
		}, disk.ErrCorrupt, "61 bytes without a block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newFieldSeed(t, c.seed)
			ino := disktest.Lookup(t, s.fs, c.path)
			c.change(s, s.raw[s.inodeAt(int(ino)):][:s.size])
			s.wantInodeRefusal(t, ino, c.want, c.text)
		})
	}
}

// TestDamagedDirectories: what is wrong with a block of a directory, or with an entry,
// is told by name.
func TestDamagedDirectories(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func(s *fieldSeed, n, block []byte) // block: the first one of "a/b", which holds "c" and room
		want   error
		text   string
	}{
		{"as it is", func(*fieldSeed, []byte, []byte) {}, nil, ""},
		{"itself", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b, 12) }, disk.ErrCorrupt, `entry 0 is not "."`},
		{"name of itself", func(_ *fieldSeed, _, b []byte) { b[6], b[9] = 2, '.' }, disk.ErrCorrupt, `entry 0 is not "."`},
		{"name of the parent", func(_ *fieldSeed, _, b []byte) { b[12+9] = 'x' }, disk.ErrCorrupt, `entry 1 is not ".."`},
		{"record of 0", func(_ *fieldSeed, _, b []byte) { le.PutUint16(b[24+4:], 0) }, disk.ErrCorrupt, "rec_len 0"},
		{"record of 8", func(_ *fieldSeed, _, b []byte) { le.PutUint16(b[24+4:], 8) }, disk.ErrCorrupt, "rec_len 8"},
		{"odd record", func(_ *fieldSeed, _, b []byte) { le.PutUint16(b[24+4:], 14) }, disk.ErrCorrupt, "rec_len 14"},
		{"record over the end", func(_ *fieldSeed, _, b []byte) { le.PutUint16(b[24+4:], 1004) }, disk.ErrCorrupt, "rec_len 1004"},
		{"record to shortly before the end", func(_ *fieldSeed, _, b []byte) { le.PutUint16(b[24+4:], 992) }, disk.ErrCorrupt, "rec_len 992"},
		{"record and the least one", func(_ *fieldSeed, _, b []byte) {
			le.PutUint16(b[24+4:], 988)
			copy(b[1012:], []byte{0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0})
		}, nil, ""},
		{"long name", func(_ *fieldSeed, _, b []byte) {
			le.PutUint16(b[24+4:], 12)
			copy(b[36:], []byte{0, 0, 0, 0, 0xdc, 3, 0, 0}) // the rest: 988 bytes
			b[24+6] = 5
		}, disk.ErrCorrupt, "a name of 5 bytes"},
		{"no name", func(_ *fieldSeed, _, b []byte) { b[24+6] = 0 }, disk.ErrCorrupt, "a name of 0 bytes"},
		{"slash", func(_ *fieldSeed, _, b []byte) { b[24+8] = '/' }, disk.ErrCorrupt, "'/' or NUL"},
		{"NUL", func(_ *fieldSeed, _, b []byte) { b[24+8] = 0 }, disk.ErrCorrupt, "'/' or NUL"},
		{"not in use", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 0); b[24+8] = '/' }, nil, ""},
		{"last inode", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 96) }, nil, ""},
		{"inode behind the last", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 97) }, disk.ErrCorrupt, "refers to inode 97"},
		{"inode of the journal", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 8) }, disk.ErrCorrupt, "refers to inode 8"},
		{"last reserved inode", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 10) }, disk.ErrCorrupt, "refers to inode 10"},
		{"root", func(_ *fieldSeed, _, b []byte) { le.PutUint32(b[24:], 2) }, nil, ""},
		{"a hole", func(_ *fieldSeed, n, _ []byte) { le.PutUint32(n[0x04:], 2048) }, disk.ErrCorrupt, "it is a hole"},
		{"prealloced", func(_ *fieldSeed, n, _ []byte) { le.PutUint16(n[0x28+16:], 32769) }, nil, ""},
		{"half a block", func(_ *fieldSeed, n, _ []byte) { le.PutUint32(n[0x04:], 1536) }, disk.ErrCorrupt, "a directory of 1536 bytes"},
		{"larger than the filesystem", func(_ *fieldSeed, n, _ []byte) { le.PutUint32(n[0x04:], 513<<10) }, disk.ErrCorrupt, "is larger than the filesystem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newFieldSeed(t, "plain")
			ino := disktest.Lookup(t, s.fs, "a/b")
			n := s.raw[s.inodeAt(int(ino)):][:256]
			c.change(s, n, s.raw[le.Uint32(n[0x28+20:])*1024:][:1024])
			s.wantInodeRefusal(t, ino, c.want, c.text)
		})
	}
}

// TestDamagedXattrs: what is wrong with a block of attributes is told by name.
func TestDamagedXattrs(t *testing.T) {
	le := binary.LittleEndian
	// entry makes an attribute of the namespace "user" at the start of the list, with
	// nothing behind it.
	entry := func(b []byte, name string, off, size int) {
		clear(b[32:])
		copy(b[32:], []byte{byte(len(name)), 1, byte(off), byte(off >> 8), 0, 0, 0, 0, byte(size), byte(size >> 8)})
		copy(b[48:], name)
	}
	for _, c := range []struct {
		name   string
		change func(n, block []byte)
		want   error
		text   string
	}{
		{"as it is", func(_, _ []byte) {}, nil, ""},
		{"at the superblock", func(n, _ []byte) { le.PutUint32(n[0x68:], 1) }, disk.ErrCorrupt, "it is block 1,"},
		{"behind the end", func(n, _ []byte) { le.PutUint32(n[0x68:], 512) }, disk.ErrCorrupt, "it is block 512,"},
		{"far behind", func(n, _ []byte) { n[0x76] = 1 }, disk.ErrCorrupt, "it is block 42949"},
		{"magic number", func(_, b []byte) { b[0] ^= 1 }, disk.ErrCorrupt, "magic number"},
		{"two blocks", func(_, b []byte) { b[8] = 2 }, disk.ErrCorrupt, "it has 2 blocks"},
		{"one attribute", func(_, b []byte) { entry(b, "name", 1020, 4) }, nil, ""},
		{"no name", func(_, b []byte) { entry(b, "", 1020, 4) }, nil, ""}, // as the kernel does
		{"NUL", func(_, b []byte) { entry(b, "na\x00e", 1020, 4) }, disk.ErrCorrupt, "has a NUL in it"},
		{"no such namespace", func(_, b []byte) { entry(b, "name", 1020, 4); b[33] = 99 }, disk.ErrUnsupported, "of kind 99"},
		{"namespace 0", func(_, b []byte) { entry(b, "name", 1020, 4); b[33] = 0 }, disk.ErrUnsupported, "of kind 0"},
		{"value over the end", func(_, b []byte) { entry(b, "name", 1021, 4) }, disk.ErrCorrupt, "is outside"},
		{"large value", func(_, b []byte) { entry(b, "name", 1020, 4); le.PutUint32(b[40:], 1<<31) }, disk.ErrCorrupt, "is outside"},
		{"value behind the list", func(_, b []byte) { entry(b, "name", 32+20+4, 4) }, nil, ""},
		{"value over the list's end", func(_, b []byte) { entry(b, "name", 32+20, 4) }, disk.ErrCorrupt, "lies within the list"},
		{"value in the list", func(_, b []byte) { entry(b, "name", 34, 4) }, disk.ErrCorrupt, "lies within the list"},
		{"no value in the list", func(_, b []byte) { entry(b, "name", 34, 0) }, nil, ""},
		{"twice", func(_, b []byte) { entry(b, "name", 1020, 4); copy(b[52:72], b[32:52]) }, disk.ErrCorrupt, "is there twice"},
		{"a list without an end", func(_, b []byte) {
			for at := 32; at+16 <= 1024; at += 16 {
				entry(b[at-32:][:48:48], "", 0, 0)
			}
		}, disk.ErrCorrupt, "has no end"},
		{"value in an inode", func(_, b []byte) { entry(b, "name", 0, 4); b[36] = 20 }, disk.ErrCorrupt, "no feature ea_inode"},
		{"an ACL of another version", func(_, b []byte) { entry(b, "", 1020, 4); b[33] = 2; b[1020] = 2 }, disk.ErrCorrupt, "an ACL has version 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newFieldSeed(t, "plain")
			ino := disktest.Lookup(t, s.fs, "xattrs")
			n := s.raw[s.inodeAt(int(ino)):][:256]
			c.change(n, s.raw[le.Uint32(n[0x68:])*1024:][:1024])
			err := s.readInode(ino)
			var detail *disk.Error
			if errors.As(err, &detail) && !strings.Contains(detail.Structure, fmt.Sprintf("of inode %d", ino)) {
				t.Errorf("%q is not of inode %d", detail.Structure, ino)
			}
			if detail == nil {
				detail = new(disk.Error)
			}
			wantRefusal(t, err, c.want, detail.Structure, c.text)
		})
	}
}

// TestGeometry: a superblock whose numbers do not fit one another is refused, and says
// which.
func TestGeometry(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name, seed string
		change     func(sb []byte)
		text       string // none: it opens
	}{
		{"as it is", "plain", func([]byte) {}, ""},
		{"magic number", "plain", func(sb []byte) { sb[0x38] ^= 1 }, "magic number"},
		{"block size", "plain", func(sb []byte) { sb[0x18] = 7 }, "block size of 2^(10+7)"},
		{"huge block size", "plain", func(sb []byte) { le.PutUint32(sb[0x18:], 1<<32-1) }, "block size of 2^(10+4294967295)"},
		{"cluster size", "plain", func(sb []byte) { sb[0x1c] = 23 }, "cluster size of 2^(10+23)"},
		{"clusters without bigalloc", "plain", func(sb []byte) { sb[0x1c] = 1 }, "without bigalloc"},
		{"clusters smaller than blocks", "plain", func(sb []byte) { sb[0x65] |= 2; sb[0x18], sb[0x1c] = 1, 0 }, "clusters of 1024 bytes, blocks of 2048"},
		{"no clusters in a group", "plain", func(sb []byte) { sb[0x65] |= 2; le.PutUint32(sb[0x24:], 0) }, "0 clusters and"},
		{"too many clusters in a group", "plain", func(sb []byte) {
			sb[0x65] |= 2
			le.PutUint32(sb[0x20:], 8200)
			le.PutUint32(sb[0x24:], 8200)
		}, "8200 clusters and"},
		{"blocks and clusters of a group", "plain", func(sb []byte) { sb[0x65] |= 2; le.PutUint32(sb[0x20:], 4096) }, "clusters and 4096 blocks"},
		{"no blocks in a group", "plain", func(sb []byte) { le.PutUint32(sb[0x20:], 0) }, "0 blocks per group"},
		{"too many blocks in a group", "plain", func(sb []byte) { le.PutUint32(sb[0x20:], 8200) }, "8200 blocks per group"},
		{"odd blocks in a group", "plain", func(sb []byte) { le.PutUint32(sb[0x20:], 8191) }, "8191 blocks per group"},
		{"first block", "plain", func(sb []byte) { sb[0x14] = 0 }, "the first data block is 0, not 1"},
		{"no blocks", "plain", func(sb []byte) { le.PutUint32(sb[0x04:], 1) }, "1 blocks, the first of which"},
		{"small inodes", "map", func(sb []byte) { le.PutUint16(sb[0x58:], 64) }, "inode size 64"},
		{"inodes of three parts", "plain", func(sb []byte) { le.PutUint16(sb[0x58:], 384) }, "inode size 384"},
		{"inodes larger than blocks", "plain", func(sb []byte) { le.PutUint16(sb[0x58:], 2048) }, "inode size 2048"},
		{"few inodes in a group", "plain", func(sb []byte) { le.PutUint32(sb[0x28:], 3) }, "3 inodes per group"},
		{"many inodes in a group", "plain", func(sb []byte) { le.PutUint32(sb[0x28:], 8193) }, "8193 inodes per group"},
		{"inodes", "plain", func(sb []byte) { le.PutUint32(sb[0x00:], 95) }, "95 inodes, but 1 groups of 96"},
		{"first inode", "plain", func(sb []byte) { le.PutUint32(sb[0x54:], 10) }, "the first inode is number 10"},
		{"first inode behind the last", "plain", func(sb []byte) { le.PutUint32(sb[0x54:], 97) }, "the first inode is number 97"},
		{"small descriptors", "plain", func(sb []byte) { le.PutUint16(sb[0xfe:], 32) }, "group descriptors of 32 bytes"},
		{"odd descriptors", "plain", func(sb []byte) { le.PutUint16(sb[0xfe:], 96) }, "group descriptors of 96 bytes"},
		{"large descriptors", "plain", func(sb []byte) { le.PutUint16(sb[0xfe:], 2048) }, "group descriptors of 2048 bytes"},
		{"descriptors without 64bit", "map", func(sb []byte) { le.PutUint16(sb[0xfe:], 96) }, ""},
		{"checksum", "csum", func(sb []byte) { sb[0x78] ^= 1 }, "checksum is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newFieldSeed(t, c.seed)
			c.change(s.raw[1024:2048])
			_, err := s.open()
			want := disk.ErrCorrupt
			if c.text == "" {
				want = nil
			}
			wantRefusal(t, err, want, "superblock", c.text)
		})
	}
}
