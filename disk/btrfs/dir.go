package btrfs

import (
	"bytes"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

const (
	maxNameLen = 255

	// firstIndex is the first place in a directory: 0 and 1 are "." and "..".
	firstIndex = 2
)

// dirItem is a name in a directory, or an extended attribute.
//
// Layout of struct btrfs_dir_item, little endian:
//
//	0x00 17 location   0x19 2 data_len   0x1D 1 type    0x1E name_len bytes of name,
//	0x11 8 transid     0x1B 2 name_len                  data_len of data
type dirItem struct {
	location   key
	kind       uint8
	name, data []byte
}

const (
	dirItemSize = 30
	typeXattr   = 8
	// typeEncrypted is set where the name is encrypted (fscrypt).
	typeEncrypted = 0x80
)

// fileTypes translates the items' type.
var fileTypes = [...]uint32{
	1: disk.ModeRegular, 2: disk.ModeDir, 3: disk.ModeChar, 4: disk.ModeBlock,
	5: disk.ModeFIFO, 6: disk.ModeSocket, 7: disk.ModeSymlink,
}

// parseDirItem takes the first of the items in raw, and returns what follows it.
func parseDirItem(raw []byte) (item dirItem, rest []byte, ok bool) {
	c := newCursor(raw)
	item.location = key{c.U64(), c.U8(), c.U64()}
	c.Skip(8)
	dataLen, nameLen := int(c.U16()), int(c.U16())
	item.kind = c.U8()
	item.name, item.data = c.Bytes(nameLen), c.Bytes(dataLen)
	if c.Err() != nil {
		return dirItem{}, nil, false
	}
	return item, raw[c.Offset():], true
}

// ReadDir implements [disk.Filesystem]. The entry of a subvolume is its root
// directory. Entries whose numbers do not fit are left out, and the error of the
// first of them is returned at the end.
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	n, err := fs.file(ino)
	if err != nil {
		return err
	}
	if n.Type() != disk.ModeDir {
		return layer.Absent(n.name(), "mode %#o is not a directory", n.Mode)
	}
	if n.object >= firstStub {
		return nil
	}
	var beyond error
	err = n.volume.items(n.object, kindDirIndex, firstIndex, func(index uint64, v value) error {
		item, err := n.entry(index, v)
		if err != nil {
			return err
		}
		e, err := fs.resolve(n, item, v.at)
		if err != nil {
			if beyond == nil {
				beyond = err
			}
			return nil
		}
		return yield(e)
	})
	if err != nil {
		return err
	}
	return beyond
}

// entry checks the item at a place in directory n.
func (n *inode) entry(index uint64, v value) (dirItem, error) {
	item, rest, ok := parseDirItem(v.raw)
	damaged := func(format string, args ...any) (dirItem, error) {
		return dirItem{}, layer.Damaged(fmt.Sprintf("entry %d of %s", index, n.name()), v.at, format, args...)
	}
	switch {
	case !ok || len(rest) != 0 || len(item.data) != 0:
		return damaged("it has %d bytes, which is not what one name takes", len(v.raw))
	case item.kind&typeEncrypted != 0:
		return damaged("its name is encrypted, which no released kernel does")
	case len(item.name) == 0 || len(item.name) > maxNameLen:
		return damaged("a name of %d bytes", len(item.name))
	case bytes.IndexByte(item.name, '/') >= 0 || bytes.IndexByte(item.name, 0) >= 0 || string(item.name) == "." || string(item.name) == "..":
		return damaged("the name %q", item.name)
	case item.kind == 0 || int(item.kind) >= len(fileTypes):
		return damaged("type %d", item.kind)
	case item.location.kind == kindInode && item.location.offset == 0 && item.location.object >= firstFree:
	case item.location.kind == kindRoot && isSubvolume(item.location.object) && fileTypes[item.kind] == disk.ModeDir:
	default:
		return damaged("it refers to %v", item.location)
	}
	return item, nil
}

// resolve makes an entry of directory n of an item at a place. Its errors are those of
// numbers that do not fit, and of trees that cannot be read.
func (fs *Filesystem) resolve(n *inode, item dirItem, at int64) (disk.DirEntry, error) {
	e := disk.DirEntry{Name: item.name, Type: fileTypes[item.kind]}
	target := item.location.object
	if item.location.kind == kindInode {
		if target >= firstStub {
			return e, layer.Beyond(inodeName(n.volume.id, target), at, "numbers below %d can be read", uint64(firstStub))
		}
		e.Ino = makeIno(n.volume.id, target)
		return e, nil
	}
	if target > maxSubvolumeID {
		return e, layer.Beyond(subvolumeName(target), at, "IDs up to %d can be read", uint64(maxSubvolumeID))
	}
	mounted, err := fs.refersTo(n, target, item.name)
	if err != nil {
		return e, err
	}
	e.Ino = makeIno(n.volume.id, firstStub+target)
	if mounted {
		e.Ino = makeIno(target, subvolumeRoot)
	}
	return e, nil
}
