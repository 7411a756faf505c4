package btrfs

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sort"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxChunks and maxStripes bound the map of chunks: with chunks of 1 GiB
	// it reaches 256 TiB, and takes some 30 MB.
	maxChunks  = 1 << 18
	maxStripes = 1 << 19

	// stripeLength is BTRFS_STRIPE_LEN, the only one that Linux knows.
	stripeLength = 64 << 10
)

// The bits of a chunk's type.
const (
	groupData     = 1 << 0
	groupSystem   = 1 << 1
	groupMetadata = 1 << 2
	groupRAID0    = 1 << 3
	groupRAID1    = 1 << 4
	groupDUP      = 1 << 5
	groupRAID10   = 1 << 6
	groupRAID5    = 1 << 7
	groupRAID6    = 1 << 8
	groupRAID1C3  = 1 << 9
	groupRAID1C4  = 1 << 10

	groupKinds    = groupData | groupSystem | groupMetadata
	groupProfiles = groupRAID0 | groupRAID1 | groupDUP | groupRAID10 | groupRAID5 | groupRAID6 | groupRAID1C3 | groupRAID1C4
)

// chunk is a range of logical addresses and where on the devices it lies.
//
// Layout of struct btrfs_chunk, little endian:
//
//	0x00 8 length       0x18 8 type          0x2C 2 num_stripes
//	0x08 8 owner        0x20 4 io_align      0x2E 2 sub_stripes
//	0x10 8 stripe_len   0x24 4 io_width      0x30   stripes:
//	                    0x28 4 sector_size   0x0 8 devid  0x8 8 offset  0x10 16 dev_uuid
type chunk struct {
	logical, length uint64
	kind            uint64
	// The chunk's data goes in pieces of stripeLength over the columns by
	// turns, and to each of the copies of a column. With one column it goes
	// in one piece.
	columns, copies int
	stripes         []stripe // columns × copies
}

// stripe is the part of a chunk on one device.
type stripe struct {
	device int    // index in volume.devices, or -1 where it is missing
	id     uint64 // of the device
	offset uint64 // bytes, in the device
}

const (
	chunkHeaderSize = 48
	stripeItemSize  = 32
)

// stripeSize is how much of each device the chunk takes.
func (c *chunk) stripeSize() uint64 { return c.length / uint64(c.columns) }

// piece finds where one copy of the byte at offset off of the chunk lies, and how
// many bytes follow it there.
func (c *chunk) piece(off uint64, copy int) (s *stripe, at, length uint64) {
	if c.columns == 1 {
		s = &c.stripes[copy]
		return s, s.offset + off, c.length - off
	}
	number, within := off/stripeLength, off%stripeLength
	columns := uint64(c.columns)
	s = &c.stripes[int(number%columns)*c.copies+copy]
	return s, s.offset + number/columns*stripeLength + within, stripeLength - within
}

// parseChunk reads and checks the chunk at a logical address.
func (v *volume) parseChunk(logical uint64, raw []byte) (*chunk, error) {
	name := chunkName(logical)
	c := ondisk.NewCursor(raw, binary.LittleEndian)
	ch := &chunk{logical: logical, length: c.U64()}
	c.Skip(8)
	stripeLen := c.U64()
	ch.kind = c.U64()
	c.Skip(12)
	count, sub := int(c.U16()), int(c.U16())
	if c.Err() != nil || len(raw) != chunkHeaderSize+count*stripeItemSize {
		return nil, layer.Damaged(name, offsetOf(logical), "%d bytes for %d stripes", len(raw), count)
	}
	sector := uint64(v.sb.sectorSize)
	switch {
	case logical%sector != 0 || ch.length%sector != 0 || ch.length == 0 || !ondisk.WithinU(logical, ch.length, 1<<63):
		return nil, layer.Damaged(name, offsetOf(logical), "%d bytes", ch.length)
	case stripeLen != stripeLength:
		return nil, layer.Damaged(name, offsetOf(logical), "stripes of %d bytes, only %d are known", stripeLen, stripeLength)
	}
	if err := v.checkProfile(ch, count, sub); err != nil {
		return nil, err
	}
	ch.stripes = make([]stripe, count) // checkProfile bounds it by the bytes of raw
	for i := range ch.stripes {
		s := stripe{id: c.U64(), offset: c.U64()}
		var uuid [16]byte
		copy(uuid[:], c.Bytes(16))
		s.device = v.deviceOf(s.id, uuid)
		if !ondisk.WithinU(s.offset, ch.stripeSize(), 1<<62) {
			return nil, layer.Damaged(name, offsetOf(logical), "a stripe at %#x of device %d", s.offset, s.id)
		}
		ch.stripes[i] = s
	}
	return ch, nil
}

// checkProfile checks the type of a chunk against its stripes, and sets columns
// and copies.
func (v *volume) checkProfile(c *chunk, count, sub int) error {
	name := chunkName(c.logical)
	profile := c.kind & groupProfiles
	unknown := c.kind &^ (groupKinds | groupProfiles)
	mixed := c.kind&(groupData|groupMetadata) == groupData|groupMetadata
	switch {
	case unknown != 0:
		return layer.Unsupported(name, offsetOf(c.logical), asImage, "type %#x", unknown)
	case profile&(groupRAID5|groupRAID6) != 0:
		return layer.Unsupported(name, offsetOf(c.logical), "back these disks up as images", "profile RAID5 or RAID6 (raid56)")
	case bits.OnesCount64(profile) > 1 || c.kind&groupKinds == 0 || c.kind&groupSystem != 0 && c.kind&groupKinds != groupSystem,
		mixed && v.sb.incompat&incompatMixedGroups == 0:
		return layer.Damaged(name, offsetOf(c.logical), "type %#x", c.kind)
	}
	c.columns, c.copies = 1, count
	want := count
	switch profile {
	case 0:
		want = 1
	case groupDUP, groupRAID1:
		want = 2
	case groupRAID1C3:
		want = 3
	case groupRAID1C4:
		want = 4
	case groupRAID0:
		c.columns, c.copies = count, 1
	case groupRAID10:
		c.columns, c.copies, want = count/2, 2, count&^1
		if sub != 2 {
			want = -1
		}
	}
	if count != want || count == 0 || c.columns == 0 || c.length%uint64(c.columns) != 0 || c.columns > 1 && c.stripeSize()%stripeLength != 0 {
		return layer.Damaged(name, offsetOf(c.logical), "type %#x with %d stripes, %d sub-stripes and %d bytes", c.kind, count, sub, c.length)
	}
	return nil
}

func chunkName(logical uint64) string { return fmt.Sprintf("chunk %#x", logical) }

// chunkMap is all chunks in the order of their addresses, apart from one another.
type chunkMap struct {
	chunks  []*chunk
	stripes int
}

// add appends a chunk behind the last.
func (m *chunkMap) add(c *chunk) error {
	if n := len(m.chunks); n > 0 && m.chunks[n-1].logical+m.chunks[n-1].length > c.logical {
		return layer.Damaged(chunkName(c.logical), offsetOf(c.logical), "it begins before the one at %#x ends", m.chunks[n-1].logical)
	}
	m.stripes += len(c.stripes)
	if len(m.chunks) == maxChunks || m.stripes > maxStripes {
		return layer.Beyond("chunk tree", offsetOf(c.logical), "more than %d chunks or %d stripes", maxChunks, maxStripes)
	}
	m.chunks = append(m.chunks, c)
	return nil
}

// find returns the chunk that holds length bytes from a logical address, or nil.
func (m *chunkMap) find(logical, length uint64) *chunk {
	i := sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].logical > logical }) - 1
	if i < 0 || !ondisk.WithinU(logical-m.chunks[i].logical, length, m.chunks[i].length) {
		return nil
	}
	return m.chunks[i]
}
