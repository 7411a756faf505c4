package ext4_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The layouts of all structures that the reader looks at
// (Documentation/filesystems/ext4): see [disktest.ParseFields].
const (
	superblockFields = `
		0x00 4 inodes_count   0x04 4 blocks_count_lo   0x08 4 -r_blocks_count_lo   0x0c 4 -free_blocks_lo   0x10 4 -free_inodes
		0x14 4 first_data_block   0x18 4 log_block_size   0x1c 4 log_cluster_size   0x20 4 blocks_per_group
		0x24 4 -clusters_per_group   0x28 4 inodes_per_group   0x2c 4 -mtime   0x30 4 -wtime   0x34 2 -mnt_count
		0x36 2 -max_mnt_count   0x38 2 magic   0x3a 2 state   0x3c 2 -errors   0x3e 2 -minor_rev_level   0x40 4 -lastcheck
		0x44 4 -checkinterval   0x48 4 -creator_os   0x4c 4 rev_level   0x50 2 -def_resuid   0x52 2 -def_resgid   0x54 4 first_ino
		0x58 2 inode_size   0x5a 2 -block_group_nr   0x60 4 incompat   0x64 4 ro_compat   0x68 8 uuid
		0x70 8 uuid   0x78 8 volume_name   0x88 8 -last_mounted   0xc8 4 -algorithm   0xcc 1 -prealloc   0xcd 1 -prealloc_dir
		0xd0 8 -journal_uuid   0xe0 4 -journal_inum   0xe4 4 -journal_dev   0xe8 4 last_orphan
		0xec 4 -hash_seed   0xfc 1 -def_hash_version   0xfd 1 -jnl_backup_type   0x100 4 -default_mount_opts
		0x104 4 -first_meta_bg   0x108 4 -mkfs_time   0x10c 4 -jnl_blocks   0x154 4 -r_blocks_count_hi
		0x158 4 -free_blocks_hi   0x15c 2 -min_extra_isize   0x15e 2 -want_extra_isize   0x160 4 -flags   0x164 2 -raid_stride
		0x168 8 -mmp_block   0x174 1 -log_groups_per_flex   0x178 8 -kbytes_written   0x194 4 error_count
		0x198 4 -first_error_time   0x19c 4 -first_error_ino   0x1cc 4 -last_error_time   0x240 4 -usr_quota_inum
		0x248 4 -overhead_blocks   0x24c 4 -backup_bgs   0x268 4 -lpf_ino   0x26c 4 -prj_quota_inum`
	groupFields = `
		0x00 4 block_bitmap_lo   0x04 4 inode_bitmap_lo   0x08 4 inode_table_lo   0x0c 2 free_blocks_lo   0x0e 2 -free_inodes_lo
		0x10 2 -used_dirs_lo   0x14 4 -exclude_bitmap_lo   0x1a 2 -inode_bitmap_csum_lo   0x1c 2 -itable_unused_lo`
	groupFields64 = `
		0x20 4 block_bitmap_hi   0x24 4 -inode_bitmap_hi   0x28 4 inode_table_hi   0x2c 2 free_blocks_hi   0x2e 2 -free_inodes_hi
		0x30 2 -used_dirs_hi   0x32 2 -itable_unused_hi   0x34 4 -exclude_bitmap_hi   0x3a 2 -inode_bitmap_csum_hi`
	inodeFields = `
		0x00 2 mode   0x02 2 uid   0x04 4 size_lo   0x08 4 atime   0x0c 4 ctime   0x10 4 mtime   0x14 4 -dtime   0x18 2 gid
		0x1a 2 links_count   0x1c 4 blocks_lo   0x20 4 flags   0x24 4 -osd1   0x6c 4 size_high   0x70 4 -obso_faddr
		0x78 2 uid_high   0x7a 2 gid_high`
	inodeExtraFields = `
		0x80 2 extra_isize   0x84 4 ctime_extra   0x88 4 mtime_extra   0x8c 4 atime_extra   0x94 4 crtime_extra
		0x98 4 -version_hi   0x9c 4 -projid`
	extentHeaderFields = `0 2 magic   2 2 entries   4 2 max   6 2 depth   8 4 -generation`
	extentIndexFields  = `0 4 block   4 4 leaf_lo   8 2 leaf_hi   10 2 -unused`
	extentLeafFields   = `0 4 block   4 2 len   6 2 start_hi   8 4 start_lo`
	entryFields        = `0 4 inode   4 2 rec_len   6 1 name_len   8 1 name`
	hashRootFields     = `
		0 4 inode   4 2 rec_len   6 1 name_len   8 1 name   12 4 -inode   16 2 rec_len   18 1 name_len   20 1 name   21 1 name`
	hashInfoFields = `
		24 4 -reserved   28 1 -hash_version   29 1 -info_length   30 1 -indirect_levels   31 1 -unused_flags
		36 4 -block   40 4 -hash   44 4 -block`
	xattrHeaderFields = `0 4 magic   4 4 -refcount   8 4 blocks   12 4 -hash`
	xattrEntryFields  = `0 1 name_len   1 1 name_index   2 2 value_offs   4 4 value_inum   8 4 value_size   16 1 name`
	xattrInodeFields  = `0 1 name_len   1 1 name_index   2 2 -value_offs   4 4 value_inum   8 4 value_size   12 4 hash   16 1 name`
)

// fieldSeed finds structures in a seed: of one group, with blocks of 1 KiB.
type fieldSeed struct {
	t     *testing.T
	image disktest.Image
	raw   []byte
	fs    *ext4.Filesystem
	list  []disktest.Structure
	size  int // of an inode
}

func newFieldSeed(t *testing.T, name string) *fieldSeed {
	s := &fieldSeed{t: t, image: disktest.LoadSeed(t, name), fs: openSeed(t, name, ext4.Options{})}
	s.raw = make([]byte, s.image.Length)
	if _, err := s.image.ReadAt(s.raw, 0); err != nil {
		t.Fatal(err)
	}
	s.size = int(binary.LittleEndian.Uint16(s.raw[1024+0x58:]))
	return s
}

func (s *fieldSeed) add(name, layout string, places ...int) {
	s.t.Helper()
	k := disktest.Structure{Name: name, Fields: disktest.ParseFields(s.t, layout)}
	k.Values = []uint64{s.freeBlock()}
	for _, path := range []string{"", "a", "a/small", "large", "symlink"} {
		k.Values = append(k.Values, disktest.Lookup(s.t, s.fs, path))
	}
	for _, at := range places {
		k.Places = append(k.Places, disktest.At(int64(at)))
		k.Values = append(k.Values, uint64(at/1024))
	}
	s.list = append(s.list, k)
}

func (s *fieldSeed) u16(at int) int { return int(binary.LittleEndian.Uint16(s.raw[at:])) }
func (s *fieldSeed) u32(at int) int { return int(binary.LittleEndian.Uint32(s.raw[at:])) }

func (s *fieldSeed) inodeAt(ino int) int { return s.u32(2048+8)*1024 + (ino-1)*s.size }

// inode is where a file's inode is.
func (s *fieldSeed) inode(path string) int {
	return s.inodeAt(int(disktest.Lookup(s.t, s.fs, path)))
}

// freeBlock is the last block that is not in use.
func (s *fieldSeed) freeBlock() (block uint64) {
	next := int64(0)
	err := s.fs.Used(0, func(off, length int64) error {
		if off > next {
			block = uint64(off/1024 - 1)
		}
		next = off + length
		return nil
	})
	if err != nil || block == 0 {
		s.t.Fatalf("no block is free: %v", err)
	}
	return block
}

// blockOf is the start of the block that has some bytes.
func (s *fieldSeed) blockOf(content []byte) int {
	at := bytes.Index(s.raw, content)
	if at < 0 {
		s.t.Fatalf("the seed has no %q", content)
	}
	return at &^ 1023
}

// basic are the structures of all seeds.
func (s *fieldSeed) basic(group string) {
	s.add("superblock", superblockFields, 1024)
	s.add("group descriptor", group, 2048)
	var places []int
	for _, path := range []string{"a/medium", "a", "large", "holes", "a/fast", "symlink", "device", "xattrs"} {
		places = append(places, s.inode(path))
	}
	layout := inodeFields
	if s.size > 128 {
		layout += inodeExtraFields
	}
	s.add("inode", layout, places...)
	leaf := s.blockOf([]byte("39nnnn"))
	at := 0 // the second entry of the block
	for at < 20 {
		at += s.u16(leaf + at + 4)
	}
	s.add("directory entry", entryFields, leaf, leaf+at)
	root := s.blockOf(append(binary.LittleEndian.AppendUint32(nil, uint32(disktest.Lookup(s.t, s.fs, "large"))), 12, 0, 1, 2, '.', 0))
	s.add("root of a hash tree", hashRootFields+hashInfoFields, root)
}

func (s *fieldSeed) extents() {
	s.add("root of an extent tree", extentHeaderFields, s.inode("holes")+0x28, s.inode("a/medium")+0x28)
	s.add("extent in an inode", extentLeafFields, s.inode("a/medium")+0x34)
	s.add("index entry", extentIndexFields, s.inode("holes")+0x34)
	leaf := s.u32(s.inode("holes")+0x38) * 1024
	s.add("leaf of an extent tree", extentHeaderFields, leaf)
	s.add("extent in a leaf", extentLeafFields, leaf+12, leaf+24)
}

func (s *fieldSeed) xattrBlock() {
	block := s.u32(s.inode("xattrs")+0x68) * 1024
	s.add("pointer to a block of attributes", "0x68 4 file_acl_lo", s.inode("xattrs"))
	s.add("block of attributes", xattrHeaderFields, block)
	s.add("attribute in a block", xattrEntryFields, block+32)
}

func (s *fieldSeed) xattrBody() {
	n := s.inode("xattrs")
	body := n + 128 + s.u16(n+0x80)
	s.add("attributes in an inode", "0 4 magic", body)
	second := body + 4 + (16+int(s.raw[body+4])+3)&^3 // behind inline data
	s.add("attribute in an inode", xattrEntryFields+" 12 4 -hash", second)
}

// TestEveryField damages each field of each structure behind a checksum that is
// right, see [disktest.Damage.EveryField].
func TestEveryField(t *testing.T) {
	for name, collect := range map[string]func(s *fieldSeed){
		"csum": func(s *fieldSeed) {
			s.basic(groupFields + groupFields64 + " 0x12 2 flags   0x18 2 block_bitmap_csum_lo   0x38 2 block_bitmap_csum_hi")
			s.add("64bit superblock", "0xce 2 reserved_gdt_blocks 0xfe 2 desc_size 0x150 4 blocks_count_hi 0x175 1 checksum_type 0x270 4 -checksum_seed", 1024)
			s.add("tail of a directory block", "0 4 reserved_zero1   4 2 rec_len   6 1 reserved_zero2   7 1 reserved_ft", s.blockOf([]byte("39nnnn"))+1012)
			s.add("size of a hash tree's node", "32 2 limit   34 2 count", int(s.list[4].Places[0](0)))
			s.add("upper halves", "0x76 2 file_acl_high   0x74 2 -blocks_high", s.inode("xattrs"))
			s.extents()
			s.xattrBlock()
			s.xattrBody()
			s.add("directory in its inode", "0 4 -parent   4 4 inode   8 2 rec_len   10 1 name_len   12 1 name", s.inode("a")+0x28)
			s.add("file in its inode", "0 4 content", s.inode("a/small")+0x28)
		},
		"ea-inode": func(s *fieldSeed) {
			var holders []int
			for ino := 11; ino <= 96; ino++ {
				if s.u32(s.inodeAt(ino)+0x20)&0x200000 != 0 {
					holders = append(holders, s.inodeAt(ino))
				}
			}
			s.add("inode of a value", `0 2 mode   4 4 size_lo   8 4 atime   0x0c 4 -ctime   0x10 4 -mtime   0x1a 2 links_count   0x20 4 flags
				0x28 2 magic   0x2a 2 entries   0x2c 2 max   0x2e 2 depth   0x34 4 block   0x38 2 len   0x3a 2 start_hi   0x3c 4 start_lo`, holders...)
			body := s.inode("xattrs") + 128 + s.u16(s.inode("xattrs")+0x80)
			for at := body + 4; s.u32(at) != 0; at += (16 + int(s.raw[at]) + 3) &^ 3 {
				if s.u32(at+4) != 0 {
					s.add("attribute with an inode", xattrInodeFields, at)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFieldSeed(t, name)
			sealer := newSealer(slices.Clone(s.raw))
			collect(s)
			damage().EveryField(t, s.image, s.list, func(image []byte, changed []int64) { sealer.seal(image, int(changed[0])) })
		})
	}
}

// TestEveryPlainField does so where there are no checksums.
func TestEveryPlainField(t *testing.T) {
	for name, collect := range map[string]func(s *fieldSeed){
		"plain": func(s *fieldSeed) {
			s.basic(groupFields + groupFields64 + " 0x12 2 -flags   0x18 2 -block_bitmap_csum_lo   0x1e 2 -checksum")
			s.extents()
			s.xattrBlock()
		},
		"map": func(s *fieldSeed) {
			s.basic(groupFields + " 0x12 2 -flags   0x18 2 -block_bitmap_csum_lo   0x1e 2 -checksum")
			s.add("superblock", "0x5c 4 compat", 1024) // with a journal it would be ext3
			n := s.inode("holes")
			s.add("block map", "0 4 block   8 4 block   48 4 indirect   52 4 double   56 4 triple", n+0x28)
			s.add("indirect block", "0 4 block   4 4 block   8 4 hole", s.u32(n+0x28+48)*1024)
			s.add("double indirect block", "0 4 indirect   4 4 hole", s.u32(n+0x28+52)*1024)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFieldSeed(t, name)
			collect(s)
			damage().EveryField(t, s.image, s.list, nil)
		})
	}
}
