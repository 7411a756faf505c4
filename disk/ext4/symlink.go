package ext4

import (
	"bytes"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Readlink implements [disk.Filesystem].
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeSymlink {
		return nil, layer.Absent(inodeName(ino), "mode %#o is not a symlink", n.Mode)
	}
	target, err := fs.target(n)
	if err != nil {
		return nil, err
	}
	if len(target) == 0 || bytes.IndexByte(target, 0) >= 0 {
		return nil, layer.Damaged(inodeName(ino), ondisk.Nowhere, "the symlink's target is empty or has a NUL in it")
	}
	return target, nil
}

func (fs *Filesystem) target(n *inode) ([]byte, error) {
	// A target and the NUL behind it have one block.
	if n.Size >= fs.sb.blockSize() {
		return nil, layer.Damaged(inodeName(n.Ino), ondisk.Nowhere, "a symlink of %d bytes with blocks of %d", n.Size, fs.sb.blockSize())
	}
	content, err := fs.content(n)
	if err != nil {
		return nil, err
	}
	target := make([]byte, n.Size)
	if fs.isFast(n) {
		if copied := copy(target, n.block[:]); copied < len(target) {
			return nil, layer.Damaged(inodeName(n.Ino), ondisk.Nowhere, "a symlink of %d bytes without a block", n.Size)
		}
		return target, nil
	}
	if err := ondisk.ReadFull(content, target, 0); err != nil {
		return nil, err
	}
	return target, nil
}

// isFast reports whether the target of a symlink lies in i_block. Linux tells
// it by the blocks that the file has, unless attributes may have inodes of
// their own, which are counted as well.
func (fs *Filesystem) isFast(n *inode) bool {
	if n.flags&flagInlineData != 0 {
		return false
	}
	if fs.sb.incompat&incompatEAInode != 0 {
		return n.Size < blockFieldSize
	}
	var attributes uint64
	if n.xattrs != 0 {
		attributes = 1 << (fs.sb.clusterShift - 9)
	}
	return n.sectors == attributes
}
