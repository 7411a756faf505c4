package xfs_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// The layouts of all structures that the reader looks at ("XFS Algorithms & Data
// Structures"): see [disktest.ParseFields].
const (
	superblockFields = `
		0 4 magicnum   4 4 blocksize   8 8 dblocks   16 8 rblocks   24 8 -rextents   32 8 uuid   40 8 uuid   48 8 logstart
		56 8 rootino   64 8 rbmino   72 8 rsumino   80 4 -rextsize   84 4 agblocks   88 4 agcount   92 4 -rbmblocks
		96 4 logblocks   100 2 versionnum   102 2 sectsize   104 2 inodesize   106 2 inopblock   108 8 fname   116 4 -fname
		120 1 blocklog   121 1 sectlog   122 1 inodelog   123 1 inopblog   124 1 agblklog   125 1 -rextslog
		126 1 inprogress   127 1 -imax_pct   128 8 icount   136 8 -ifree   144 8 -fdblocks   152 8 -frextents
		160 8 uquotino   168 8 gquotino   176 2 -qflags   178 1 -flags   179 1 shared_vn   180 4 -inoalignmt
		184 4 -unit   188 4 -width   192 1 dirblklog   193 1 -logsectlog   194 2 -logsectsize   196 4 -logsunit
		200 4 features2   204 4 bad_features2   208 4 compat   212 4 ro_compat   216 4 incompat   220 4 log_incompat
		228 4 -spino_align   232 8 pquotino   240 8 lsn   248 8 -meta_uuid   256 8 -meta_uuid`
	freeHeaderFields = `
		0 4 magicnum   4 4 versionnum   8 4 seqno   12 4 length   16 4 bno_root   20 4 -cnt_root   24 4 -rmap_root
		28 4 bno_level   32 4 -cnt_level   36 4 -rmap_level   40 4 -flfirst   44 4 -fllast   48 4 -flcount
		52 4 freeblks   56 4 -longest   60 4 -btreeblks   64 8 uuid   72 8 uuid   80 4 -rmap_blocks
		84 4 -refcount_blocks   88 4 -refcount_root   92 4 -refcount_level   208 8 lsn`
	inodeHeaderFields = `
		0 4 magicnum   4 4 versionnum   8 4 seqno   12 4 length   16 4 -count   20 4 root   24 4 level   28 4 -freecount
		32 4 -newino   36 4 -dirino   40 4 -unlinked   296 8 uuid   304 8 uuid   320 8 lsn   328 4 -free_root
		332 4 -free_level   336 4 -iblocks   340 4 -fblocks`
	shortBlockFields = `
		0 4 magic   4 2 level   6 2 numrecs   8 4 -leftsib   12 4 -rightsib   16 8 blkno   24 8 lsn   32 8 uuid   40 8 uuid
		48 4 owner`
	inodeRecordFields = `0 4 startino   4 2 holemask   6 1 -count   7 1 -freecount   8 8 free`
	freeRecordFields  = `0 4 startblock   4 4 blockcount`
	longBlockFields   = `
		0 4 magic   4 2 level   6 2 numrecs   8 8 -leftsib   16 8 -rightsib   24 8 blkno   32 8 lsn   40 8 uuid   48 8 uuid
		56 8 owner`
	directoryFields = `
		0 4 magic   8 8 blkno   16 8 lsn   24 8 uuid   32 8 uuid   40 8 owner   48 2 -bestfree   50 2 -bestfree
		64 8 inumber   72 1 namelen   73 1 name   74 1 -ftype   78 2 tag
		80 8 inumber   88 1 namelen   89 1 name   90 1 name   94 2 tag
		96 8 inumber   104 1 namelen   105 1 name   118 2 tag`
	unusedFields   = `0 2 freetag   2 2 length`
	directoryTail  = `0 4 count   4 4 -stale`
	attrLeafFields = `
		0 4 forw   4 4 -back   8 2 magic   16 8 blkno   24 8 lsn   32 8 uuid   40 8 uuid   48 8 owner   56 2 count
		58 2 -usedbytes   60 2 -firstused   62 1 -holes   64 2 -freemap   66 2 -freemap
		80 4 -hashval   84 2 nameidx   86 1 flags`
	attrLocalFields  = `0 2 valuelen   2 1 namelen   3 1 name`
	attrRemoteFields = `0 4 valueblk   4 4 valuelen   8 1 namelen   9 1 name`
	attrNodeFields   = `
		0 4 -forw   4 4 -back   8 2 magic   16 8 blkno   24 8 lsn   32 8 uuid   40 8 uuid   48 8 owner   56 2 count   58 2 level
		64 4 -hashval   68 4 before`
	remoteFields = `
		0 4 magic   4 4 offset   8 4 bytes   16 8 uuid   24 8 uuid   32 8 owner   40 8 blkno`
	inodeFields = `
		0 2 magic   2 2 mode   4 1 version   5 1 format   6 2 -onlink   8 4 uid   12 4 gid   16 4 nlink   20 2 -projid
		22 2 -projid   32 4 atime   36 4 atime   40 4 mtime   44 4 mtime   48 4 ctime   52 4 ctime   56 8 size
		64 8 nblocks   72 4 -extsize   82 1 forkoff   83 1 aformat   84 4 -dmevmask
		88 2 -dmstate   90 2 flags   92 4 -gen   96 4 -next_unlinked   104 8 -changecount   112 8 -lsn   120 8 flags2
		128 4 -cowextsize   144 8 -crtime   152 8 ino   160 8 uuid   168 8 uuid`
	inodeCounters        = ` 24 8 -pad   76 4 nextents   80 2 anextents`
	inodeCounters64      = ` 24 8 nextents   76 4 anextents   80 2 -pad` // nrext64
	shortDirectoryFields = `
		0 1 count   1 1 i8count   2 4 -parent   6 1 namelen   7 2 -offset   9 1 name   10 1 -ftype   11 4 inumber`
	shortAttrFields = `0 2 totsize   2 1 count   3 1 -padding   4 1 namelen   5 1 valuelen   6 1 flags   7 1 name`
	rootFields      = `0 2 level   2 2 numrecs   4 8 startoff`
)

// The layouts that are others in version 4, where blocks do not describe themselves.
const (
	shortBlockFields4 = `0 4 magic   4 2 level   6 2 numrecs   8 4 -leftsib   12 4 -rightsib`
	directoryFields4  = `
		0 4 magic   4 2 -bestfree   6 2 -bestfree
		16 8 inumber   24 1 namelen   25 1 name   30 2 tag
		32 8 inumber   40 1 namelen   41 1 name   42 1 name   46 2 tag
		48 8 inumber   56 1 namelen   57 1 name   70 2 tag`
	attrLeafFields4 = `
		0 4 forw   4 4 -back   8 2 magic   12 2 count   14 2 -usedbytes   16 2 -firstused   18 1 -holes   20 2 -freemap   22 2 -freemap
		32 4 -hashval   36 2 nameidx   38 1 flags`
	attrNodeFields4 = `0 4 -forw   4 4 -back   8 2 magic   12 2 count   14 2 level   16 4 -hashval   20 4 before`
	inodeFields4    = `
		0 2 magic   2 2 mode   4 1 version   5 1 format   6 2 -onlink   8 4 uid   12 4 gid   16 4 nlink   20 2 -projid
		22 2 -projid   24 8 -pad   32 4 atime   36 4 atime   40 4 mtime   44 4 mtime   48 4 ctime   52 4 ctime   56 8 size
		64 8 nblocks   72 4 -extsize   76 4 nextents   80 2 anextents   82 1 forkoff   83 1 aformat   84 4 -dmevmask
		88 2 -dmstate   90 2 flags   92 4 -gen   96 4 -next_unlinked`
)

// extentFields are those of an extent's 128 bits.
var extentFields = []disktest.Field{
	{Name: "flag", Size: 8, Shift: 63, Bits: 1},
	{Name: "startoff", Size: 8, Shift: 9, Bits: 54},
	{Name: "startblock, the upper bits", Size: 8, Bits: 9},
	{Name: "startblock, the lower bits", Offset: 8, Size: 8, Shift: 21, Bits: 43},
	{Name: "blockcount", Offset: 8, Size: 8, Bits: 21},
}

// fieldSeed finds structures in a seed of version 5, of one group and with inodes
// of 512 bytes.
type fieldSeed struct {
	t     *testing.T
	image disktest.Image
	raw   []byte
	fs    *xfs.Filesystem
	list  []disktest.Structure
	// pointers are inodes that exist.
	pointers []uint64
}

func newFieldSeed(t *testing.T, name string) *fieldSeed {
	s := &fieldSeed{t: t, image: disktest.LoadSeed(t, name), fs: openSeed(t, name, xfs.Options{})}
	s.raw = make([]byte, s.image.Length)
	if _, err := s.image.ReadAt(s.raw, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *fieldSeed) add(name, layout string, places ...int) {
	s.t.Helper()
	s.addFields(name, disktest.ParseFields(s.t, layout), places...)
}

func (s *fieldSeed) addFields(name string, fields []disktest.Field, places ...int) {
	k := disktest.Structure{Name: name, Fields: fields, Values: s.pointers}
	for _, at := range places {
		k.Places = append(k.Places, disktest.At(int64(at)))
		k.Values = append(k.Values, uint64(at)>>s.raw[120]) // the block that it is in
	}
	s.list = append(s.list, k)
}

// with returns where the sectors are that have some bytes at an offset.
func (s *fieldSeed) with(magic string, at int) []int {
	var places []int
	for off := 0; off+512 <= len(s.raw); off += 512 {
		if bytes.HasPrefix(s.raw[off+at:], []byte(magic)) {
			places = append(places, off)
		}
	}
	if len(places) == 0 {
		s.t.Errorf("no block starts with %q", magic)
		return []int{0}
	}
	return places
}

// inode is where a file's inode is, and its forks.
func (s *fieldSeed) inode(path string) (at, data, attr int) {
	at = int(disktest.Lookup(s.t, s.fs, path)) * 512
	return at, at + 176, at + 176 + int(s.raw[at+82])*8
}

// unused is where the first unused entry of a directory's block is.
func (s *fieldSeed) unused(block int) int {
	for at := block + 64; at < block+4096; {
		if binary.BigEndian.Uint16(s.raw[at:]) == 0xffff {
			return at
		}
		at += (9 + int(s.raw[at+8]) + 3 + 7) &^ 7
	}
	s.t.Fatalf("the block at %#x has no unused entry", block)
	return 0
}

func (s *fieldSeed) all() {
	for _, path := range []string{"", "a", "a/small", "large", "symlink"} {
		s.pointers = append(s.pointers, disktest.Lookup(s.t, s.fs, path))
	}
	s.add("superblock", superblockFields, 0)
	s.add("AGF", freeHeaderFields, s.with("XAGF", 0)...)
	s.add("AGI", inodeHeaderFields, s.with("XAGI", 0)...)
	inodes, free := s.with("IAB3", 0), s.with("AB3B", 0)
	s.add("block of the inode tree", shortBlockFields, inodes...)
	s.add("record of the inode tree", inodeRecordFields, inodes[0]+56)
	s.add("block of the free space tree", shortBlockFields, free...)
	s.add("record of the free space tree", freeRecordFields, free[0]+56)
	s.directories()
	s.attributes()
	s.inodes()
}

func (s *fieldSeed) directories() {
	single, several := s.with("XDB3", 0), s.with("XDD3", 0)
	s.add("directory block", directoryFields, single[0], several[0])
	s.add("unused entry", unusedFields, s.unused(single[0]))
	s.add("tail of a directory block", directoryTail, single[0]+4096-8)
	_, data, _ := s.inode("a")
	s.add("directory in its inode", shortDirectoryFields, data)
}

func (s *fieldSeed) attributes() {
	leaves := s.with("\x3b\xee", 8)
	s.add("leaf of attributes", attrLeafFields, leaves...)
	s.add("node of attributes", attrNodeFields, s.with("\x3e\xbe", 8)...)
	var local, remote []int
	for _, leaf := range leaves {
		name := leaf + int(binary.BigEndian.Uint16(s.raw[leaf+84:]))
		if s.raw[leaf+86]&1 != 0 {
			local = append(local, name)
		} else {
			remote = append(remote, name)
		}
	}
	s.add("local attribute", attrLocalFields, local...)
	s.add("remote attribute", attrRemoteFields, remote...)
	s.add("remote value", remoteFields, s.with("XARM", 0)...)
	s.add("remote symlink", remoteFields+" 48 8 lsn", s.with("XSLM", 0)...)
	_, _, attr := s.inode("xattrs")
	s.add("attributes in the inode", shortAttrFields, attr)
}

func (s *fieldSeed) inodes() {
	var places []int
	for _, path := range []string{"a/medium", "a", "holes", "a/short", "symlink", "device", "xattrs", "xattrs-remote"} {
		at, _, _ := s.inode(path)
		places = append(places, at)
	}
	counters := inodeCounters
	if s.raw[216+3]&0x20 != 0 {
		counters = inodeCounters64
	}
	s.add("inode", inodeFields+counters, places...)
	_, list, _ := s.inode("a/medium")
	_, root, attr := s.inode("holes")
	room := ((attr - root) - 4) / 16
	if attr <= root+4 {
		room = (512 - 176 - 4) / 16
	}
	if s.raw[root-176+5] == 3 { // with larger blocks there is no tree
		s.add("root of an extent tree", rootFields, root)
		s.add("pointer of an extent tree", "0 8 block", root+4+room*8)
		trees := s.with("BMA3", 0)
		s.add("block of an extent tree", longBlockFields, trees...)
		s.addFields("extent in a block", extentFields, trees[0]+72, trees[0]+88)
	}
	s.addFields("extent in an inode", extentFields, list)
}

// TestEveryField damages each field of each structure behind a checksum that is
// right, see [disktest.Damage.EveryField].
func TestEveryField(t *testing.T) {
	for _, name := range []string{"v5-1k", "v5-4k"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFieldSeed(t, name)
			s.all()
			d := sealedDamage()
			d.EveryField(t, s.image, s.list, nil)
		})
	}
}

// TestEveryField4 does so in version 4, which has no checksums.
func TestEveryField4(t *testing.T) {
	t.Parallel()
	s := newFieldSeed(t, "v4-1k")
	for _, path := range []string{"", "a", "a/small", "large", "symlink"} {
		s.pointers = append(s.pointers, disktest.Lookup(t, s.fs, path))
	}
	s.add("AGF", "0 4 magicnum   4 4 versionnum   8 4 seqno   12 4 length   16 4 bno_root   28 4 bno_level", s.with("XAGF", 0)...)
	s.add("AGI", "0 4 magicnum   4 4 versionnum   8 4 seqno   12 4 length   20 4 root   24 4 level", s.with("XAGI", 0)...)
	inodes, free := s.with("IABT", 0), s.with("ABTB", 0)
	s.add("block of the inode tree", shortBlockFields4, inodes...)
	s.add("record of the inode tree", "0 4 startino   4 4 -freecount   8 8 free", inodes[0]+16)
	s.add("block of the free space tree", shortBlockFields4, free...)
	s.add("record of the free space tree", freeRecordFields, free[0]+16)
	single, several := s.with("XD2B", 0), s.with("XD2D", 0)
	s.add("directory block", directoryFields4, single[0], several[0])
	s.add("tail of a directory block", directoryTail, single[0]+4096-8)
	var leaves, nodes []int
	for _, at := range append(s.with("\xfb\xee", 8), s.with("\xfe\xbe", 8)...) {
		if at%1024 != 0 {
			continue
		}
		if s.raw[at+8] == 0xfb {
			leaves = append(leaves, at)
		} else {
			nodes = append(nodes, at)
		}
	}
	s.add("leaf of attributes", attrLeafFields4, leaves...)
	s.add("node of attributes", attrNodeFields4, nodes...)
	var places []int
	for _, path := range []string{"a/small", "a", "a/short", "symlink", "device", "xattrs", "xattrs-remote"} {
		at, _, _ := s.inode(path)
		places = append(places, at)
	}
	s.add("inode", inodeFields4, places...)
	at, _, _ := s.inode("a")
	s.add("directory in its inode", "0 1 count   1 1 i8count   2 4 -parent   6 1 namelen   7 2 -offset   9 1 name", at+100)
	at, _, _ = s.inode("a/small")
	s.addFields("extent in an inode", extentFields, at+100)
	damage().EveryField(t, s.image, s.list, nil)
}
