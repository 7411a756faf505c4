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

// clone returns a copy whose bytes can be changed.
func (s *fieldSeed) clone(t *testing.T) *fieldSeed {
	return &fieldSeed{t: t, image: s.image, fs: s.fs, raw: bytes.Clone(s.raw)}
}

// readInode opens a seed as it was changed, with checksums that are right, and reads
// all there is of one inode.
func (s *fieldSeed) readInode(ino uint64) error {
	fs, err := xfs.Open(resealed{disktest.Mem(s.raw)}, xfs.Options{})
	if err != nil {
		return err
	}
	return disktest.ReadInode(fs, ino)
}

// putExtent puts an extent into a list.
func putExtent(p []byte, i int, logical, block, count uint64) {
	binary.BigEndian.PutUint64(p[i*16:], logical<<9|block>>43)
	binary.BigEndian.PutUint64(p[i*16+8:], block<<21|count)
}

// TestDamagedFiles: what is wrong with an inode, and with what belongs to it, is told
// by name.
func TestDamagedFiles(t *testing.T) {
	be := binary.BigEndian
	const blocks = 16384 // of the filesystem
	original := newFieldSeed(t, "v5-1k")
	block := func(s *fieldSeed, magic string, at int) []byte { return s.raw[s.with(magic, at)[0]:][:1024] }
	for _, c := range []struct {
		name, path string
		change     func(s *fieldSeed, n []byte) // n: the inode
		want       error
		text       string
	}{
		{"as it is", "a/small", func(*fieldSeed, []byte) {}, nil, ""},
		{"magic number", "a/small", func(_ *fieldSeed, n []byte) { n[1] ^= 1 }, disk.ErrCorrupt, "magic number"},
		{"version", "a/small", func(_ *fieldSeed, n []byte) { n[4] = 2 }, disk.ErrCorrupt, "version 2 of inodes"},
		{"number", "a/small", func(_ *fieldSeed, n []byte) { n[159] ^= 1 }, disk.ErrCorrupt, "says that it is"},
		{"filesystem", "a/small", func(_ *fieldSeed, n []byte) { n[160] ^= 1 }, disk.ErrCorrupt, "belongs to filesystem"},
		{"not in use", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint16(n[2:], 0) }, disk.ErrNotExist, "not in use"},
		{"no links", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint32(n[16:], 0) }, disk.ErrCorrupt, "no links"},
		{"most links", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint32(n[16:], 1<<31-1) }, nil, ""},
		{"too many links", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint32(n[16:], 1<<31) }, disk.ErrCorrupt, "2147483648 links"},
		{"size", "a/small", func(_ *fieldSeed, n []byte) { n[56] = 0x80 }, disk.ErrCorrupt, "its size is"},
		{"nrext64", "a/small", func(_ *fieldSeed, n []byte) { n[127] |= 0x10 }, disk.ErrCorrupt, "nrext64"},
		{"shared blocks of a directory", "a", func(_ *fieldSeed, n []byte) { n[127] |= 2 }, disk.ErrCorrupt, "it shares blocks"},
		{"metadata", "a/small", func(_ *fieldSeed, n []byte) { n[127] |= 0x20 }, disk.ErrCorrupt, "metadata directory"},
		{"extents without blocks", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint64(n[64:], 0) }, disk.ErrCorrupt, "1 and 0 extents of 0 blocks"},
		{"type 3", "a/small", func(_ *fieldSeed, n []byte) { be.PutUint16(n[2:], 0o030644) }, disk.ErrCorrupt, "no known file type"},
		{"file in its inode", "a/small", func(_ *fieldSeed, n []byte) { n[5] = 1 }, disk.ErrCorrupt, "mode 0100644 with format 1"},
		{"file of a device's format", "a/small", func(_ *fieldSeed, n []byte) { n[5] = 0 }, disk.ErrCorrupt, "mode 0100644 with format 0"},
		{"device with extents", "device", func(_ *fieldSeed, n []byte) { n[5] = 2 }, disk.ErrCorrupt, "mode 060600 with format 2"},
		{"attributes at the end", "a/small", func(_ *fieldSeed, n []byte) { n[82], n[83] = 41, 2 }, nil, ""},
		{"attributes behind the end", "a/small", func(_ *fieldSeed, n []byte) { n[82], n[83] = 42, 2 }, disk.ErrCorrupt, "at 336 of 336"},
		{"attributes without a fork", "a/small", func(_ *fieldSeed, n []byte) { n[82], n[83] = 0, 3 }, disk.ErrCorrupt, "attributes of format 3 in 0 extents, without a fork"},
		{"attributes of format 4", "a/small", func(_ *fieldSeed, n []byte) { n[82], n[83] = 20, 4 }, disk.ErrCorrupt, "attributes of format 4"},
		{"attributes in the inode and in extents", "xattrs", func(_ *fieldSeed, n []byte) { n[81] = 1; be.PutUint64(n[64:], 9) }, disk.ErrCorrupt, "and in 1 extents"},

		{"more extents than room", "a/small", func(_ *fieldSeed, n []byte) { n[79] = 13; be.PutUint64(n[64:], 99) }, disk.ErrCorrupt, "13 extents, the inode has room for 12"},
		{"an extent of nothing", "a/small", func(_ *fieldSeed, n []byte) { putExtent(n[176:], 0, 0, 100, 0) }, disk.ErrCorrupt, "is empty"},
		{"the last block", "a/small", func(_ *fieldSeed, n []byte) { putExtent(n[176:], 0, 0, blocks-1, 1) }, nil, ""},
		{"over the end", "a/small", func(_ *fieldSeed, n []byte) { putExtent(n[176:], 0, 0, blocks-1, 2) }, disk.ErrCorrupt, "2 blocks from 0 on"},
		{"far behind", "a/small", func(_ *fieldSeed, n []byte) { putExtent(n[176:], 0, 0, 1<<44|100, 1) }, disk.ErrCorrupt, "1 blocks from 0 on"},
		{"extents side by side", "a/small", func(_ *fieldSeed, n []byte) {
			n[79], n[71] = 2, 3
			putExtent(n[176:], 0, 0, 100, 2)
			putExtent(n[176:], 1, 2, 200, 1)
		}, nil, ""},
		{"extents over one another", "a/small", func(_ *fieldSeed, n []byte) {
			n[79], n[71] = 2, 3
			putExtent(n[176:], 0, 0, 100, 2)
			putExtent(n[176:], 1, 1, 200, 1)
		}, disk.ErrCorrupt, "record 1, of 1 to 2"},
		{"extent behind the last block of a file", "a/small", func(_ *fieldSeed, n []byte) { putExtent(n[176:], 0, 1<<54-1, 100, 2) }, disk.ErrCorrupt, "2 blocks from 18014398509481983 on"},

		{"root of level 0", "holes", func(_ *fieldSeed, n []byte) { be.PutUint16(n[176:], 0) }, disk.ErrCorrupt, "has level 0"},
		{"root of level 9", "holes", func(_ *fieldSeed, n []byte) { be.PutUint16(n[176:], 9) }, disk.ErrCorrupt, "level 9, at most 8"},
		{"root without keys", "holes", func(_ *fieldSeed, n []byte) { be.PutUint16(n[178:], 0) }, disk.ErrCorrupt, "0 keys"},
		{"root without room", "holes", func(_ *fieldSeed, n []byte) { be.PutUint16(n[178:], 12) }, disk.ErrCorrupt, "12 keys, there is room for 11"},
		{"pointer of the root", "holes", func(_ *fieldSeed, n []byte) { be.PutUint64(n[176+4+11*8:], blocks) }, disk.ErrCorrupt, "refers to block 0x4000"},
		{"leaf of another level", "holes", func(s *fieldSeed, _ []byte) { b := block(s, "BMA3", 0); b[5], b[7] = 1, 1 }, disk.ErrCorrupt, "level 1 where 0 is due"},
		{"leaf without room", "holes", func(s *fieldSeed, _ []byte) { block(s, "BMA3", 0)[7] = 60 }, disk.ErrCorrupt, "60 records, there is room for 59"},
		{"leaf before its key", "holes", func(_ *fieldSeed, n []byte) { be.PutUint64(n[180:], 1) }, disk.ErrCorrupt, "its parent says 1 to"},
		{"leaf of another file", "holes", func(s *fieldSeed, _ []byte) { block(s, "BMA3", 0)[63] ^= 1 }, disk.ErrCorrupt, "belongs to"},
		{"leaf of another place", "holes", func(s *fieldSeed, _ []byte) { block(s, "BMA3", 0)[31] ^= 1 }, disk.ErrCorrupt, "lies in sector"},
		{"leaf of another filesystem", "holes", func(s *fieldSeed, _ []byte) { block(s, "BMA3", 0)[40] ^= 1 }, disk.ErrCorrupt, "belongs to filesystem"},
		{"leaf of the future", "holes", func(s *fieldSeed, _ []byte) { block(s, "BMA3", 0)[34] = 1 }, disk.ErrCorrupt, "the log ends at"},

		{"directory of other names", "a", func(_ *fieldSeed, n []byte) { n[176+9] = '/' }, disk.ErrCorrupt, "is not possible"},
		{"directory of no name", "a", func(_ *fieldSeed, n []byte) { n[176+6] = 0 }, disk.ErrCorrupt, `the name "" is not possible`},
		{"directory of more names", "a", func(_ *fieldSeed, n []byte) { n[176]++ }, disk.ErrCorrupt, ""},
		{"directory of fewer names", "a", func(_ *fieldSeed, n []byte) { n[176]-- }, disk.ErrCorrupt, "bytes are used"},
		{"directory larger than its inode", "a", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 193) }, disk.ErrCorrupt, "193 bytes in the inode, which has room for 192, and 0 extents"},
		{"directory in its inode and in extents", "a", func(_ *fieldSeed, n []byte) { n[79], n[71] = 1, 1 }, disk.ErrCorrupt, "and 1 extents"},
		{"inode without a place", "a", func(_ *fieldSeed, n []byte) { n[176+11] = 0x7f }, disk.ErrCorrupt, "for which the filesystem has no place"},
		{"half a directory block", "block", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 2048) }, disk.ErrCorrupt, "its size is 2048, with blocks of 4096"},
		{"one and a half directory blocks", "block", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 6144) }, disk.ErrCorrupt, "its size is 6144"},
		{"one block for all, of two", "block", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 8192) }, disk.ErrCorrupt, "all of a directory, in one of 8192 bytes"},
		{"hole in a directory block", "block", func(_ *fieldSeed, n []byte) { n[176+15]-- }, disk.ErrCorrupt, "there is a hole"},
		{"large index", "block", func(s *fieldSeed, _ []byte) { be.PutUint32(s.raw[s.with("XDB3", 0)[0]+4088:], 504) }, disk.ErrCorrupt, "an index of 504 entries"},
		{"tag of an entry", "block", func(s *fieldSeed, _ []byte) { block(s, "XDB3", 0)[64+15] ^= 8 }, disk.ErrCorrupt, "the entry at 64 says"},
		{"entry over the end", "block", func(s *fieldSeed, _ []byte) {
			at := s.unused(s.with("XDB3", 0)[0])
			be.PutUint16(s.raw[at+2:], 4096)
		}, disk.ErrCorrupt, "an entry of 4096 bytes"},
		{"odd entry", "block", func(s *fieldSeed, _ []byte) { s.raw[s.unused(s.with("XDB3", 0)[0])+3] |= 4 }, disk.ErrCorrupt, "an entry of"},
		{"name in a block", "block", func(s *fieldSeed, _ []byte) { block(s, "XDB3", 0)[96+9] = 0 }, disk.ErrCorrupt, "is not possible"},
		{"block of another directory", "block", func(s *fieldSeed, _ []byte) { block(s, "XDB3", 0)[47] ^= 1 }, disk.ErrCorrupt, "belongs to"},

		{"attributes of more bytes", "xattrs", func(_ *fieldSeed, n []byte) { n[176+int(n[82])*8+1]++ }, disk.ErrCorrupt, "bytes are used"},
		{"flags of an attribute", "xattrs", func(_ *fieldSeed, n []byte) { n[176+int(n[82])*8+6] |= 0x20 }, disk.ErrCorrupt, "flags 0x"},
		{"attribute of two namespaces", "xattrs", func(_ *fieldSeed, n []byte) { n[176+int(n[82])*8+6] |= 6 }, disk.ErrCorrupt, "in two namespaces"},
		{"attribute that is not whole", "xattrs", func(_ *fieldSeed, n []byte) { n[176+int(n[82])*8+6] |= 0x80; n[176+int(n[82])*8+7] = 0 }, nil, ""},
		{"NUL in an attribute's name", "xattrs", func(_ *fieldSeed, n []byte) { n[176+int(n[82])*8+7] = 0 }, disk.ErrCorrupt, "is not possible"},
		{"node of level 0", "xattrs-many", func(s *fieldSeed, _ []byte) { block(s, "\x3e\xbe", 8)[59] = 0 }, disk.ErrCorrupt, "a node of level 0"},
		{"node of level 6", "xattrs-many", func(s *fieldSeed, _ []byte) { block(s, "\x3e\xbe", 8)[59] = 6 }, disk.ErrCorrupt, "a node of level 6"},
		{"node of a leaf of level 2", "xattrs-many", func(s *fieldSeed, _ []byte) { block(s, "\x3e\xbe", 8)[59] = 2 }, disk.ErrCorrupt, "a leaf where a node of level 1 is due"},
		{"node of no entries", "xattrs-many", func(s *fieldSeed, _ []byte) { be.PutUint16(block(s, "\x3e\xbe", 8)[56:], 0) }, disk.ErrCorrupt, "a node of 0 entries"},
		{"node of many entries", "xattrs-many", func(s *fieldSeed, _ []byte) { be.PutUint16(block(s, "\x3e\xbe", 8)[56:], 121) }, disk.ErrCorrupt, "a node of 121 entries"},
		{"node of itself", "xattrs-many", func(s *fieldSeed, _ []byte) { be.PutUint32(block(s, "\x3e\xbe", 8)[68:], 0) }, disk.ErrCorrupt, "a node of level 1 under one of level 1"},
		{"leaf where none is", "xattrs-many", func(s *fieldSeed, _ []byte) { be.PutUint32(block(s, "\x3e\xbe", 8)[68:], 1<<20) }, disk.ErrCorrupt, "there is a hole at block 1048576"},

		{"long remote value", "xattrs-remote", func(s *fieldSeed, _ []byte) { be.PutUint32(s.remoteName()[4:], 64<<10|1) }, disk.ErrLimit, "65537 bytes"},
		{"remote value at block 0", "xattrs-remote", func(s *fieldSeed, _ []byte) { be.PutUint32(s.remoteName(), 0) }, disk.ErrCorrupt, "a hole at block 0"},
		{"remote value longer than its blocks", "xattrs-remote", func(s *fieldSeed, _ []byte) { be.PutUint32(s.remoteName()[4:], 50000) }, disk.ErrCorrupt, ""},
		{"offset of a remote value", "xattrs-remote", func(s *fieldSeed, _ []byte) { block(s, "XARM", 0)[7]++ }, disk.ErrCorrupt, "from 1 on, where"},
		{"bytes of a remote value", "xattrs-remote", func(s *fieldSeed, _ []byte) { block(s, "XARM", 0)[11]-- }, disk.ErrCorrupt, "from 0 on are due"},
		{"owner of a remote value", "xattrs-remote", func(s *fieldSeed, _ []byte) { block(s, "XARM", 0)[39] ^= 1 }, disk.ErrCorrupt, "belongs to"},

		{"symlink to nothing", "symlink", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 0) }, disk.ErrCorrupt, "a target of 0 bytes"},
		{"long symlink", "symlink", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 1025) }, disk.ErrCorrupt, "a target of 1025 bytes"},
		{"symlink longer than its block", "symlink", func(_ *fieldSeed, n []byte) { be.PutUint64(n[56:], 1000) }, disk.ErrCorrupt, "900 bytes from 0 on, where"},
		{"symlink with a NUL", "symlink", func(s *fieldSeed, _ []byte) { block(s, "XSLM", 0)[56+899] = 0 }, disk.ErrCorrupt, "has a NUL in it"},
		{"symlink with a NUL behind it", "symlink", func(s *fieldSeed, _ []byte) { block(s, "XSLM", 0)[56+900] = 0 }, nil, ""},
		{"offset of a symlink", "symlink", func(s *fieldSeed, _ []byte) { block(s, "XSLM", 0)[7]++ }, disk.ErrCorrupt, "from 1 on, where"},
		{"owner of a symlink", "symlink", func(s *fieldSeed, _ []byte) { block(s, "XSLM", 0)[39] ^= 1 }, disk.ErrCorrupt, "belongs to"},
		{"short symlink with a NUL", "a/short", func(_ *fieldSeed, n []byte) { n[176+4] = 0 }, disk.ErrCorrupt, "has a NUL in it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := original.clone(t)
			ino := disktest.Lookup(t, s.fs, c.path)
			c.change(s, s.raw[ino*512:][:512])
			err := s.readInode(ino)
			var detail *disk.Error
			if c.want == nil && err == nil {
				return
			}
			if c.want == nil || !errors.Is(err, c.want) || !errors.As(err, &detail) || !strings.HasSuffix(detail.Structure, fmt.Sprint(" ", ino)) || !strings.Contains(detail.Detail, c.text) {
				t.Errorf("got %v, want %v of %d with %q", err, c.want, ino, c.text)
			}
		})
	}
}

// remoteName is the name of the first attribute whose value has blocks of its own, as
// a leaf has it.
func (s *fieldSeed) remoteName() []byte {
	for _, leaf := range s.with("\x3b\xee", 8) {
		if s.raw[leaf+86]&1 == 0 {
			return s.raw[leaf+int(binary.BigEndian.Uint16(s.raw[leaf+84:])):]
		}
	}
	s.t.Fatal("the seed has no value with blocks of its own")
	return nil
}

// TestConvertACL has the forms of an ACL, and what is none.
func TestConvertACL(t *testing.T) {
	original := newFieldSeed(t, "v5-1k")
	entry := func(tag, id uint32, permissions byte) string {
		p := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, tag), id)
		return string(append(p, 0, permissions, 0, 0))
	}
	for _, c := range []struct {
		name, raw, want string // without want it is refused
	}{
		{"no entries", "\x00\x00\x00\x00", "\x02\x00\x00\x00"},
		{"owner", "\x00\x00\x00\x01" + entry(1, 0, 7), "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff"},
		{"user and mask", "\x00\x00\x00\x02" + entry(2, 1000, 5) + entry(0x10, 0, 4), "\x02\x00\x00\x00" + "\x02\x00\x05\x00\xe8\x03\x00\x00" + "\x10\x00\x04\x00\xff\xff\xff\xff"},
		{"cut", "\x00\x00\x00", ""},
		{"more than it says", "\x00\x00\x00\x00" + entry(1, 0, 7), ""},
		{"less than it says", "\x00\x00\x00\x02" + entry(1, 0, 7), ""},
		{"far less", "\xff\xff\xff\xff" + entry(1, 0, 7), ""},
		{"tag", "\x00\x00\x00\x01" + entry(0x40, 0, 7), ""},
	} {
		s := original.clone(t)
		ino := disktest.Lookup(t, s.fs, "xattrs")
		n := s.raw[ino*512:][:512]
		attr := n[176+int(n[82])*8:]
		clear(attr)
		const name = "SGI_ACL_FILE"
		copy(attr, []byte{0, byte(4 + 3 + len(name) + len(c.raw)), 1, 0, byte(len(name)), byte(len(c.raw)), 2})
		copy(attr[7:], name+c.raw)
		fs, err := xfs.Open(resealed{disktest.Mem(s.raw)}, xfs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := fs.Xattrs(ino)
		switch {
		case c.want == "" && errors.Is(err, disk.ErrCorrupt):
		case c.want == "" || err != nil || len(list) != 2 || string(list[0].Name) != "system.posix_acl_access" || string(list[0].Value) != c.want:
			t.Errorf("%s: %q, %v", c.name, list, err)
		}
	}
}
