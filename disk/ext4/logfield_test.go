package ext4_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The layouts of the journal, which is big endian but for fast commits
// (Documentation/filesystems/ext4/journal.rst).
const (
	journalFields = `
		0x00 4 magic   0x04 4 blocktype   0x08 4 -h_sequence   0x0c 4 blocksize   0x10 4 maxlen   0x14 4 first   0x18 4 sequence
		0x1c 4 start   0x20 4 errno   0x24 4 -compat   0x28 4 incompat   0x2c 4 ro_compat   0x40 4 -nr_users   0x44 4 -dynsuper
		0x48 4 -max_transaction   0x4c 4 -max_trans_data   0x54 4 -num_fc_blks   0x58 4 -head`
	blockFields  = `0 4 magic   4 4 blocktype   8 4 sequence`
	revokeFields = `12 4 count   16 8 blocknr`
	fastFields   = `0 2 tag   2 2 len`
)

// logPlaces finds the blocks of a built log.
type logPlaces struct {
	*logBuilder
	list  []disktest.Structure
	kinds map[int]uint32 // the kind of block that was built at a place
}

func (l *logPlaces) add(name, layout string, places ...int) {
	s := disktest.Structure{
		Name: name, Fields: disktest.ParseFields(l.t, layout), Swapped: true,
		Values: []uint64{l.target['a'], l.target['d'], uint64(l.places[0] / logBlockSize), uint64(l.places[l.pos] / logBlockSize)},
	}
	for _, at := range places {
		s.Places = append(s.Places, disktest.At(int64(at)))
	}
	l.list = append(l.list, s)
}

// built returns where the blocks of a kind are, in the order of the log.
func (l *logPlaces) built(kind uint32) (places []int) {
	for _, at := range l.places {
		if l.kinds[at] == kind {
			places = append(places, at)
		}
	}
	return places
}

// seal makes the checksum of a block right again, by the kind that it was built as.
func (l *logPlaces) seal(image []byte, changed []int64) {
	at := int(changed[0]) &^ (logBlockSize - 1)
	p := image[at:][:logBlockSize]
	switch kind := l.kinds[at]; {
	case at == l.places[0]:
		clear(p[0xfc:0x100])
		binary.BigEndian.PutUint32(p[0xfc:], rawCRC(^uint32(0), p))
	case kind == 2 && l.version >= 2:
		clear(p[0x10:0x14])
		binary.BigEndian.PutUint32(p[0x10:], rawCRC(l.seed(), p))
	case kind != 0 && l.version >= 2:
		clear(p[logBlockSize-4:])
		l.sealTail(p)
	}
}

// TestEveryLogField damages each field of each structure of a journal whose
// checksums are right, see [disktest.Damage.EveryField].
func TestEveryLogField(t *testing.T) {
	for _, v := range []struct {
		name         string
		version      int
		wide         bool
		tags, commit string // their layouts: of the first tag, and of the second behind a UUID
	}{
		{"no checksums", 0, false, "12 4 blocknr   16 2 -checksum   18 2 flags   20 8 -uuid   36 4 blocknr   42 2 flags", "12 4 -chksum   0x30 8 -commit_sec"},
		{"no checksums, 64 bits", 0, true, "12 4 blocknr   18 2 flags   20 4 blocknr_high   24 8 -uuid   40 4 blocknr   46 2 flags   48 4 blocknr_high", "0x30 8 -commit_sec"},
		{"version 2", 2, true, "12 4 blocknr   16 2 checksum   18 2 flags   20 4 blocknr_high   24 2 -checksum   26 8 -uuid   42 4 blocknr", "0x34 4 -commit_sec"},
		{"version 3", 3, true, "12 4 blocknr   16 4 flags   20 4 blocknr_high   24 4 checksum   28 8 -uuid   44 4 blocknr   48 4 flags   52 4 blocknr_high", "0x30 8 -commit_sec"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			l := &logPlaces{logBuilder: newLogBuilder(t), kinds: make(map[int]uint32)}
			l.version, l.wide = v.version, v.wide
			l.start(1, 5)
			l.write('X', "abc")
			l.commit(1)
			l.revoke("b")
			l.write('Y', "a")
			l.commit(2)
			for _, at := range l.places {
				if p := l.raw[at:]; binary.BigEndian.Uint32(p) == logMagic {
					l.kinds[at] = binary.BigEndian.Uint32(p[4:])
				}
			}
			superblock := journalFields
			if v.version >= 2 {
				superblock += " 0x30 8 uuid   0x50 1 checksum_type"
			}
			l.add("journal superblock", superblock, l.places[0])
			l.add("descriptor block", blockFields+" "+v.tags, l.built(1)[0])
			revoke := revokeFields
			if !v.wide {
				revoke = "12 4 count   16 4 blocknr"
			}
			l.add("revoke block", blockFields+" "+revoke, l.built(5)...)
			l.add("commit block", blockFields+" "+v.commit, l.built(2)...)
			image := disktest.Image{ReaderAt: bytes.NewReader(slices.Clone(l.raw)), Length: int64(len(l.raw))}
			damage().EveryField(t, image, l.list, l.seal)
		})
	}
}

// TestEveryFastField damages each field of all tags of fast commits.
func TestEveryFastField(t *testing.T) {
	t.Parallel()
	b := newFastBuilder(t)
	var list []disktest.Structure
	add := func(name, layout string) {
		at := b.places[b.block] + b.at
		list = append(list, disktest.Structure{
			Name: name, Fields: disktest.ParseFields(t, fastFields+" "+layout), Places: []disktest.Place{disktest.At(int64(at))},
			Values: []uint64{2, 8, 12, 13, 15, 16, 90, 96, 97, uint64(at / logBlockSize)},
		})
	}
	free := uint32(len(b.raw)/logBlockSize - 4)
	copy(b.raw[int(free)*logBlockSize:], bytes.Repeat([]byte("content"), 300))
	add("head", "4 4 features   8 4 tid")
	b.head(b.tid)
	add("inode", "4 4 ino   8 2 mode   12 4 size   34 2 links   40 4 flags")
	b.inode(90, 1, 2*logBlockSize)
	add("add range", "4 4 ino   8 4 lblk   12 2 len   14 2 start_hi   16 4 start_lo")
	b.extent(90, 0, 2, free)
	add("del range", "4 4 ino   8 4 lblk   12 4 len")
	b.tag(fcDel, numbers(90, 1, 1)...)
	add("create", "4 4 parent   8 4 ino   12 1 name")
	b.entry(fcCreate, 12, 90, "x")
	add("link", "4 4 parent   8 4 ino   12 1 name")
	b.entry(fcLink, 12, 15, "y")
	add("unlink", "4 4 parent   8 4 ino   12 1 name")
	b.entry(fcUnlink, 12, 15, "y")
	add("tail", "4 4 tid")
	b.tail(b.tid, 0)
	image := disktest.Image{ReaderAt: bytes.NewReader(slices.Clone(b.raw)), Length: int64(len(b.raw))}
	area := b.places[0]
	damage().EveryField(t, image, list, func(image []byte, _ []int64) { sealFast(image[area : area+4*logBlockSize]) })
}
