package btrfs

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

// maxXattrBytes bounds the names and values of one inode. Linux lists at most
// 64 KiB of names (XATTR_LIST_MAX), each with a value of at most a tree block;
// no guest sets more than a part of that.
const maxXattrBytes = 8 << 20

// Xattrs implements [disk.Filesystem]. The values are as Linux shows them: ACLs
// are kept in that form. Those whose names collide share an item.
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	n, err := fs.file(ino)
	if err != nil || n.object >= firstStub {
		return nil, err
	}
	var list []disk.Xattr
	total := 0
	err = n.volume.items(n.object, kindXattr, 0, func(hash uint64, v value) error {
		raw := v.raw
		if total += len(raw); total > maxXattrBytes {
			return layer.Beyond("attributes of "+n.name(), v.at, "they take more than %d bytes", maxXattrBytes)
		}
		for len(raw) > 0 {
			item, rest, ok := parseDirItem(raw)
			if !ok || item.kind&^typeEncrypted != typeXattr || len(item.name) == 0 || len(item.name) > maxNameLen ||
				bytes.IndexByte(item.name, 0) >= 0 || uint64(nameHash(item.name)) != hash {
				return layer.Damaged("attributes of "+n.name(), v.at, "the item at %#x holds an attribute of type %d with the name %.40q", hash, item.kind, item.name)
			}
			list = append(list, disk.Xattr{Name: bytes.Clone(item.name), Value: bytes.Clone(item.data)})
			raw = rest
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b disk.Xattr) int { return bytes.Compare(a.Name, b.Name) })
	for i := 1; i < len(list); i++ {
		if bytes.Equal(list[i-1].Name, list[i].Name) {
			return nil, layer.Damaged("attributes of "+n.name(), n.at, "%s is there twice", fmt.Sprintf("%.40q", list[i].Name))
		}
	}
	return list, nil
}
