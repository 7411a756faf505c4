package ext4

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxBitmaps bounds the time of Used, in bytes of block bitmaps: with blocks
	// of 4 KiB they are those of 128 TiB.
	maxBitmaps = 4 << 30

	flagBlockUninit = 0x2 // bg_flags: the block bitmap was never written
)

// blockRange is the blocks [first, end).
type blockRange struct{ first, end uint64 }

// Used implements [disk.Usage], by the block bitmaps. The superblock's copies, the
// journal and what is kept free for more group descriptors are in use, as is what
// lies before and behind the filesystem. It returns an error where the guest's
// kernel would not rely on the bitmaps either, before an e2fsck: what is in use may
// be free in them.
func (fs *Filesystem) Used(device int, yield func(off, length int64) error) error {
	if device != 0 {
		return layer.Absent(fmt.Sprintf("device %d", device), "the filesystem has one, device 0")
	}
	if n := fs.sb.groupCount(); n > maxBitmaps>>fs.sb.blockShift {
		return layer.Beyond("block bitmaps", ondisk.Nowhere, "%d groups, at most %d are looked at", n, maxBitmaps>>fs.sb.blockShift)
	}
	if why := fs.inconsistent(); why != "" {
		return layer.Damaged("superblock", superblockOffset, "the block bitmaps cannot be relied on: %s", why)
	}
	u := &usedScan{
		fs: fs, out: usedWriter{yield: yield}, moved: fs.changes.used(fs.sb),
		bitmap: make([]byte, (fs.sb.groupBlocks>>fs.sb.clusterBits()+7)/8), // a block at most
	}
	if err := fs.checkReached(); err != nil {
		return err
	}
	if err := u.out.add(0, int64(fs.sb.firstBlock)<<fs.sb.blockShift); err != nil {
		return err
	}
	for number := range fs.sb.groupCount() {
		if err := u.group(number); err != nil {
			return err
		}
	}
	if err := u.out.add(int64(fs.sb.blockCount)<<fs.sb.blockShift, fs.dev.disk.Size()); err != nil {
		return err
	}
	return u.out.flush()
}

// inconsistent says why what is free may be wrong, or nothing.
func (fs *Filesystem) inconsistent() string {
	switch sb := fs.sb; {
	case sb.state&stateError != 0 || sb.errors.count > 0 || fs.replayed.errno != 0:
		return "errors were recorded by the guest's kernel"
	case sb.state&stateValid == 0 && sb.compat&compatHasJournal != 0:
		return "an e2fsck was not finished"
	case sb.state&stateValid == 0:
		return "the filesystem was not unmounted cleanly and has no journal"
	}
	return ""
}

// clusterBits is the binary logarithm of the blocks of a cluster.
func (sb *superblock) clusterBits() uint { return sb.clusterShift - sb.blockShift }

type usedScan struct {
	fs     *Filesystem
	out    usedWriter
	moved  []blockRange // what fast commits use, sorted
	bitmap []byte       // of the group at hand, a bit for each cluster
}

// group yields what is used of one group.
func (u *usedScan) group(number uint64) error {
	sb := u.fs.sb
	all := blockRange{first: sb.firstBlock + number*sb.groupBlocks}
	all.end = min(all.first+sb.groupBlocks, sb.blockCount)
	if err := u.load(number, all); err != nil {
		return err
	}
	for len(u.moved) > 0 && u.moved[0].first < all.end {
		u.set(all, u.moved[0])
		if u.moved[0].end > all.end {
			break // it goes on in the next group
		}
		u.moved = u.moved[1:]
	}
	return u.yieldBits(all)
}

// load fills the bitmap for a group: from the disk, or, where the guest never
// allocated in the group, with what is there from the start. That is set in any
// case: a bitmap that denies it has another number of free clusters than the
// descriptor, as nearly every damaged one that has no checksum.
func (u *usedScan) load(number uint64, all blockRange) error {
	sb := u.fs.sb
	g, err := u.fs.group(number)
	if err != nil {
		return err
	}
	clear(u.bitmap)
	lazy := sb.ro&(roMetadataCsum|roGdtCsum) != 0
	if !lazy || g.flags&flagBlockUninit == 0 {
		if err := u.read(g); err != nil {
			return err
		}
	}
	u.set(all, blockRange{all.first, all.first + u.fs.baseBlocks(number)})
	for _, r := range [...]blockRange{
		{g.blockBitmap, g.blockBitmap + 1}, {g.inodeBitmap, g.inodeBitmap + 1},
		{g.inodeTable, g.inodeTable + u.fs.tableBlocks()},
	} {
		u.set(all, r)
	}
	if free := u.free(all); free != uint64(g.free) {
		block, at := u.fs.descPlace(number)
		return layer.Damaged(descName(number), int64(block)<<sb.blockShift+int64(at), "it says that %d clusters are free, the block bitmap %d", g.free, free)
	}
	return nil
}

// free counts the clusters of the group of blocks all that are not in use.
func (u *usedScan) free(all blockRange) uint64 {
	clusters := (all.end - all.first + 1<<u.fs.sb.clusterBits() - 1) >> u.fs.sb.clusterBits()
	used := 0
	for _, b := range u.bitmap[:clusters/8] {
		used += bits.OnesCount8(b)
	}
	if rest := clusters % 8; rest > 0 {
		used += bits.OnesCount8(u.bitmap[clusters/8] & (1<<rest - 1))
	}
	return clusters - uint64(used)
}

// read copies a block bitmap, after a look at its checksum.
func (u *usedScan) read(g *group) error {
	sb := u.fs.sb
	name := bitmapName(g.number)
	if !sb.validBlocks(g.blockBitmap, 1) {
		return layer.Damaged(name, ondisk.Nowhere, "it is block %d, the filesystem has %d", g.blockBitmap, sb.blockCount)
	}
	// Not through the cache: it is used once, and would drive out what is used often.
	off := int64(g.blockBitmap) << sb.blockShift
	if err := u.fs.dev.readAt(u.bitmap, off); err != nil {
		return layer.Unreadable(name, off, err)
	}
	if !sb.hasChecksum() {
		return nil
	}
	got := uint32(sb.seed.add(u.bitmap))
	if sb.descSize == descSize32 {
		got &= 0xffff
	}
	if got != g.bitmapSum {
		return layer.Damaged(name, off, "checksum is %#08x, the group descriptor says %#08x", got, g.bitmapSum)
	}
	return nil
}

// baseBlocks is how many blocks a group starts with that belong to the
// superblock and the group descriptors. (Linux, ext4_num_base_meta_blocks in
// fs/ext4/balloc.c.)
func (fs *Filesystem) baseBlocks(number uint64) (n uint64) {
	sb := fs.sb
	perBlock := uint64(sb.blockSize()) / uint64(sb.descSize)
	if fs.hasSuperblock(number) {
		n = 1
		if number == 0 {
			n += superblockOffset>>sb.blockShift - sb.firstBlock // the boot block
		}
	}
	table := number / perBlock
	if sb.incompat&incompatMetaBG != 0 && table >= sb.firstMetaBG {
		// The descriptors are in the first, the second and the last group that
		// they describe.
		if at := number % perBlock; at < 2 || at == perBlock-1 {
			n++
		}
		return n
	}
	if n == 0 {
		return 0
	}
	blocks := (sb.groupCount() + perBlock - 1) / perBlock
	if sb.incompat&incompatMetaBG != 0 {
		blocks = min(blocks, sb.firstMetaBG)
	}
	return n + blocks + sb.reservedGDT
}

// set marks the clusters of those blocks of r that are in the group of blocks all.
func (u *usedScan) set(all, r blockRange) {
	first, end := max(r.first, all.first), min(r.end, all.end)
	if first >= end {
		return
	}
	shift := u.fs.sb.clusterBits()
	for bit := (first - all.first) >> shift; bit <= (end-1-all.first)>>shift; bit++ {
		u.bitmap[bit/8] |= 1 << (bit % 8)
	}
}

// yieldBits yields the runs of set bits, as far as they are in the group.
func (u *usedScan) yieldBits(all blockRange) error {
	sb := u.fs.sb
	limit := uint64(len(u.bitmap)) * 8
	for bit := u.next(0, limit, 1); bit < limit; {
		end := u.next(bit, limit, 0)
		first, last := all.first+bit<<sb.clusterBits(), min(all.first+end<<sb.clusterBits(), all.end)
		if first >= last {
			return nil
		}
		if err := u.out.add(int64(first)<<sb.blockShift, int64(last)<<sb.blockShift); err != nil {
			return err
		}
		bit = u.next(end, limit, 1)
	}
	return nil
}

// next returns the first bit from at on that is value, or limit.
func (u *usedScan) next(at, limit uint64, value byte) uint64 {
	flip := value - 1 // all bits where zeros are looked for
	for at < limit {
		if at%64 == 0 && limit-at >= 64 {
			word := binary.LittleEndian.Uint64(u.bitmap[at/8:])
			if flip != 0 {
				word = ^word
			}
			if word == 0 {
				at += 64
				continue
			}
			return at + uint64(bits.TrailingZeros64(word))
		}
		rest := (u.bitmap[at/8] ^ flip) >> (at % 8)
		if rest != 0 {
			return at + uint64(bits.TrailingZeros8(rest))
		}
		at = at/8*8 + 8
	}
	return limit
}

// used returns what fast commits added, sorted, as far as it is valid.
func (c *changes) used(sb *superblock) []blockRange {
	if c == nil {
		return nil
	}
	var list []blockRange
	for _, n := range c.inodes {
		for _, b := range n.blocks {
			if length := b.end - b.first; b.kind != disk.ExtentHole && sb.validBlocks(b.physical, length) {
				list = append(list, blockRange{b.physical, b.physical + length})
			}
		}
	}
	slices.SortFunc(list, func(a, b blockRange) int { return cmp.Compare(a.first, b.first) })
	return list
}

// usedWriter joins ranges that touch.
type usedWriter struct {
	yield      func(off, length int64) error
	start, end int64 // bytes
}

func (w *usedWriter) add(start, end int64) error {
	switch {
	case start >= end:
		return nil
	case start == w.end:
		w.end = end
		return nil
	}
	err := w.flush()
	w.start, w.end = start, end
	return err
}

func (w *usedWriter) flush() error {
	if w.start == w.end {
		return nil
	}
	return w.yield(w.start, w.end-w.start)
}
