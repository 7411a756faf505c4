package ext4

import (
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// flagInodeUninit in bg_flags: the inode table was never written.
const flagInodeUninit = 0x1

// reach makes sure that the bitmaps have all blocks that inodes refer to as in use.
// A copy without those that they have as free would lose content that e2fsck, and
// Linux until it has overwritten them, still finds.
type reach struct {
	fs  *Filesystem
	ino uint64 // at hand
}

// checkReached reads all inodes.
func (fs *Filesystem) checkReached() error {
	r := reach{fs: fs}
	lazy := fs.sb.ro&(roMetadataCsum|roGdtCsum) != 0
	for number := range fs.sb.groupCount() {
		g, err := fs.group(number)
		if err != nil {
			return err
		}
		count := fs.sb.groupInodes
		if lazy {
			if g.flags&flagInodeUninit != 0 {
				continue
			}
			count -= min(count, g.unusedInodes)
		}
		for i := range count {
			if err := r.inode(number*uint64(fs.sb.groupInodes) + uint64(i) + 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// inode looks at one inode, unless it is free, or its blocks are those that fast
// commits have moved.
func (r *reach) inode(ino uint64) error {
	fs := r.fs
	if fs.reserved(ino) || fs.changes.inode(ino) != nil {
		return nil
	}
	raw, _, err := fs.rawInode(ino)
	if err != nil || binary.LittleEndian.Uint16(raw[linksOffset:]) == 0 {
		return err
	}
	n, err := fs.inode(ino)
	if err != nil {
		return err
	}
	r.ino = ino
	if n.xattrs != 0 {
		if err := r.blocks(n.xattrs, 1); err != nil {
			return err
		}
	}
	hasBlocks := n.Type() == disk.ModeRegular || n.Type() == disk.ModeDir || n.Type() == disk.ModeSymlink && !fs.isFast(n)
	if !hasBlocks || n.flags&flagInlineData != 0 {
		return nil
	}
	f := &file{mapping: newMapping(fs, n), size: n.Size}
	f.visit = func(block uint64) error { return r.blocks(block, 1) }
	return f.stretches(0, n.Size, func(s stretch, _, _ int64) error {
		if s.kind == disk.ExtentHole {
			return nil
		}
		return r.blocks(s.physical, s.length)
	})
}

// blocks checks that count blocks from block on are in use.
func (r *reach) blocks(block, count uint64) error {
	sb := r.fs.sb
	for count > 0 && sb.validBlocks(block, count) {
		number := (block - sb.firstBlock) / sb.groupBlocks
		first := block - sb.firstBlock - number*sb.groupBlocks
		n := min(count, sb.groupBlocks-first)
		g, err := r.fs.group(number)
		if err != nil {
			return err
		}
		lazy := sb.ro&(roMetadataCsum|roGdtCsum) != 0
		if lazy && g.flags&flagBlockUninit != 0 || !sb.validBlocks(g.blockBitmap, 1) {
			return r.free(block, number)
		}
		where := r.fs.blockSpan(g.blockBitmap)
		bitmap, err := r.fs.dev.metadata(where)
		if err != nil {
			return layer.Unreadable(bitmapName(number), where.off, err)
		}
		for bit, end := first>>sb.clusterBits(), (first+n-1)>>sb.clusterBits(); bit <= end; {
			switch {
			case bit%8 == 0 && bitmap[bit/8] == 0xff:
				bit += 8
			case bitmap[bit/8]>>(bit%8)&1 == 0:
				return r.free(block, number)
			default:
				bit++
			}
		}
		block, count = block+n, count-n
	}
	return nil
}

func (r *reach) free(block, group uint64) error {
	return layer.Damaged(bitmapName(group), r.fs.blockSpan(block).off, "block %d is free, or blocks behind it, but inode %d has them", block, r.ino)
}

func bitmapName(group uint64) string { return fmt.Sprintf("block bitmap of group %d", group) }
