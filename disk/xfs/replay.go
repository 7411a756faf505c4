package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxBufferSectors is the largest buffer: 64 KiB.
	maxBufferSectors = 128
	// maxCancelled bounds the table of cancelled buffers, at some 40 bytes each: as
	// many blocks of metadata were freed since the last checkpoint.
	maxCancelled = 1 << 19
	// maxCreated bounds the table of blocks of new inodes, alike: with blocks of 4
	// KiB, 4 million inodes that were made since the last checkpoint.
	maxCreated = 1 << 19
)

// replayLog finds out whether the log has to be replayed, and does.
func (fs *Filesystem) replayLog() error {
	j, err := openJournal(fs)
	if err != nil {
		return err
	}
	e, err := j.find()
	if err != nil {
		return err
	}
	fs.head = e.lsn
	if e.clean {
		return nil
	}
	r := &replay{
		journal: j, fs: fs, overlay: newOverlay(), cancelled: make(map[bufferKey]int),
		created: make(map[int64]int), written: make(map[int64]int),
	}
	if err := j.transactions(e, true, r.collect); err != nil {
		return err
	}
	if err := j.transactions(e, false, r.apply); err != nil {
		return err
	}
	fs.replayed = r.count
	if err := fs.reopen(r.overlay); err != nil {
		return err
	}
	return fs.intents.settle(fs.sb)
}

// reopen reads the superblock again: what was read so far may be out of date.
func (fs *Filesystem) reopen(o *overlay) error {
	o.close()
	before := fs.sb
	fs.dev.replaced = o
	if err := fs.readSuperblock(); err != nil {
		return err
	}
	if fs.sb.blockShift != before.blockShift || fs.sb.agBlocks != before.agBlocks || fs.sb.inodeShift != before.inodeShift ||
		fs.sb.version != before.version || fs.sb.metaUUID != before.metaUUID {
		return sbDamaged("the log changes the layout of the filesystem")
	}
	return nil
}

// bufferKey is a range of sectors that the log knows as one.
type bufferKey struct {
	start   uint64
	sectors uint32
}

// replay does in memory what Linux does on the disk (xlog_recover_commit_trans).
type replay struct {
	journal *journal
	fs      *Filesystem
	overlay *overlay
	count   int   // transactions
	at      int64 // byte offset of the record with the item at hand

	// cancelled counts, for each buffer that was freed, how often that is still
	// to come: until then nothing is put there, since the place may hold
	// something else by now that is not logged.
	cancelled map[bufferKey]int

	// created has the blocks that got new inodes, and which of the creations that
	// was; written has which creation the inode at a place was last written after.
	created   map[int64]int
	written   map[int64]int
	creations int
}

func (r *replay) damaged(structure string, format string, args ...any) error {
	return layer.Damaged(structure, r.at, format, args...)
}

// collect is the first pass: which buffers were cancelled, and whether there is
// anything that cannot be replayed.
func (r *replay) collect(t *transaction) error {
	r.count++
	for _, it := range t.items {
		r.at = it.at
		switch it.kind() {
		case itemBuffer:
			b, err := parseBufferItem(it.regions[0])
			if err != nil {
				return r.damaged("logged buffer", "%v", err)
			}
			if b.flags&bufferCancelled == 0 {
				continue
			}
			if len(r.cancelled) >= maxCancelled {
				return layer.Beyond(logName, r.at, "more than %d cancelled buffers", maxCancelled)
			}
			r.cancelled[bufferKey{b.start, uint32(b.sectors)}]++
		case itemInode, itemDquot, itemQuotaOff, itemICreate, itemEFI, itemEFD, itemRUI, itemRUD, itemCUI, itemCUD,
			itemBUI, itemBUD, itemATTRI, itemATTRD, itemXMI, itemXMD:
		default:
			return layer.Unsupported(logName, r.at, hintClean, "log item type %#x", it.kind())
		}
	}
	return nil
}

// apply is the second pass. Buffers come before inodes, which lie in buffers.
//
// Not all has to be done that Linux does: counters, quotas and the lists of
// inodes without names mean nothing to a reader.
func (r *replay) apply(t *transaction) error {
	for _, it := range t.items {
		var err error
		r.at = it.at
		switch it.kind() {
		case itemBuffer:
			err = r.buffer(t, it)
		case itemICreate:
			err = r.create(it)
		}
		if err != nil {
			return err
		}
	}
	for _, it := range t.items {
		var err error
		r.at = it.at
		switch it.kind() {
		case itemInode:
			err = r.inode(t, it)
		case itemBUI, itemBUD, itemATTRI, itemATTRD, itemXMI, itemXMD:
			err = r.fs.intents.note(it)
		}
		if err != nil {
			return err
		}
	}
	for _, it := range t.items {
		if it.kind() == itemBuffer {
			r.pass(it)
		}
	}
	return nil
}

// pass notes that a buffer's cancellation is behind.
func (r *replay) pass(it *item) {
	b, err := parseBufferItem(it.regions[0])
	if err != nil || b.flags&bufferCancelled == 0 {
		return
	}
	key := bufferKey{b.start, uint32(b.sectors)}
	if r.cancelled[key]--; r.cancelled[key] <= 0 {
		delete(r.cancelled, key)
	}
}

func (r *replay) isCancelled(start uint64, sectors uint32) bool {
	return r.cancelled[bufferKey{start, sectors}] > 0
}

// buffer puts the logged parts of a buffer in place.
func (r *replay) buffer(t *transaction, it *item) error {
	b, err := parseBufferItem(it.regions[0])
	name := fmt.Sprintf("logged buffer at sector %d", b.start)
	if err != nil {
		return r.damaged(name, "%v", err)
	}
	if b.flags&(bufferCancelled|bufferInodes|bufferQuota) != 0 || r.isCancelled(b.start, uint32(b.sectors)) {
		return nil
	}
	if b.sectors == 0 || b.sectors > maxBufferSectors || !ondisk.WithinU(b.start, uint64(b.sectors), uint64(r.fs.dev.disk.Size())>>sectorShift) {
		return r.damaged(name, "%d sectors", b.sectors)
	}
	off := int64(b.start) << sectorShift
	newer, err := r.isNewer(t, off, int(b.sectors)<<sectorShift)
	if err != nil || newer {
		return err
	}
	return r.regions(&b, it.regions[1:], off, name)
}

// regions puts one region after the other where the map has bits.
func (r *replay) regions(b *bufferItem, regions [][]byte, off int64, name string) error {
	size := int(b.sectors) << sectorShift
	for i := 0; i < len(b.dirty)*8; {
		if !b.bit(i) {
			i++
			continue
		}
		if len(regions) == 0 {
			return r.damaged(name, "the log does not hold all that it says")
		}
		p := regions[0]
		regions = regions[1:]
		n := len(p) / chunkSize
		if n == 0 || n*chunkSize != len(p) || i*chunkSize+len(p) > size {
			return r.damaged(name, "%d bytes at %d of %d", len(p), i*chunkSize, size)
		}
		for k := range n {
			if i+k >= len(b.dirty)*8 || !b.bit(i+k) {
				return r.damaged(name, "more bytes than the map has")
			}
		}
		if err := r.put(p, off+int64(i)*chunkSize); err != nil {
			return err
		}
		i += n
	}
	if len(regions) > 0 {
		return r.damaged(name, "more regions than the map has")
	}
	return nil
}

func (r *replay) put(p []byte, off int64) error {
	if !r.overlay.put(p, off) {
		return layer.Beyond(logName, r.at, "it changes more than %d bytes", maxChunks*chunkSize)
	}
	return nil
}

// read fills p from byte off as the replay has it so far.
func (r *replay) read(p []byte, off int64) error {
	if err := ondisk.ReadFull(r.fs.dev.disk, p, off); err != nil {
		return layer.Unreadable(logName, off, err)
	}
	r.overlay.apply(p, off)
	return nil
}

// isNewer reports whether a buffer on the disk is at least as new as a
// transaction. Only blocks that describe themselves can say so; all others are
// replaced in any case.
func (r *replay) isNewer(t *transaction, off int64, size int) (bool, error) {
	if !r.fs.sb.checksummed {
		return false, nil
	}
	p := make([]byte, min(size, agiDescribed))
	if err := r.read(p, off); err != nil {
		return false, err
	}
	for i := range dated {
		d := &dated[i]
		if len(p) < d.lsn+8 || !d.matches(p) {
			continue
		}
		if !bytes.Equal(p[d.uuid:d.uuid+16], r.fs.sb.metaUUID[:]) && (d.magic != superblockMagic || !bytes.Equal(p[d.uuid:d.uuid+16], r.fs.sb.uuid[:])) {
			return false, nil
		}
		l := lsn(binary.BigEndian.Uint64(p[d.lsn:]))
		return l != 0 && l != noLSN && l >= t.lsn, nil
	}
	return false, nil
}

// agiDescribed is how much of a buffer has to be read for its age: the header of
// a group's inodes has it last.
const agiDescribed = 384

// datedForm is a kind of buffer that knows its age.
type datedForm struct {
	magic     uint32
	short     bool // of two bytes, at 8
	lsn, uuid int
}

func (d *datedForm) matches(p []byte) bool {
	if d.short {
		return uint32(binary.BigEndian.Uint16(p[8:])) == d.magic
	}
	return binary.BigEndian.Uint32(p) == d.magic
}

// dated are all of them.
var dated = [...]datedForm{
	{magic: superblockMagic, lsn: 240, uuid: 32},
	{magic: 0x58414746, lsn: 208, uuid: 64},  // XAGF
	{magic: 0x58414749, lsn: 320, uuid: 296}, // XAGI
	{magic: 0x5841464c, lsn: 24, uuid: 8},    // XAFL
	{magic: 0x41423342, lsn: 24, uuid: 32},   // AB3B, free space by place
	{magic: 0x41423343, lsn: 24, uuid: 32},   // AB3C, free space by size
	{magic: 0x49414233, lsn: 24, uuid: 32},   // IAB3
	{magic: 0x46494233, lsn: 24, uuid: 32},   // FIB3
	{magic: 0x524d4233, lsn: 24, uuid: 32},   // RMB3
	{magic: 0x52334643, lsn: 24, uuid: 32},   // R3FC
	{magic: 0x424d4133, lsn: 32, uuid: 40},   // BMA3
	{magic: 0x58534c4d, lsn: 48, uuid: 16},   // XSLM
	{magic: 0x58444233, lsn: 16, uuid: 24},   // XDB3
	{magic: 0x58444433, lsn: 16, uuid: 24},   // XDD3
	{magic: 0x58444633, lsn: 16, uuid: 24},   // XDF3
	{magic: 0x3df1, short: true, lsn: 24, uuid: 32},
	{magic: 0x3dff, short: true, lsn: 24, uuid: 32},
	{magic: attrLeafMagic5, short: true, lsn: 24, uuid: 32},
	{magic: attrNodeMagic5, short: true, lsn: 24, uuid: 32},
}
