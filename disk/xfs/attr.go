package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The magic numbers of attribute blocks, in version 4 and 5.
const (
	attrLeafMagic  = 0xfbee
	attrNodeMagic  = 0xfebe
	attrLeafMagic5 = 0x3bee
	attrNodeMagic5 = 0x3ebe
)

// The flags of an attribute.
const (
	attrLocal      = 0x01
	attrRoot       = 0x02
	attrSecure     = 0x04
	attrParent     = 0x08
	attrIncomplete = 0x80

	attrKnown = attrLocal | attrRoot | attrSecure | attrParent | attrIncomplete
)

const (
	// maxXattrValue is XATTR_SIZE_MAX of Linux: no system call stores more.
	maxXattrValue = 64 << 10
	// maxXattrTotal bounds the names and values of one file: more than listxattr(2)
	// has room for, with the largest values.
	maxXattrTotal = 16 << 20
)

// attributes collects those of one file.
type attributes struct {
	fs    *Filesystem
	inode *inode
	list  []disk.Xattr
	total int // bytes
}

func attrName(ino uint64) place { return place{"extended attributes of inode", ino} }

// Xattrs implements [disk.Filesystem]. As Linux does, it shows an ACL twice: as
// attribute of the namespace "trusted", and as the ACL that it is.
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	n, err := fs.file(ino)
	if err != nil || !n.hasAttr {
		return nil, err
	}
	if err := fs.intents.refuseAttributes(ino); err != nil {
		return nil, err
	}
	a := &attributes{fs: fs, inode: n}
	switch {
	case n.attr.format == formatLocal:
		err = a.short(n.attr.raw)
	case n.attr.count > 0:
		err = a.blocks()
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(a.list, func(x, y disk.Xattr) int { return bytes.Compare(x.Name, y.Name) })
	for i := 1; i < len(a.list); i++ {
		if bytes.Equal(a.list[i-1].Name, a.list[i].Name) {
			return nil, a.damaged(ondisk.Nowhere, "%q is there twice", a.list[i].Name)
		}
	}
	return a.list, nil
}

func (a *attributes) damaged(off int64, format string, args ...any) error {
	return layer.Damaged(attrName(a.inode.Ino).String(), off, format, args...)
}

// add keeps an attribute, whose value is the caller's no more. Parent pointers
// and what was being written are not shown.
func (a *attributes) add(flags byte, name, value []byte) error {
	prefix := "user."
	switch flags & (attrRoot | attrSecure) {
	case attrRoot:
		prefix = "trusted."
	case attrSecure:
		prefix = "security."
	case attrRoot | attrSecure:
		return a.damaged(ondisk.Nowhere, "%q is in two namespaces", name)
	}
	if a.total += len(name) + len(value); a.total > maxXattrTotal {
		return layer.Beyond(attrName(a.inode.Ino).String(), ondisk.Nowhere, "they have more than %d bytes", maxXattrTotal)
	}
	a.list = append(a.list, disk.Xattr{Name: append([]byte(prefix), name...), Value: value})
	if acl := aclNames[string(name)]; acl != "" && flags&attrRoot != 0 {
		converted, err := convertACL(value)
		if err != nil {
			return a.damaged(ondisk.Nowhere, "%v", err)
		}
		a.list = append(a.list, disk.Xattr{Name: []byte(acl), Value: converted})
	}
	return nil
}

// visible checks an attribute's flags and name, and reports whether it is shown.
func (a *attributes) visible(off int64, flags byte, name []byte) (bool, error) {
	switch {
	case flags&^attrKnown != 0:
		return false, a.damaged(off, "an attribute with flags %#x", flags)
	case flags&(attrParent|attrIncomplete) != 0:
		return false, nil
	case len(name) == 0 || bytes.IndexByte(name, 0) >= 0:
		return false, a.damaged(off, "the name %q is not possible", name)
	}
	return true, nil
}

// short reads attributes that lie in the inode. Layout ("Shortform Attribute
// Lists"): 0 2 bytes in all, 2 1 count, 3 1 unused; then for each 1 length of the
// name, 1 of the value, 1 flags, the name, the value.
func (a *attributes) short(raw []byte) error {
	c := ondisk.NewCursor(raw, binary.BigEndian)
	size, count := int(c.U16()), int(c.U8())
	c.Skip(1)
	for range count {
		nameLength, valueLength, flags := int(c.U8()), int(c.U8()), c.U8()
		name, value := c.Bytes(nameLength), c.Bytes(valueLength)
		if c.Err() != nil {
			break
		}
		show, err := a.visible(ondisk.Nowhere, flags, name)
		if err != nil {
			return err
		}
		if show {
			if err := a.add(flags, name, bytes.Clone(value)); err != nil {
				return err
			}
		}
	}
	switch {
	case c.Err() != nil:
		return a.damaged(ondisk.Nowhere, "%v", c.Err())
	case c.Offset() != size:
		return a.damaged(ondisk.Nowhere, "%d of %d bytes are used", c.Offset(), size)
	}
	return nil
}

// blocks reads attributes that have blocks of their own: one leaf, or a tree of
// nodes over several, of which each knows the next.
func (a *attributes) blocks() error {
	m := newMapping(a.fs, a.inode, a.inode.attr)
	block, err := a.firstLeaf(m)
	if err != nil {
		return err
	}
	seen := make(map[int64]bool)
	for range maxAttrLeaves {
		data, off, err := a.read(m, block)
		if err != nil {
			return err
		}
		if seen[off] {
			return a.damaged(off, "a leaf is there twice")
		}
		seen[off] = true
		if !a.isLeaf(data) {
			return a.damaged(off, "a node where a leaf is due")
		}
		if err := a.leaf(m, data, off); err != nil {
			return err
		}
		next := binary.BigEndian.Uint32(data)
		if next == 0 {
			return nil
		}
		block = uint64(next)
	}
	return layer.Beyond(attrName(a.inode.Ino).String(), ondisk.Nowhere, "they have more than %d leaves", maxAttrLeaves)
}

// maxAttrLeaves bounds the leaves of one file: 64 MiB of them with blocks of 4
// KiB, where listxattr(2) has room for 64 KiB of names.
const maxAttrLeaves = 1 << 14

// firstLeaf goes down to the leaf with the lowest hashes. Layout of a node's
// entries ("Internal Nodes"), behind 2 count and 2 level: 4 hash, 4 block.
func (a *attributes) firstLeaf(m *mapping) (uint64, error) {
	block, level := uint64(0), -1
	for {
		data, off, err := a.read(m, block)
		if err != nil || a.isLeaf(data) {
			if err == nil && level > 1 {
				err = a.damaged(off, "a leaf where a node of level %d is due", level-1)
			}
			return block, err
		}
		at, entries := 12, 16
		if a.fs.sb.checksummed {
			at, entries = 56, 64
		}
		count, got := int(binary.BigEndian.Uint16(data[at:])), int(binary.BigEndian.Uint16(data[at+2:]))
		if got == 0 || got > maxAttrLevels || level >= 0 && got != level-1 {
			return 0, a.damaged(off, "a node of level %d under one of level %d", got, level)
		}
		if count == 0 || count > (len(data)-entries)/8 {
			return 0, a.damaged(off, "a node of %d entries", count)
		}
		level, block = got, uint64(binary.BigEndian.Uint32(data[entries+4:]))
	}
}

const maxAttrLevels = 5 // XFS_DA_NODE_MAXDEPTH

func (a *attributes) isLeaf(data []byte) bool {
	magic := binary.BigEndian.Uint16(data[8:])
	return magic == attrLeafMagic || magic == attrLeafMagic5
}

// read returns a block of the attribute fork: a leaf or a node.
func (a *attributes) read(m *mapping, block uint64) ([]byte, int64, error) {
	s, err := m.at(block)
	if err != nil {
		return nil, 0, err
	}
	if s.kind != disk.ExtentData {
		return nil, 0, a.damaged(ondisk.Nowhere, "there is a hole at block %d", block)
	}
	off := a.fs.sb.offset(s.physical)
	data, err := a.fs.block(attrForm, off, int(a.fs.sb.blockSize()), a.inode.Ino, attrName(a.inode.Ino))
	return data, off, err
}

// leaf reads the attributes of a leaf. Layout ("Leaf Attributes"), behind what
// all attribute blocks share: 2 count, 2 bytes used, 2 where names start; then, at
// 32 or in version 5 at 80, for each attribute:
//
//	0 4 hash   4 2 where its name is   6 1 flags
func (a *attributes) leaf(m *mapping, data []byte, off int64) error {
	at, entries := 12, 32
	if a.fs.sb.checksummed {
		at, entries = 56, 80
	}
	count := int(binary.BigEndian.Uint16(data[at:]))
	if count > (len(data)-entries)/8 {
		return a.damaged(off, "a leaf of %d attributes", count)
	}
	for i := range count {
		e := data[entries+i*8:]
		where, flags := int(binary.BigEndian.Uint16(e[4:])), e[6]
		if where < entries+count*8 {
			return a.damaged(off, "the name of attribute %d is said to be at %d", i, where)
		}
		if err := a.named(m, data, off, where, flags); err != nil {
			return err
		}
	}
	return nil
}

// named reads the name of an attribute and its value. Layout: 0 2 length of the
// value, 2 1 length of the name, the name, the value; or, if the value lies
// elsewhere, 0 4 block, 4 4 length of the value, 8 1 length of the name, the name.
func (a *attributes) named(m *mapping, data []byte, off int64, where int, flags byte) error {
	c := ondisk.NewCursor(data, binary.BigEndian)
	c.Seek(where)
	var name, value []byte
	var block, length uint32
	if flags&attrLocal != 0 {
		length = uint32(c.U16())
		name = c.Bytes(int(c.U8()))
		value = c.Bytes(int(length))
	} else {
		block, length = c.U32(), c.U32()
		name = c.Bytes(int(c.U8()))
	}
	if c.Err() != nil {
		return a.damaged(off, "%v", c.Err())
	}
	show, err := a.visible(off, flags, name)
	if err != nil || !show {
		return err
	}
	if flags&attrLocal == 0 {
		if value, err = a.remote(m, name, block, length); err != nil {
			return err
		}
		return a.add(flags, name, value)
	}
	return a.add(flags, name, bytes.Clone(value))
}

// remote reads a value that has blocks of its own, in version 5 each with a
// header as [symlinkHeader] describes it.
func (a *attributes) remote(m *mapping, name []byte, block, length uint32) ([]byte, error) {
	where := fmt.Sprintf("value of attribute %q of inode %d", name, a.inode.Ino)
	if length > maxXattrValue {
		return nil, layer.Beyond(where, ondisk.Nowhere, "%d bytes, at most %d are possible", length, maxXattrValue)
	}
	sb := a.fs.sb
	value := make([]byte, 0, length)
	for at := uint64(block); len(value) < int(length); at++ {
		s, err := m.at(at)
		if err != nil {
			return nil, err
		}
		if s.kind != disk.ExtentData || block == 0 {
			return nil, layer.Damaged(where, ondisk.Nowhere, "there is a hole at block %d", at)
		}
		off := sb.offset(s.physical)
		want := min(int(sb.blockSize()), int(length)-len(value))
		if !sb.checksummed {
			value = value[:len(value)+want]
			if _, err := a.fs.dev.readAt(value[len(value)-want:], off); err != nil {
				return nil, layer.Unreadable(where, off, err)
			}
			continue
		}
		data, err := a.fs.block(valueForm, off, int(sb.blockSize()), a.inode.Ino, place{"attribute value of inode", a.inode.Ino})
		if err != nil {
			return nil, err
		}
		want = min(want, int(sb.blockSize())-symlinkHeader)
		offset, bytes := binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
		if int64(offset) != int64(len(value)) || int64(bytes) != int64(want) {
			return nil, layer.Damaged(where, off, "%d bytes from %d on, where %d from %d on are due", bytes, offset, want, len(value))
		}
		value = append(value, data[symlinkHeader:symlinkHeader+want]...)
	}
	return value, nil
}
