package xfs

import (
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxCreatedBlocks bounds the blocks of one creation: 64 inodes of a block each.
const maxCreatedBlocks = 64

// create notes new inodes, which are all zeros until they are written. Layout
// (xfs_icreate_log), of which only the first two fields are in the machine's
// order:
//
//	0 2 type     4 4 group           12 4 inodes        20 4 blocks
//	2 2 regions  8 4 block in it     16 4 inode size    24 4 generation
func (r *replay) create(it *item) error {
	sb := r.fs.sb
	c := ondisk.NewCursor(it.regions[0], binary.BigEndian)
	c.Skip(4)
	group, block, count, size, length := c.U32(), c.U32(), c.U32(), c.U32(), c.U32()
	first := uint64(group)<<sb.agShift | uint64(block)
	// The log may make the filesystem larger: only the disk is a limit.
	groups := uint64(r.fs.dev.disk.Size()) >> sb.blockShift / uint64(sb.agBlocks)
	if c.Err() != nil || int(size) != sb.inodeSize() || length == 0 || length > maxCreatedBlocks ||
		count != length<<(sb.blockShift-sb.inodeShift) || uint64(group) > groups || !ondisk.WithinU(uint64(block), uint64(length), uint64(sb.agBlocks)) {
		return r.damaged("logged creation of inodes", "%d inodes of %d bytes in %d blocks at block %d of group %d", count, size, length, block, group)
	}
	if r.creations++; r.creations > maxCreated {
		return layer.Beyond(logName, r.at, "more than %d creations of inodes", maxCreated)
	}
	step := sb.clusterBlocks()
	for i := uint32(0); i < length; i += step {
		start := sb.offset(first + uint64(i))
		if r.isCancelled(uint64(start)>>sectorShift, step<<(sb.blockShift-sectorShift)) {
			continue
		}
		for k := i; k < min(i+step, length); k++ {
			if len(r.created) >= maxCreated {
				return layer.Beyond(logName, r.at, "more than %d blocks of new inodes", maxCreated)
			}
			r.created[sb.offset(first+uint64(k))] = r.creations
		}
	}
	return nil
}

// clusterBlocks is how many blocks of inodes the kernel has in one buffer: 8 KiB,
// and in version 5 as many inodes as that is of 256 bytes, if chunks are aligned
// to that.
func (sb *superblock) clusterBlocks() uint32 {
	const cluster = 8 << 10
	size := uint32(cluster)
	if sb.version == 5 {
		if scaled := uint32(cluster) << (sb.inodeShift - minInodeShift); sb.inodeAlignment >= scaled>>sb.blockShift {
			size = scaled
		}
	}
	return max(size>>sb.blockShift, 1)
}

// coreSize is what the log holds of an inode's fixed fields: version 4 leaves out
// the last, which belongs to the list of inodes without names.
func (sb *superblock) coreSize() int {
	if sb.version == 5 {
		return 176
	}
	return 96
}

// inode puts a logged inode in place.
func (r *replay) inode(t *transaction, it *item) error {
	sb := r.fs.sb
	head, err := parseInodeItem(it.regions[0])
	name := fmt.Sprintf("logged inode %d", head.ino)
	if err != nil {
		return r.damaged(name, "%v", err)
	}
	if r.isCancelled(head.start, head.sectors) {
		return nil // the place holds something else by now
	}
	off, ok := r.inodePlace(&head)
	if !ok {
		return r.damaged(name, "at %d of the %d sectors from %d on", head.offset, head.sectors, head.start)
	}
	raw, err := r.inodeBase(off)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint16(raw) != inodeMagic {
		return r.damaged(name, "there is no inode at sector %d", off>>sectorShift)
	}
	if len(it.regions) < 2 || head.fields&fieldCore == 0 {
		return r.damaged(name, "the log does not hold its core")
	}
	core := it.regions[1]
	if len(core) < sb.coreSize() || binary.LittleEndian.Uint16(core) != inodeMagic {
		return r.damaged(name, "the log holds %d bytes of something else", len(core))
	}
	if err := r.newOwners(&head); err != nil {
		return err
	}
	if isNewerInode(raw, core, t.lsn) {
		return nil
	}
	if err := r.mergeInode(raw, it, &head, name, t.lsn); err != nil {
		return err
	}
	if creation := r.created[off&^(sb.blockSize()-1)]; creation != 0 {
		r.written[off] = creation // of what put has room for: that bounds it
	}
	return r.put(raw, off)
}

// newOwners notes the forks of a logged inode that got the tree of another.
func (r *replay) newOwners(head *inodeItem) error {
	for _, f := range []struct {
		field uint32
		attr  bool
	}{{fieldOwner, false}, {fieldAttrOwner, true}} {
		if head.fields&f.field != 0 && !r.fs.intents.newOwner(head.ino, f.attr) {
			return layer.Beyond(logName, r.at, "more than %d forks with the tree of another", maxOwners)
		}
	}
	return nil
}

// inodePlace is where a logged inode lies on the disk: there is one place for
// each.
func (r *replay) inodePlace(head *inodeItem) (int64, bool) {
	sb := r.fs.sb
	size := sb.inodeSize()
	ok := head.sectors <= maxBufferSectors &&
		ondisk.WithinU(head.start, uint64(head.sectors), uint64(r.fs.dev.disk.Size())>>sectorShift) &&
		ondisk.WithinU(uint64(head.offset), uint64(size), uint64(head.sectors)<<sectorShift) &&
		int(head.offset)%size == 0
	off := int64(head.start)<<sectorShift + int64(head.offset)
	group, within := sb.splitInode(head.ino)
	perBlock := sb.blockShift - sb.inodeShift
	return off, ok && uint64(off)>>sb.inodeShift == (group*uint64(sb.agBlocks))<<perBlock+within
}

// inodeBase returns what an inode was before: zeros, if it was just created.
func (r *replay) inodeBase(off int64) ([]byte, error) {
	raw := make([]byte, r.fs.sb.inodeSize())
	creation := r.created[off&^(r.fs.sb.blockSize()-1)]
	if creation != 0 && r.written[off] != creation {
		binary.BigEndian.PutUint16(raw, inodeMagic)
		raw[4] = 3 // creations are logged in version 5 only
		return raw, nil
	}
	return raw, r.read(raw, off)
}

// isNewerInode reports whether an inode on the disk is newer than the logged
// one: version 5 has the time, older ones count how often they were written.
func isNewerInode(raw, core []byte, now lsn) bool {
	const maxFlush = 0xffff
	if raw[4] >= 3 {
		l := lsn(binary.BigEndian.Uint64(raw[112:]))
		return l != 0 && l != noLSN && l > now
	}
	logged, present := binary.LittleEndian.Uint16(core[30:]), binary.BigEndian.Uint16(raw[30:])
	if logged >= present {
		return false
	}
	return present != maxFlush || logged >= maxFlush>>1 // unless the count started anew
}

// mergeInode changes an inode as a log item says.
func (r *replay) mergeInode(raw []byte, it *item, head *inodeItem, name string, now lsn) error {
	sb := r.fs.sb
	mergeCore(raw, it.regions[1], now)
	area := raw[sb.literal():]
	split := int(raw[82]) * 8
	if split > len(area) {
		return r.damaged(name, "its attributes are at %d of %d bytes", split, len(area))
	}
	data, attr := area, area[len(area):]
	if split > 0 {
		data, attr = area[:split], area[split:]
	}
	if head.fields&fieldDevice != 0 {
		binary.BigEndian.PutUint32(data, head.device)
	}
	next := 2
	for _, f := range []struct {
		fork         []byte
		fields, root uint32
	}{{data, fieldsData, fieldRoot}, {attr, fieldsAttr, fieldAttrRoot}} {
		switch kinds := head.fields & f.fields; {
		case kinds == 0:
			continue
		case kinds&(kinds-1) != 0 || next >= len(it.regions):
			return r.damaged(name, "fields %#x in %d regions", head.fields, len(it.regions))
		case kinds == f.root:
			if !mergeRoot(sb, f.fork, it.regions[next]) {
				return r.damaged(name, "the root of a B+tree of %d bytes, where %d fit", len(it.regions[next]), len(f.fork))
			}
		default:
			if len(it.regions[next]) > len(f.fork) {
				return r.damaged(name, "a fork of %d bytes, where %d fit", len(it.regions[next]), len(f.fork))
			}
			copy(f.fork, it.regions[next])
		}
		next++
	}
	if sb.checksummed {
		binary.LittleEndian.PutUint32(raw[inodeCRC:], checksum(raw, inodeCRC))
	}
	return nil
}

// coreNumbers are the sizes of an inode's numbers, one after the other, as
// [inode] lists them: the log has the same in the machine's order. 0 skips four
// bytes that stay as they are: those of the list of inodes without names, and
// the checksum.
var coreNumbers = [...]int{
	2, 2, 1, 1, 2, 4, 4, 4, 2, 2, // to the project
	8, 8, 8, 8, 8, 8, 4, 4, 2, 1, 1, 4, 2, 2, 4, 0, // to di_next_unlinked
	0, 8, 8, 8, 4, -12, 8, 8, -16, // of version 3
}

// mergeCore turns the fixed fields of a logged inode into those on the disk.
func mergeCore(raw, core []byte, now lsn) {
	end := 100
	if core[4] >= 3 && len(core) >= 176 {
		end = 176
	}
	wide := end == 176 && binary.LittleEndian.Uint64(core[120:])&flag2Bigtime != 0
	many := end == 176 && binary.LittleEndian.Uint64(core[120:])&flag2Nrext64 != 0
	at := 0
	for _, size := range coreNumbers {
		if at >= end {
			break
		}
		switch size {
		case 0:
			size = 4
		case 1:
			raw[at] = core[at]
		case 2:
			binary.BigEndian.PutUint16(raw[at:], binary.LittleEndian.Uint16(core[at:]))
		case 4:
			binary.BigEndian.PutUint32(raw[at:], binary.LittleEndian.Uint32(core[at:]))
		case 8:
			mergeNumber8(raw[at:], core[at:], at, wide, many)
		default: // bytes
			size = -size
			copy(raw[at:at+size], core[at:])
		}
		at += size
	}
	if end == 176 {
		binary.BigEndian.PutUint64(raw[112:], uint64(now))
	}
}

// mergeNumber8 turns a number of eight bytes around, or the two of four that
// times without bigtime are, or what is at 24, which is a counter or not used.
func mergeNumber8(raw, core []byte, at int, wide, many bool) {
	isTime := at == 32 || at == 40 || at == 48 || at == 144
	switch {
	case isTime && !wide:
		binary.BigEndian.PutUint32(raw, binary.LittleEndian.Uint32(core))
		binary.BigEndian.PutUint32(raw[4:], binary.LittleEndian.Uint32(core[4:]))
	case at == 24 && !many:
		clear(raw[:8]) // a replay starts to count anew how often this is written
	default:
		binary.BigEndian.PutUint64(raw, binary.LittleEndian.Uint64(core))
	}
}

// mergeRoot turns the root of a B+tree as the kernel has it in memory, a block
// of the size that it needs, into the form in which an inode has it.
func mergeRoot(sb *superblock, fork, block []byte) bool {
	header := mapTree.header[sb.version-4]
	if len(block) < header || len(fork) < rootHeaderSize {
		return false
	}
	from := mapTree.node(sb, block)
	room := (len(fork) - rootHeaderSize) / (mapTree.key + mapTree.pointer)
	if from.level == 0 || from.count == 0 || from.count > min(from.room, room) {
		return false
	}
	copy(fork, block[4:8]) // level and count
	keys := fork[rootHeaderSize:]
	copy(keys, from.body[:from.count*mapTree.key])
	copy(keys[room*mapTree.key:], from.body[from.room*mapTree.key:][:from.count*mapTree.pointer])
	return true
}
