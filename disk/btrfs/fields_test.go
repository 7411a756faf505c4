package btrfs

import (
	"encoding/binary"
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// Thorough is for the tests of both packages.
var Thorough = flag.Bool("thorough", false, "damage every field in every way, instead of a part of that")

// The fields of the structures, as their declarations have them.
type fields = []disktest.Field

var field, flags = disktest.Number, disktest.Flags

// within returns a structure's fields as those of one that has it at off.
func within(prefix string, off int, list fields) fields {
	out := slices.Clone(list)
	for i := range out {
		out[i].Name = prefix + out[i].Name
		out[i].Off += off
	}
	return out
}

func keyFields(name string, off int) fields {
	return fields{field(name+".objectid", off, 8), field(name+".type", off+8, 1), field(name+".offset", off+9, 8)}
}

var (
	deviceFields = fields{
		field("devid", 0, 8), field("total_bytes", 8, 8), field("bytes_used", 16, 8), field("io_align", 24, 4), field("io_width", 28, 4),
		field("sector_size", 32, 4), field("type", 36, 8), field("generation", 44, 8), field("start_offset", 52, 8), field("dev_group", 60, 4),
		field("seek_speed", 64, 1), field("bandwidth", 65, 1), field("uuid", 66, 16), field("fsid", 82, 16),
	}
	stripeFields = fields{field("devid", 0, 8), field("offset", 8, 8), field("dev_uuid", 16, 16)}
	chunkFields  = slices.Concat(fields{
		field("length", 0, 8), field("owner", 8, 8), field("stripe_len", 16, 8), flags("type", 24, 8), field("io_align", 32, 4), field("io_width", 36, 4),
		field("sector_size", 40, 4), field("num_stripes", 44, 2), field("sub_stripes", 46, 2),
	}, within("stripe.", chunkHeaderSize, stripeFields))
	superblockFields = slices.Concat(fields{
		field("fsid", 0x20, 16), field("bytenr", 0x30, 8), flags("flags", 0x38, 8), field("magic", 0x40, 8), field("generation", 0x48, 8),
		field("root", 0x50, 8), field("chunk_root", 0x58, 8), field("log_root", 0x60, 8), field("log_root_transid", 0x68, 8),
		field("total_bytes", 0x70, 8), field("bytes_used", 0x78, 8), field("root_dir_objectid", 0x80, 8), field("num_devices", 0x88, 8),
		field("sectorsize", 0x90, 4), field("nodesize", 0x94, 4), field("leafsize", 0x98, 4), field("stripesize", 0x9c, 4),
		field("sys_chunk_array_size", 0xa0, 4), field("chunk_root_generation", 0xa4, 8), flags("compat_flags", 0xac, 8),
		flags("compat_ro_flags", 0xb4, 8), flags("incompat_flags", 0xbc, 8), field("csum_type", 0xc4, 2), field("root_level", 0xc6, 1),
		field("chunk_root_level", 0xc7, 1), field("log_root_level", 0xc8, 1), field("label", 0x12b, 8), field("cache_generation", 0x22b, 8),
		field("uuid_tree_generation", 0x233, 8), field("metadata_uuid", 0x23b, 16),
	}, within("dev_item.", 0xc9, deviceFields), keyFields("sys_chunk.key", 0x32b), within("sys_chunk.", 0x32b+keySize, chunkFields))

	headerFields = fields{
		field("fsid", 0x20, 16), field("bytenr", 0x30, 8), flags("flags", 0x38, 8), field("chunk_tree_uuid", 0x40, 16), field("generation", 0x50, 8),
		field("owner", 0x58, 8), field("nritems", 0x60, 4), field("level", 0x64, 1),
	}
	pointerFields = append(keyFields("key", 0), field("blockptr", 17, 8), field("generation", 25, 8))
	itemFields    = append(keyFields("key", 0), field("offset", 17, 4), field("size", 21, 4))

	inodeFields = fields{
		field("generation", 0, 8), field("transid", 8, 8), field("size", 0x10, 8), field("nbytes", 0x18, 8), field("block_group", 0x20, 8),
		field("nlink", 0x28, 4), field("uid", 0x2c, 4), field("gid", 0x30, 4), flags("mode", 0x34, 4), field("rdev", 0x38, 8), flags("flags", 0x40, 8),
		field("sequence", 0x48, 8), field("atime", 0x70, 8), field("atime.nsec", 0x78, 4), field("ctime", 0x7c, 8), field("ctime.nsec", 0x84, 4),
		field("mtime", 0x88, 8), field("mtime.nsec", 0x90, 4), field("otime", 0x94, 8), field("otime.nsec", 0x9c, 4),
	}
	refFields     = fields{field("index", 0, 8), field("name_len", 8, 2), field("name", 10, 1)}
	extrefFields  = fields{field("parent", 0, 8), field("index", 8, 8), field("name_len", 16, 2), field("name", 18, 1)}
	rootRefFields = fields{field("dirid", 0, 8), field("sequence", 8, 8), field("name_len", 16, 2), field("name", 18, 1)}
	dirItemFields = append(keyFields("location", 0), field("transid", 17, 8), field("data_len", 25, 2), field("name_len", 27, 2), flags("type", 29, 1), field("name", 30, 1))
	extentFields  = fields{
		field("generation", 0, 8), field("ram_bytes", 8, 8), field("compression", 16, 1), field("encryption", 17, 1), field("other_encoding", 18, 2), field("type", 20, 1),
		field("disk_bytenr", 0x15, 8), field("disk_num_bytes", 0x1d, 8), field("offset", 0x25, 8), field("num_bytes", 0x2d, 8),
	}
	inlineFields = slices.Concat(extentFields[:6], fields{ // and the headers of the compressed streams
		field("data", 0x15, 4), field("data+4", 0x19, 4), field("data+8", 0x1d, 4), field("data.0", 0x15, 1), field("data.1", 0x16, 1),
		field("data.4", 0x19, 1), field("data.5", 0x1a, 1), field("data.6", 0x1b, 1), field("data.7", 0x1c, 1), field("data.8", 0x1d, 1), field("data.9", 0x1e, 1),
	})
	rootFields = slices.Concat(within("inode.", 0, inodeFields[:9]), fields{
		field("generation", 0xa0, 8), field("root_dirid", 0xa8, 8), field("bytenr", 0xb0, 8), field("byte_limit", 0xb8, 8), field("bytes_used", 0xc0, 8),
		field("last_snapshot", 0xc8, 8), flags("flags", 0xd0, 8), field("refs", 0xd8, 4),
	}, keyFields("drop_progress", 0xdc), fields{
		field("drop_level", 0xed, 1), field("level", 0xee, 1), field("generation_v2", 0xef, 8), field("uuid", 0xf7, 16),
	})
)

// contentFields are those of items, by kind.
func contentFields(k key, raw []byte) (string, fields) {
	switch k.kind {
	case kindInode:
		return "INODE_ITEM", inodeFields
	case kindInodeRef:
		return "INODE_REF", refFields
	case kindInodeExtref:
		return "INODE_EXTREF", extrefFields
	case kindXattr:
		return "XATTR_ITEM", dirItemFields
	case kindDirLogIndex:
		return "DIR_LOG_INDEX", fields{field("end", 0, 8)}
	case kindDirItem:
		return "DIR_ITEM", dirItemFields
	case kindDirIndex:
		return "DIR_INDEX", dirItemFields
	case kindExtentData:
		if raw[0x14] == extentInline {
			return fmt.Sprintf("EXTENT_DATA inline of compression %d", raw[0x10]), inlineFields
		}
		return fmt.Sprintf("EXTENT_DATA of type %d and compression %d", raw[0x14], raw[0x10]), extentFields
	case kindCsum:
		return "EXTENT_CSUM", fields{field("sum", 0, 4), field("last sum", len(raw)-4, 4)}
	case kindRoot:
		return "ROOT_ITEM", rootFields
	case kindRootBackref:
		return "ROOT_BACKREF", rootRefFields
	case kindRootRef:
		return "ROOT_REF", rootRefFields
	case kindDevice:
		return "DEV_ITEM", deviceFields
	case kindChunk:
		list := chunkFields
		for at := chunkHeaderSize + stripeItemSize; at < len(raw); at += stripeItemSize {
			list = append(list[:len(list):len(list)], within(fmt.Sprintf("stripe at %d.", at), at, stripeFields)...)
		}
		return fmt.Sprintf("CHUNK_ITEM of type %#x", raw[0x18:0x1a]), list
	}
	return fmt.Sprintf("item of kind %d", k.kind), nil
}

// anatomy is where devices have the tree blocks of a filesystem.
type anatomy struct {
	fs      *Filesystem
	devices []disktest.Image
	blocks  []block
}

// block is a tree block: the first copy of it.
type block struct {
	node
	tree   uint64
	device int
	at     int64 // byte of the device
}

// dissect finds the blocks of all trees that the reader uses.
func dissect(t testing.TB, devices ...disktest.Image) *anatomy {
	t.Helper()
	a := &anatomy{devices: devices}
	fs, err := Open(a.with(0, devices[0]), Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.fs = fs
	seen := make(map[uint64]bool)
	a.tree(t, seen, chunkTree, fs.sb.chunkRoot)
	a.tree(t, seen, rootTree, fs.sb.root)
	if fs.sb.logRoot.block != 0 {
		a.tree(t, seen, treeLog, fs.sb.logRoot)
	}
	for i := 0; i < len(a.blocks); i++ { // the roots that they name come behind
		for n, slot := a.blocks[i].node, 0; n.level() == 0 && slot < n.count(); slot++ {
			k := n.key(slot)
			used := k.object == extentTree || k.object == csumTree || k.object == treeLog || isSubvolume(k.object)
			if k.kind != kindRoot || !used {
				continue
			}
			r, err := parseRoot("root", n.value(slot))
			if err != nil {
				t.Fatal(err)
			}
			a.tree(t, seen, k.object, r.pointer)
		}
	}
	return a
}

// with returns the devices, one of them replaced.
func (a *anatomy) with(device int, d disk.Sparse) (list []disk.Sparse) {
	for _, m := range a.devices {
		list = append(list, m)
	}
	list[device] = d
	return list
}

// damager reads the filesystem with one device damaged. The caches have 24 MiB.
func (a *anatomy) damager(device int) *disktest.Damage {
	return &disktest.Damage{
		Layer: "btrfs", MaxAlloc: 64 << 20, MaxRead: 64 << 20, More: disktest.ReadMore, Strict: true,
		Open: func(d disk.Sparse) (disk.Filesystem, error) { return Open(a.with(device, d), Options{}) },
		Seal: func(block []byte) { seal(a.fs, block) },
	}
}

func (a *anatomy) tree(t testing.TB, seen map[uint64]bool, id uint64, p pointer) {
	t.Helper()
	if seen[p.block] {
		return
	}
	seen[p.block] = true
	c := a.fs.chunks.find(p.block, uint64(a.fs.sb.nodeSize))
	s, at, _ := c.piece(p.block-c.logical, 0)
	n := make(node, a.fs.sb.nodeSize)
	if _, err := a.devices[s.device].ReadAt(n, int64(at)); err != nil {
		t.Fatal(err)
	}
	a.blocks = append(a.blocks, block{n, id, s.device, int64(at)})
	for i := range n.count() {
		if n.level() > 0 {
			a.tree(t, seen, id, n.child(i))
		}
	}
}

// itemOffset is where behind the header of a leaf the content of an item lies.
func itemOffset(n node, i int) uint32 { return binary.LittleEndian.Uint32(n.entry(i)[keySize:]) }

// structures returns what some blocks hold, of each structure so many, and the
// superblock.
func (a *anatomy) structures(most int, wanted func(block) bool) (list []disktest.Structure) {
	count := make(map[string]int)
	add := func(b block, name string, off int, f fields) {
		name = fmt.Sprintf("%s of tree %d", name, int64(b.tree))
		if count[name]++; len(f) > 0 && count[name] <= most {
			extent := disk.Extent{Offset: b.at, Length: int64(len(b.node))}
			list = append(list, disktest.Structure{Name: name, Off: b.at + int64(off), Fields: f, Block: extent})
		}
	}
	for _, b := range a.blocks {
		if !wanted(b) {
			continue
		}
		n := b.node
		add(b, fmt.Sprintf("header at level %d", n.level()), 0, headerFields)
		for i := range n.count() {
			if n.level() > 0 {
				add(b, "pointer", nodeHeaderSize+i*pointerSize, pointerFields)
				continue
			}
			name, f := contentFields(n.key(i), n.value(i).raw)
			add(b, "key of "+name, nodeHeaderSize+i*itemSize, itemFields)
			add(b, name, nodeHeaderSize+int(itemOffset(n, i)), f)
		}
	}
	super := disk.Extent{Offset: superblockOffset, Length: superblockSize}
	return append(list, disktest.Structure{Name: "superblock", Off: superblockOffset, Fields: superblockFields, Block: super})
}

// TestFields damages each field of each structure, behind checksums that are right:
// of the image with a log, those of the log.
func TestFields(t *testing.T) {
	for _, name := range []string{"mixed", "log", "xxhash"} {
		t.Run(name, func(t *testing.T) {
			a := dissect(t, disktest.LoadSeed(t, name))
			a.setFields(t, 0, func(b block) bool { return name == "mixed" || name == "log" && b.tree == treeLog })
		})
	}
}

// setFields damages the fields of some blocks of a device, and of its superblock.
func (a *anatomy) setFields(t *testing.T, device int, wanted func(block) bool) {
	t.Helper()
	list := a.structures(1, wanted)
	if *Thorough {
		list = a.structures(1<<30, func(b block) bool { return b.device == device })
	}
	a.damager(device).SetFields(t, a.devices[device], list)
	t.Logf("%d structures", len(list))
}

// TestDevices damages what says where the devices are and what lies on them, with
// profiles of which there is one copy of the metadata, and cuts each device.
func TestDevices(t *testing.T) {
	for _, profile := range []string{"raid10", "raid1c3", "dup"} {
		t.Run(profile, func(t *testing.T) {
			var devices []disktest.Image
			args := []string{"-q", "-f", "-m", "raid0", "-d", profile}
			for range 4 {
				args = append(args, disktest.EmptyImage(t, 192<<20))
			}
			disktest.Run(t, "mkfs.btrfs", args...)
			for _, path := range args[6:] {
				devices = append(devices, disktest.OpenImage(t, path))
			}
			a := dissect(t, devices...)
			for device := range devices {
				a.setFields(t, device, func(b block) bool { return b.tree == chunkTree && b.device == device })
				a.damager(device).Cuts(t, devices[device])
			}
		})
	}
}
