package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	xattrMagic       = 0xea020000
	xattrBlockHeader = 32
	xattrBodyHeader  = 4
	xattrEntrySize   = 16

	// maxXattrValue is XATTR_SIZE_MAX of Linux: no system call stores more.
	maxXattrValue = 64 << 10
	// maxXattrTotal bounds the values of one file: what a block of 4 KiB full
	// of attributes with inodes of their own can hold.
	maxXattrTotal = 16 << 20
)

// The name indexes that need care.
const (
	indexACLAccess  = 2
	indexACLDefault = 3
	indexSystem     = 7
	indexEncryption = 9
	indexVerity     = 11
)

// xattrPrefixes expands e_name_index.
var xattrPrefixes = [...]string{
	1: "user.", indexACLAccess: "system.posix_acl_access", indexACLDefault: "system.posix_acl_default",
	4: "trusted.", 5: "lustre.", 6: "security.", indexSystem: "system.", 8: "system.richacl",
	10: "gnu.",
}

// xattrEntry is one attribute as the disk keeps it. Layout
// (Documentation/filesystems/ext4/attributes.rst), little endian:
//
//	0x0 1 e_name_len     0x4 4 e_value_inum   0xC 4 e_hash
//	0x1 1 e_name_index   0x8 4 e_value_size   0x10  e_name
//	0x2 2 e_value_offs
type xattrEntry struct {
	index  byte
	name   []byte
	offset int    // of the value in its area
	value  []byte // empty where inode is set
	inode  uint32 // of the value, or 0
	size   uint32
	hash   uint32
}

// isInlineData says that this is no attribute but the rest of inline data.
func (e *xattrEntry) isInlineData() bool {
	return e.index == indexSystem && string(e.name) == "data"
}

func xattrName(ino uint64) string { return fmt.Sprintf("extended attributes of inode %d", ino) }

// Xattrs implements [disk.Filesystem].
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	entries, err := fs.bodyXattrs(n)
	if err != nil {
		return nil, err
	}
	if n.xattrs != 0 {
		more, err := fs.blockXattrs(n)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return fs.expand(n, entries)
}

// expand makes attributes of entries: full names, values from wherever they
// are, ACLs as system calls show them.
func (fs *Filesystem) expand(n *inode, entries []xattrEntry) ([]disk.Xattr, error) {
	list := make([]disk.Xattr, 0, len(entries))
	total := 0
	for i := range entries {
		e := &entries[i]
		if e.isInlineData() || e.index == indexEncryption || e.index == indexVerity {
			continue // not attributes, for any system call
		}
		if int(e.index) >= len(xattrPrefixes) || xattrPrefixes[e.index] == "" {
			return nil, layer.Unsupported(xattrName(n.Ino), ondisk.Nowhere, "", "an attribute of kind %d", e.index)
		}
		value, err := fs.xattrValue(n, e)
		if err != nil {
			return nil, err
		}
		if total += len(value); total > maxXattrTotal {
			return nil, layer.Beyond(xattrName(n.Ino), ondisk.Nowhere, "the values have more than %d bytes", maxXattrTotal)
		}
		name := append([]byte(xattrPrefixes[e.index]), e.name...)
		list = append(list, disk.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b disk.Xattr) int { return bytes.Compare(a.Name, b.Name) })
	for i := 1; i < len(list); i++ {
		if bytes.Equal(list[i-1].Name, list[i].Name) {
			return nil, layer.Damaged(xattrName(n.Ino), ondisk.Nowhere, "%q is there twice", list[i].Name)
		}
	}
	return list, nil
}

// xattrValue returns a copy of the entry's value.
func (fs *Filesystem) xattrValue(n *inode, e *xattrEntry) ([]byte, error) {
	value := e.value
	if e.inode != 0 {
		var err error
		if value, err = fs.inodeValue(n, e); err != nil {
			return nil, err
		}
	}
	if e.index == indexACLAccess || e.index == indexACLDefault {
		acl, err := convertACL(value)
		if err != nil {
			return nil, layer.Damaged(xattrName(n.Ino), ondisk.Nowhere, "%v", err)
		}
		return acl, nil
	}
	return slices.Clone(value), nil
}

// bodyXattrs reads the attributes behind the inode's fixed fields. Offsets of
// values count from the first entry.
func (fs *Filesystem) bodyXattrs(n *inode) ([]xattrEntry, error) {
	if n.end == oldInodeSize || n.end+xattrBodyHeader > len(n.raw) {
		return nil, nil
	}
	body := n.raw[n.end:]
	if binary.LittleEndian.Uint32(body) != xattrMagic {
		return nil, nil
	}
	return parseXattrs(body[xattrBodyHeader:], 0, n.Ino, ondisk.Nowhere)
}

// blockXattrs reads the block of attributes, which several inodes can share.
//
// Layout of its header, little endian:
//
//	0x0 4 h_magic   0x4 4 h_refcount   0x8 4 h_blocks   0xC 4 h_hash   0x10 4 h_checksum
func (fs *Filesystem) blockXattrs(n *inode) ([]xattrEntry, error) {
	name := fmt.Sprintf("attribute block of inode %d", n.Ino)
	if !fs.sb.validBlocks(n.xattrs, 1) {
		return nil, layer.Damaged(name, ondisk.Nowhere, "it is block %d, the filesystem has %d", n.xattrs, fs.sb.blockCount)
	}
	where := fs.blockSpan(n.xattrs)
	data, err := fs.dev.metadata(where)
	if err != nil {
		return nil, layer.Unreadable(name, where.off, err)
	}
	if magic := binary.LittleEndian.Uint32(data); magic != xattrMagic {
		return nil, layer.Damaged(name, where.off, "the magic number is %#08x, not %#08x", magic, uint32(xattrMagic))
	}
	if blocks := binary.LittleEndian.Uint32(data[8:]); blocks != 1 {
		return nil, layer.Damaged(name, where.off, "it has %d blocks", blocks)
	}
	if fs.sb.hasChecksum() {
		want := binary.LittleEndian.Uint32(data[16:])
		number := binary.LittleEndian.AppendUint64(nil, n.xattrs)
		if got := uint32(fs.sb.seed.add(number).addWithout(data, 16, 4)); got != want {
			return nil, layer.Damaged(name, where.off, "checksum is %#08x, the block says %#08x", got, want)
		}
	}
	return parseXattrs(data, xattrBlockHeader, n.Ino, where.off)
}

// parseXattrs reads the list of entries from offset first of area, in which the
// values lie too.
func parseXattrs(area []byte, first int, ino uint64, off int64) ([]xattrEntry, error) {
	var list []xattrEntry
	lowest := len(area) // where the first value starts
	at := first
	for {
		if at+4 > len(area) {
			return nil, layer.Damaged(xattrName(ino), off, "the list of attributes has no end")
		}
		if binary.LittleEndian.Uint32(area[at:]) == 0 {
			break
		}
		e, next, err := parseXattr(area, at)
		if err != nil {
			return nil, layer.Damaged(xattrName(ino), off, "%v", err)
		}
		if len(e.value) > 0 {
			lowest = min(lowest, e.offset)
		}
		list = append(list, e)
		at = next
	}
	if lowest < at+4 {
		return nil, layer.Damaged(xattrName(ino), off, "a value at %d lies within the list of attributes", lowest)
	}
	return list, nil
}

// parseXattr reads the entry at offset at, and returns the next one's offset.
func parseXattr(area []byte, at int) (xattrEntry, int, error) {
	c := ondisk.NewCursor(area, binary.LittleEndian)
	c.Seek(at)
	nameLen := int(c.U8())
	e := xattrEntry{index: c.U8()}
	e.offset = int(c.U16())
	e.inode, e.size, e.hash = c.U32(), c.U32(), c.U32()
	e.name = c.Bytes(nameLen)
	if c.Err() != nil {
		return e, 0, c.Err()
	}
	if bytes.IndexByte(e.name, 0) >= 0 {
		return e, 0, fmt.Errorf("an attribute's name has a NUL in it: %q", e.name)
	}
	if e.inode == 0 && e.size > 0 {
		if !ondisk.Within(int64(e.offset), int64(e.size), int64(len(area))) {
			return e, 0, fmt.Errorf("the value of %q, %d bytes at %d, is outside", e.name, e.size, e.offset)
		}
		e.value = area[e.offset : e.offset+int(e.size)]
	}
	return e, (at + xattrEntrySize + nameLen + 3) &^ 3, nil
}

// inodeValue reads a value that has an inode of its own (feature ea_inode),
// and checks it against the hashes in the inode and in the entry.
func (fs *Filesystem) inodeValue(n *inode, e *xattrEntry) ([]byte, error) {
	name := fmt.Sprintf("value of attribute %q of inode %d, in inode %d", e.name, n.Ino, e.inode)
	if fs.sb.incompat&incompatEAInode == 0 {
		return nil, layer.Damaged(name, ondisk.Nowhere, "the filesystem has no feature ea_inode")
	}
	holder, err := fs.inode(uint64(e.inode))
	if err != nil {
		return nil, err
	}
	if holder.flags&flagEAInode == 0 || holder.Type() != disk.ModeRegular || holder.Size != int64(e.size) {
		return nil, layer.Damaged(name, ondisk.Nowhere, "the inode, of %d bytes, does not hold a value of %d bytes", holder.Size, e.size)
	}
	if e.size > maxXattrValue {
		return nil, layer.Beyond(name, ondisk.Nowhere, "%d bytes, at most %d are possible", e.size, maxXattrValue)
	}
	content, err := fs.content(holder)
	if err != nil {
		return nil, err
	}
	value := make([]byte, e.size)
	if err := ondisk.ReadFull(content, value, 0); err != nil {
		return nil, err
	}
	if e.isLustre(n, holder) {
		return value, nil
	}
	// The inode's access time is the hash of the value.
	sum := uint32(fs.sb.seed.add(value))
	if want := uint32(holder.Access.Sec); sum != want {
		return nil, layer.Damaged(name, ondisk.Nowhere, "hash is %#08x, the inode says %#08x", sum, want)
	}
	if !e.hashMatches(sum) {
		return nil, layer.Damaged(name, ondisk.Nowhere, "the entry's hash %#08x is not that of the name and the value", e.hash)
	}
	return value, nil
}

// isLustre reports whether the value's inode is one of Lustre's first kind: there
// are no hashes, but the inode names the file that it belongs to.
func (e *xattrEntry) isLustre(n, holder *inode) bool {
	return e.hash != uint32(holder.Access.Sec) && uint64(uint32(holder.Modify.Sec)) == n.Ino && holder.Generation == n.Generation
}

// hashMatches checks e_hash of an entry whose value, with hash sum, has an
// inode of its own. Kernels have taken the name's bytes for signed and for
// unsigned ones.
func (e *xattrEntry) hashMatches(sum uint32) bool {
	var signed, unsigned uint32
	for _, b := range e.name {
		signed = signed<<5 ^ signed>>27 ^ uint32(int32(int8(b)))
		unsigned = unsigned<<5 ^ unsigned>>27 ^ uint32(b)
	}
	signed = signed<<16 ^ signed>>16 ^ sum
	unsigned = unsigned<<16 ^ unsigned>>16 ^ sum
	return e.hash == signed || e.hash == unsigned
}
