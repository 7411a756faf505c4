package xfs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of p as if the four bytes at offset at were zero.
func checksum(p []byte, at int) uint32 {
	var zero [4]byte
	sum := crc32.Update(0, castagnoli, p[:at])
	sum = crc32.Update(sum, castagnoli, zero[:])
	return crc32.Update(sum, castagnoli, p[at+4:])
}

// updateChecksum goes on with a CRC-32C.
func updateChecksum(sum uint32, p []byte) uint32 { return crc32.Update(sum, castagnoli, p) }

// form says where one kind of block keeps what describes it ("Self Describing
// Metadata"). Only version 5 has more than a magic number. An offset of 0 means
// that there is no such field.
type form struct {
	magics  [2][]uint32 // of version 4 and of version 5
	magicAt int
	short   bool // magic numbers of two bytes

	crc, number, lsn, uuid int
	owner                  int
	shortOwner             bool // of four bytes

	// check looks at what else can be said of the block by itself.
	check func(sb *superblock, data []byte) error
}

func magics(v4, v5 uint32) [2][]uint32 { return [2][]uint32{{v4}, {v5}} }

// The kinds of blocks, with their magic numbers as text.
var (
	agfForm  = &form{magics: magics(0x58414746, 0x58414746), crc: 216, lsn: 208, uuid: 64}           // XAGF
	agiForm  = &form{magics: magics(0x58414749, 0x58414749), crc: 312, lsn: 320, uuid: 296}          // XAGI
	freeForm = &form{magics: magics(0x41425442, 0x41423342), crc: 52, number: 16, lsn: 24, uuid: 32, // ABTB, AB3B
		owner: 48, shortOwner: true, check: freeTree.check}
	inodeForm = &form{magics: magics(0x49414254, 0x49414233), crc: 52, number: 16, lsn: 24, uuid: 32, // IABT, IAB3
		owner: 48, shortOwner: true, check: inodeTree.check}
	mapForm = &form{magics: magics(0x424d4150, 0x424d4133), crc: 64, number: 24, lsn: 32, uuid: 40, // BMAP, BMA3
		owner: 56, check: mapTree.check}
	directoryForm = &form{ // XD2B and XDB3 of one block, XD2D and XDD3 of several
		magics: [2][]uint32{{dirBlockMagic, dirDataMagic}, {dirBlockMagic5, dirDataMagic5}},
		crc:    4, number: 8, lsn: 16, uuid: 24, owner: 40}
	attrForm = &form{
		magics:  [2][]uint32{{attrLeafMagic, attrNodeMagic}, {attrLeafMagic5, attrNodeMagic5}},
		magicAt: 8, short: true, crc: 12, number: 16, lsn: 24, uuid: 32, owner: 48}
	symlinkForm = &form{magics: magics(0, 0x58534c4d), crc: 12, number: 40, lsn: 48, uuid: 16, owner: 32} // XSLM
	valueForm   = &form{magics: magics(0, 0x5841524d), crc: 12, number: 40, uuid: 16, owner: 32}          // XARM
)

// blockKey is what a verified block is kept under.
type blockKey struct {
	form   *form
	off    int64
	length int
}

// block returns the bytes [off, off+length) of the disk, verified as a block of
// a form that belongs to owner. The caller must not write to them.
func (fs *Filesystem) block(f *form, off int64, length int, owner uint64, name place) ([]byte, error) {
	data, err := fs.blockOfAny(f, off, length, name)
	if err != nil {
		return nil, err
	}
	return data, fs.checkOwner(f, data, off, owner, name)
}

// blockOfAny is block for any owner.
func (fs *Filesystem) blockOfAny(f *form, off int64, length int, name place) ([]byte, error) {
	key := blockKey{f, off, length}
	data := fs.dev.cache.Get(key)
	if data == nil {
		data = make([]byte, length)
		replayed, err := fs.dev.readAt(data, off)
		if err != nil {
			return nil, layer.Unreadable(name.String(), off, err)
		}
		if err := fs.verify(f, data, off, replayed, name); err != nil {
			return nil, err
		}
		fs.dev.cache.Add(key, data)
	}
	return data, nil
}

// verify checks all that a block says about itself but its owner. What a replay
// has put into a block leaves its checksum as it was: the log has its own.
func (fs *Filesystem) verify(f *form, data []byte, off int64, replayed bool, name place) error {
	sb := fs.sb
	magic := binary.BigEndian.Uint32(data[f.magicAt:])
	if f.short {
		magic >>= 16
	}
	if !slices.Contains(f.magics[sb.version-4], magic) {
		return layer.Damaged(name.String(), off, "the magic number is %#x, not %#x", magic, f.magics[sb.version-4])
	}
	if sb.checksummed {
		if err := fs.verifyDescription(f, data, off, replayed, name); err != nil {
			return err
		}
	}
	if f.check != nil {
		if err := f.check(sb, data); err != nil {
			return layer.Damaged(name.String(), off, "%v", err)
		}
	}
	return nil
}

func (fs *Filesystem) verifyDescription(f *form, data []byte, off int64, replayed bool, name place) error {
	if want := binary.LittleEndian.Uint32(data[f.crc:]); !replayed {
		if got := checksum(data, f.crc); got != want {
			return layer.Damaged(name.String(), off, "checksum is %#08x, the block says %#08x", got, want)
		}
	}
	if uuid := data[f.uuid : f.uuid+16]; !bytes.Equal(uuid, fs.sb.metaUUID[:]) {
		return layer.Damaged(name.String(), off, "it belongs to filesystem %x, this one is %x", uuid, fs.sb.metaUUID)
	}
	if f.number != 0 {
		if number := binary.BigEndian.Uint64(data[f.number:]); number != uint64(off)>>sectorShift {
			return layer.Damaged(name.String(), off, "the block says that it lies in sector %d", number)
		}
	}
	if f.lsn != 0 {
		if lsn := lsn(binary.BigEndian.Uint64(data[f.lsn:])); fs.head.before(lsn) {
			return layer.Damaged(name.String(), off, "it is of %v, the log ends at %v", lsn, fs.head)
		}
	}
	return nil
}

func (fs *Filesystem) checkOwner(f *form, data []byte, off int64, owner uint64, name place) error {
	if f.owner == 0 || !fs.sb.checksummed {
		return nil
	}
	got := binary.BigEndian.Uint64(data[f.owner:])
	if f.shortOwner {
		got >>= 32
	}
	if got != owner {
		return layer.Damaged(name.String(), off, "the block says that it belongs to %d", got)
	}
	return nil
}
