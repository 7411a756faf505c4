package xfs

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Items in the log hold numbers in the order of the machine that wrote them,
// which is little endian: [recordLinux].

const (
	transactionMagic  = 0x5452414e // "TRAN"
	transactionHeader = 16

	// maxRegions bounds the regions of one item (XLOG_MAX_REGIONS_IN_ITEM): with
	// 128 bytes each, twice the largest buffer.
	maxRegions = 1024
	// maxRegion bounds one region, in bytes: the largest buffer is 64 KiB.
	maxRegion = 128 << 10
	// maxOpen bounds what transactions hold, in bytes, before they are committed:
	// Linux gathers at most 64 MiB in one, and starts the next meanwhile.
	maxOpen = 96 << 20
	// itemCost and regionCost stand for the memory that an item and a region take
	// besides, in bytes.
	itemCost   = 128
	regionCost = 32
)

// transaction is what one checkpoint changes.
type transaction struct {
	lsn    lsn // of the record where it starts
	header int // bytes that were seen of its header
	items  []*item
	cost   int    // bytes that it holds
	room   []byte // for the next regions
}

// regionRoom is how much a transaction gets at once for its regions: they are
// many and small.
const regionRoom = 32 << 10

// keep returns a copy of p, so that a transaction does not hold records of others.
func (t *transaction) keep(p []byte) []byte {
	if len(p) > cap(t.room)-len(t.room) {
		t.room = make([]byte, 0, max(regionRoom, len(p)))
	}
	start := len(t.room)
	t.room = append(t.room, p...)
	return t.room[start:len(t.room):len(t.room)]
}

// item is one changed structure: regions, of which the first says what it is.
type item struct {
	at      int64 // byte offset of the record where it starts
	regions [][]byte
	due     int // how many there will be
}

// kind is the type of an item.
func (it *item) kind() uint16 { return binary.LittleEndian.Uint16(it.regions[0]) }

// scanner puts transactions together from the records of a log, and hands over
// those that were committed.
type scanner struct {
	journal *journal
	open    map[uint32]*transaction
	cost    int  // bytes that they hold
	heads   bool // only the first region of each item is wanted
	commit  func(*transaction) error
}

// transactions calls commit for each committed transaction, in order. With heads,
// the items have their first region only, and nil for the others.
func (j *journal) transactions(e ends, heads bool, commit func(*transaction) error) error {
	s := &scanner{journal: j, open: make(map[uint32]*transaction), heads: heads, commit: commit}
	_, err := j.walk(e.tail, e.head, s.record)
	return err
}

func (s *scanner) record(r *record, data []byte) error {
	for range r.ops {
		op, rest, ok := takeOperation(data)
		if !ok {
			return s.journal.damaged(r.block, "%v is said to have %d operations, but has fewer", r.lsn, r.ops)
		}
		if op.client != clientTransaction && op.client != clientLog {
			return s.journal.damaged(r.block, "an operation of client %#x", op.client)
		}
		if err := s.operation(r, op); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

func (s *scanner) operation(r *record, op operation) error {
	t := s.open[op.tid]
	if t == nil {
		// What goes on here may have started before the tail of the log.
		if op.flags&opStart != 0 {
			s.open[op.tid] = &transaction{lsn: r.lsn}
			return s.pay(r, s.open[op.tid], itemCost)
		}
		return nil
	}
	flags := op.flags &^ opEnd
	if flags&opContinued != 0 {
		flags &^= opContinue
	}
	switch flags {
	case 0, opContinue:
		return s.add(r, t, op.data)
	case opContinued:
		return s.goOn(r, t, op.data)
	case opCommit:
		s.forget(op.tid, t)
		return s.finish(r, t)
	case opUnmount:
		s.forget(op.tid, t)
		return nil
	}
	return s.journal.damaged(r.block, "an operation with flags %#x", op.flags)
}

func (s *scanner) forget(tid uint32, t *transaction) {
	delete(s.open, tid)
	s.cost -= t.cost
}

// pay accounts for what a transaction holds.
func (s *scanner) pay(r *record, t *transaction, cost int) error {
	t.cost += cost
	if s.cost += cost; s.cost > maxOpen {
		return layer.Beyond(logName, s.journal.offset(r.block), "open transactions of more than %d bytes", maxOpen)
	}
	return nil
}

// add adds a region. The first of a transaction is its header, the first of an
// item says in its second number of two bytes how many the item has.
func (s *scanner) add(r *record, t *transaction, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if t.header < transactionHeader {
		return s.addHeader(r, t, p)
	}
	last := len(t.items) - 1
	if last < 0 || len(t.items[last].regions) == t.items[last].due {
		if len(p) < 4 {
			return s.journal.damaged(r.block, "an item of %d bytes", len(p))
		}
		due := int(binary.LittleEndian.Uint16(p[2:]))
		if due == 0 || due > maxRegions {
			return s.journal.damaged(r.block, "an item of %d regions", due)
		}
		t.items = append(t.items, &item{at: s.journal.offset(r.block), due: due})
		last++
		if err := s.pay(r, t, itemCost); err != nil {
			return err
		}
	}
	if len(p) > maxRegion {
		return s.journal.damaged(r.block, "a region of %d bytes", len(p))
	}
	it := t.items[last]
	if it.regions == nil {
		it.regions = make([][]byte, 0, min(it.due, 4)) // most items have three
	} else if s.heads {
		it.regions = append(it.regions, nil)
		return s.pay(r, t, regionCost)
	}
	it.regions = append(it.regions, t.keep(p))
	return s.pay(r, t, len(p)+regionCost)
}

func (s *scanner) addHeader(r *record, t *transaction, p []byte) error {
	if t.header == 0 && (len(p) < 4 || binary.LittleEndian.Uint32(p) != transactionMagic) || t.header+len(p) > transactionHeader {
		return s.journal.damaged(r.block, "a transaction does not start with its header")
	}
	t.header += len(p)
	return nil
}

// goOn adds to a region whose start is in the record before.
func (s *scanner) goOn(r *record, t *transaction, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(t.items) == 0 {
		return s.addHeader(r, t, p)
	}
	it := t.items[len(t.items)-1]
	region := &it.regions[len(it.regions)-1]
	if len(*region)+len(p) > maxRegion {
		return s.journal.damaged(r.block, "a region of %d bytes and more", len(*region)+len(p))
	}
	if *region == nil {
		return nil // not wanted
	}
	*region = append(*region, p...)
	return s.pay(r, t, len(p))
}

func (s *scanner) finish(r *record, t *transaction) error {
	for _, it := range t.items {
		if len(it.regions) != it.due {
			return s.journal.damaged(r.block, "an item of %d regions, of which %d are there", it.due, len(it.regions))
		}
	}
	return s.commit(t)
}

// The kinds of items (xfs_log_format.h).
const (
	itemEFI      = 0x1236 // extent free: begun, done
	itemEFD      = 0x1237
	itemInode    = 0x123b
	itemBuffer   = 0x123c
	itemDquot    = 0x123d
	itemQuotaOff = 0x123e
	itemICreate  = 0x123f
	itemRUI      = 0x1240 // reverse mapping
	itemRUD      = 0x1241
	itemCUI      = 0x1242 // reference count
	itemCUD      = 0x1243
	itemBUI      = 0x1244 // mapping of a file
	itemBUD      = 0x1245
	itemATTRI    = 0x1246 // extended attribute
	itemATTRD    = 0x1247
	itemXMI      = 0x1248 // exchange of two files' mappings
	itemXMD      = 0x1249
)

// bufferItem is the first region of a changed buffer. Layout
// (xfs_buf_log_format):
//
//	0 2 type   2 2 regions   4 2 flags   6 2 sectors   8 8 first sector
//	16 4 words of the map   20 4 each: a bit for each 128 bytes that follow
type bufferItem struct {
	flags   uint16
	sectors uint16
	start   uint64
	dirty   []byte
}

// The flags of a buffer that matter.
const (
	bufferInodes    = 0x1
	bufferCancelled = 0x2
	bufferQuota     = 0x4 | 0x8 | 0x10
)

func parseBufferItem(p []byte) (bufferItem, error) {
	c := ondisk.NewCursor(p, binary.LittleEndian)
	c.Skip(4)
	b := bufferItem{flags: c.U16(), sectors: c.U16(), start: c.U64()}
	words := c.U32()
	if uint64(words)*4 > uint64(len(p)) {
		words = uint32(len(p)) // more than there are: the cursor says so
	}
	b.dirty = c.Bytes(int(words) * 4)
	return b, c.Err()
}

// bit reports whether the 128 bytes number i follow.
func (b *bufferItem) bit(i int) bool { return b.dirty[i/8]>>(i%8)&1 != 0 }

// inodeItem is the first region of a changed inode. Layout
// (xfs_inode_log_format), where machines of 32 bits leave out bytes 12 to 15:
//
//	0 2 type     4 4 fields      10 2 bytes of data   16 8 number    40 8 first sector
//	2 2 regions  8 2 bytes of    12 4 unused          24 16 device   48 4 sectors
//	             attributes                                          52 4 offset in those
type inodeItem struct {
	regions uint16
	fields  uint32
	ino     uint64
	device  uint32
	start   uint64
	sectors uint32
	offset  uint32
}

// What of an inode was logged.
const (
	fieldCore       = 0x001
	fieldData       = 0x002 // in the inode
	fieldExtents    = 0x004
	fieldRoot       = 0x008 // of the B+tree of extents
	fieldDevice     = 0x010
	fieldAttr       = 0x040
	fieldAttrExtent = 0x080
	fieldAttrRoot   = 0x100
	fieldOwner      = 0x200 // the blocks of the B+tree have a new owner
	fieldAttrOwner  = 0x400

	fieldsData = fieldData | fieldExtents | fieldRoot
	fieldsAttr = fieldAttr | fieldAttrExtent | fieldAttrRoot
)

const inodeItemSize32 = 52

func parseInodeItem(p []byte) (inodeItem, error) {
	c := ondisk.NewCursor(p, binary.LittleEndian)
	c.Skip(2)
	it := inodeItem{regions: c.U16(), fields: c.U32()}
	c.Skip(4)
	if len(p) != inodeItemSize32 {
		c.Skip(4)
	}
	it.ino, it.device = c.U64(), c.U32()
	c.Skip(12)
	it.start, it.sectors, it.offset = c.U64(), c.U32(), c.U32()
	return it, c.Err()
}
