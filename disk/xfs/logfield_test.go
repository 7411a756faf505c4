package xfs_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The layouts of the log, see [disktest.ParseFields]. Those of items are in the
// order of the machine that wrote them.
const (
	recordFields = `
		0 4 magicno   4 4 cycle   8 4 version   12 4 len   16 4 lsn   20 4 lsn   24 4 -tail_lsn   28 4 tail_lsn   36 4 -prev_block
		40 4 num_logops   44 4 cycle_data   48 4 cycle_data   300 4 fmt   304 8 fs_uuid   312 8 fs_uuid   320 4 size`
	operationFields = `0 4 tid   4 4 len   8 1 clientid   9 1 flags   10 2 -res2`
	headerFields    = `0 4 magic   4 4 -type   8 4 -tid   12 4 -num_items`
	bufferFields    = `0 2 type   2 2 size   4 2 flags   6 2 len   8 8 blkno   16 4 map_size   20 4 map`
	inodeItemFields = `
		0 2 type   2 2 size   4 4 fields   8 2 -asize   10 2 -dsize   12 4 -pad   16 8 ino   24 8 -u   32 8 -u   40 8 blkno
		48 4 len   52 4 boffset`
	coreFields = `
		0 2 magic   2 2 mode   4 1 version   5 1 format   6 2 -onlink   8 4 uid   12 4 gid   16 4 nlink   20 2 -projid
		24 8 -pad   32 8 atime   40 8 mtime   48 8 ctime   56 8 size   64 8 nblocks   72 4 -extsize   76 4 nextents
		80 2 anextents   82 1 forkoff   83 1 aformat   90 2 flags   92 4 -gen   104 8 -changecount   112 8 -lsn   120 8 flags2
		144 8 -crtime   152 8 ino   160 8 uuid`
	createFields   = `4 4 ag   8 4 agbno   12 4 count   16 4 isize   20 4 length   24 4 -gen`
	intentFields   = `0 2 type   2 2 size`
	changeFields   = `4 4 nextents   8 8 -id   16 8 owner   24 8 startblock   32 8 startoff   40 4 len   44 4 flags`
	attrIntent     = `4 4 -pad   8 8 -id   16 8 ino   28 4 -name_len   32 4 -value_len   36 4 -attr_filter`
	exchangeIntent = `4 4 -pad   16 8 inode1   24 8 inode2   32 8 -startoff1`
)

// logFields finds the structures of a record.
type logFields struct {
	*fieldSeed
	record int    // where its header is
	data   []byte // what it holds, with the first word of each block in its place
}

func newLogFields(t *testing.T, r *rules) *logFields {
	l := &logFields{
		fieldSeed: &fieldSeed{t: t, image: disktest.OpenImage(t, r.image()), raw: r.raw, fs: r.fs},
		record:    r.start + r.last*512,
	}
	l.data = bytes.Clone(r.raw[l.record+512:][:binary.BigEndian.Uint32(r.raw[l.record+12:])])
	for i := range len(l.data) / 512 {
		copy(l.data[i*512:], r.raw[l.record+44+i*4:][:4])
	}
	return l
}

// at is the place of what starts at an offset of the record's data.
func (l *logFields) at(start int) disktest.Place {
	return func(i int) int64 {
		i += start
		if i%512 < 4 {
			return int64(l.record + 44 + i/512*4 + i%512)
		}
		return int64(l.record + 512 + i)
	}
}

// item adds a structure that starts with some bytes.
func (l *logFields) item(name, layout string, start []byte, little bool) {
	l.t.Helper()
	at := bytes.Index(l.data, start)
	if at < 0 {
		l.t.Fatalf("the log has no %s", name)
	}
	l.list = append(l.list, disktest.Structure{
		Name: name, Fields: disktest.ParseFields(l.t, layout), Places: []disktest.Place{l.at(at)},
		Values: l.pointers, Swapped: little,
	})
}

// TestEveryLogField damages each field of each structure of a log whose checksums
// are right, see [disktest.Damage.EveryField].
func TestEveryLogField(t *testing.T) {
	t.Parallel()
	r := newRules(t, 100)
	medium := uint64(bytes.Index(r.raw, []byte("mediummedium")) / 1024)
	device, symlink := disktest.Lookup(t, r.fs, "device"), disktest.Lookup(t, r.fs, "symlink")
	const unused = 15000 // a block near the end of the group
	create := append(little(uint16(0x123f), uint16(1)), 0, 0, 0, 0, 0, 0, unused>>8, unused&0xff, 0, 0, 0, 64, 0, 0, 2, 0, 0, 0, 0, 32, 0, 0, 0, 0)
	inode, buffer := r.chmod(0o600), r.relinked()
	target := blockWith(r.raw, "XSLM")
	spoilt := r.buffer(target, 1024, target, make([]byte, 128))
	cancelled := cancel(target, 1024)
	change := r.change(1, 1, medium)
	const nobody = 99 // an inode
	attribute := little(uint16(0x1246), uint16(1), uint32(0), uint64(2), uint64(nobody), uint32(1), uint32(0), uint32(0), uint32(0))
	parent := little(uint16(0x1246), uint16(1), uint32(0), uint64(5), device, uint32(4), uint32(0), uint32(0), uint32(0))
	exchanged := little(uint16(0x1248), uint16(1), uint32(0), uint64(3), device, symlink, uint64(0))
	open := little(uint16(0x1248), uint16(1), uint32(0), uint64(4), uint64(nobody), uint64(nobody), uint64(0))
	done := little(uint16(0x1249), uint16(1), uint32(0), uint64(3))
	r.record(transaction(9, inode, buffer, spoilt, cancelled, [][]byte{create}, change, [][]byte{attribute}, [][]byte{parent}, [][]byte{exchanged}, [][]byte{open}, [][]byte{done})...)

	l := newLogFields(t, r)
	l.pointers = []uint64{r.small, device, symlink, medium, 100, uint64(r.block), uint64(r.dir / 512), uint64(r.dir / 1024)}
	l.add("log record", recordFields, l.record)
	l.item("log operation", operationFields, nil, false)
	l.item("second log operation", operationFields, []byte{0, 0, 0, 9, 0, 0, 0, 16}, false)
	l.item("transaction header", headerFields, []byte("NART"), true)
	l.item("logged inode", inodeItemFields, inode[0], true)
	l.item("core of a logged inode", coreFields, inode[1], true)
	l.item("logged buffer", bufferFields, buffer[0], true)
	l.item("cancelled buffer", "0 2 type   2 2 size   4 2 flags   16 4 map_size", cancelled[0], true)
	l.item("logged creation", intentFields, create, true)
	l.item("logged creation", createFields, create, false)
	l.item("intent of a mapping", intentFields+" "+changeFields, change[0], true)
	l.item("intent of an attribute", intentFields+" "+attrIntent, attribute, true)
	l.item("intent of a parent pointer", "0 2 type   24 4 op_flags", parent, true)
	l.item("intent of an exchange", intentFields+" "+exchangeIntent, open, true)
	l.item("intent that was ended", "0 2 type   8 8 id", exchanged, true)
	l.item("intent that is done", intentFields+" 4 4 -pad   8 8 id", done, true)
	sealedDamage().EveryField(t, l.image, l.list, nil)
}
