package xfs

import (
	"bytes"
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The log ("Journaling Log") is a ring of records, in blocks of 512 bytes. Each
// block starts with the number of the turn that it was written in, its cycle;
// what it held there is kept in the record's header.

const (
	recordMagic  = 0xfeedbabe
	recordHeader = 328 // bytes that the checksum covers; 324 on machines of 32 bits
	recordLinux  = 1   // h_fmt: items in the little endian of Linux

	logBlock = 1 << sectorShift
	// cyclesPerHeader is how many blocks have room for their first word in a
	// header; a longer record has a block more of header for as many more.
	cyclesPerHeader = 64
	extendedHeader  = 4 + 4*cyclesPerHeader // bytes of it that the checksum covers

	maxRecordSize   = 256 << 10
	recordBlocks    = maxRecordSize/logBlock + maxRecordSize/plainRecordSize // with its header
	plainRecordSize = 32 << 10                                               // of version 1

	// maxInFlight is how many records the kernel writes at once: so many can be
	// missing or torn where the log ends.
	maxInFlight = 8
	// windowBlocks is the part of the log that they are in.
	windowBlocks = maxInFlight * maxRecordSize / logBlock

	hintClean = "shut the guest down cleanly, or mount the filesystem once so that it recovers, and try again"
)

const logName = "log"

// journal is the log of one filesystem.
type journal struct {
	fs     *Filesystem
	start  int64  // byte offset on disk
	blocks uint32 // of 512 bytes
	buf    []byte // of the record that was read last
}

// record is the header of one record.
//
// Layout ("Log Records"):
//
//	0 4 h_magicno   16 8 h_lsn        40 4 h_num_logops   300 4 h_fmt
//	4 4 h_cycle     24 8 h_tail_lsn   44 256 h_cycle_data 304 16 h_fs_uuid
//	8 4 h_version   32 4 h_crc, little endian             320 4 h_size
//	12 4 h_len      36 4 h_prev_block
type record struct {
	block   uint32 // where it starts
	cycle   uint32
	version uint32
	length  uint32 // bytes behind the header
	ops     uint32
	format  uint32
	lsn     lsn
	tail    lsn // where a replay had to start when this was written
	crc     uint32
	uuid    []byte
	header  uint32 // blocks of header
	size    uint32 // of the kernel's buffer
}

func (j *journal) damaged(block uint32, format string, args ...any) error {
	return layer.Damaged(logName, j.offset(block), format, args...)
}

// offset is where a block of the ring is on the disk.
func (j *journal) offset(block uint32) int64 { return j.start + int64(block)*logBlock }

func openJournal(fs *Filesystem) (*journal, error) {
	sb := fs.sb
	if sb.logStart == 0 {
		return nil, layer.Unsupported(superblockName, 0, "back this disk up as an image, together with the log's",
			"an external log: the newest changes may be on another disk")
	}
	return &journal{fs: fs, start: sb.offset(sb.logStart), blocks: sb.logBlocks << (sb.blockShift - sectorShift)}, nil
}

// at is block number i of the ring, for an i that has gone round it at most once.
func (j *journal) at(i uint32) uint32 {
	if i >= j.blocks {
		return i - j.blocks
	}
	return i
}

// distance is how many blocks there are from one to another, going forward.
func (j *journal) distance(from, to uint32) uint32 {
	if to >= from {
		return to - from
	}
	return to + j.blocks - from
}

// read returns count blocks of the ring. Count is at most the log's.
func (j *journal) read(block, count uint32) ([]byte, error) {
	p := make([]byte, int(count)*logBlock)
	return p, j.readInto(p, block)
}

func (j *journal) readInto(p []byte, block uint32) error {
	rest := p
	if room := int(j.blocks-block) * logBlock; len(p) > room {
		if err := j.readInto(p[room:], 0); err != nil {
			return err
		}
		rest = p[:room]
	}
	off := j.offset(block)
	if err := ondisk.ReadFull(j.fs.dev.disk, rest, off); err != nil {
		return layer.Unreadable(logName, off, err)
	}
	return nil
}

// cycleOf is the cycle that a block was written in.
func cycleOf(block []byte) uint32 {
	if isHeader(block) {
		return binary.BigEndian.Uint32(block[4:])
	}
	return binary.BigEndian.Uint32(block)
}

func isHeader(block []byte) bool { return binary.BigEndian.Uint32(block) == recordMagic }

func (j *journal) cycle(block uint32) (uint32, error) {
	p, err := j.read(block, 1)
	if err != nil {
		return 0, err
	}
	return cycleOf(p), nil
}

// record reads and checks the header of the record at block.
func (j *journal) record(block uint32) (record, error) {
	p, err := j.read(block, 1)
	if err != nil {
		return record{}, err
	}
	return j.parseRecord(p, block)
}

func (j *journal) parseRecord(p []byte, block uint32) (record, error) {
	r := record{block: block}
	c := ondisk.NewCursor(p, binary.BigEndian)
	magic := c.U32()
	r.cycle, r.version, r.length = c.U32(), c.U32(), c.U32()
	r.lsn, r.tail = lsn(c.U64()), lsn(c.U64())
	r.crc = binary.LittleEndian.Uint32(c.Bytes(4))
	c.Skip(4) // h_prev_block
	r.ops = c.U32()
	c.Seek(300)
	r.format = c.U32()
	r.uuid = c.Bytes(16)
	r.size = c.U32()
	if c.Err() != nil {
		return r, j.damaged(block, "%v", c.Err())
	}
	if r.version < 2 {
		r.size = plainRecordSize
	}
	if r.length > r.size && r.ops == 1 {
		r.size = max(r.size, j.fs.sb.logUnit) // as old versions of mkfs.xfs have it
	}
	r.header = 1
	if r.version >= 2 && r.size > plainRecordSize {
		r.header = (r.size + plainRecordSize - 1) / plainRecordSize
	}
	switch {
	case magic != recordMagic:
		return r, j.damaged(block, "the magic number is %#x, not %#x", magic, uint32(recordMagic))
	case r.version == 0 || r.version > 3:
		return r, j.damaged(block, "a record of version %d", r.version)
	case r.size > maxRecordSize || r.length == 0 || r.length > r.size || r.length%4 != 0:
		return r, j.damaged(block, "a record of %d bytes, with %d blocks of header", r.length, r.header)
	case r.header+r.dataBlocks() > j.blocks:
		return r, j.damaged(block, "a record of %d bytes in a log of %d blocks", r.length, j.blocks)
	case r.lsn.block() != block || r.lsn.cycle() != r.cycle:
		return r, j.damaged(block, "the record says that it is %v", r.lsn)
	case r.tail.block() >= j.blocks:
		return r, j.damaged(block, "the record says that the log starts at %v", r.tail)
	}
	return r, nil
}

// checkOwner makes sure that a record is of this filesystem, and of Linux.
func (j *journal) checkOwner(r *record) error {
	if !bytes.Equal(r.uuid, j.fs.sb.uuid[:]) && !bytes.Equal(r.uuid, make([]byte, 16)) {
		return j.damaged(r.block, "the record is of filesystem %x, this one is %x", r.uuid, j.fs.sb.uuid)
	}
	if r.format != recordLinux {
		return layer.Unsupported(logName, j.offset(r.block), hintClean, "log format %d, only that of Linux on a little endian machine is known", r.format)
	}
	return nil
}

func (r *record) dataBlocks() uint32 { return (r.length + logBlock - 1) / logBlock }

// end is the block behind a record.
func (j *journal) end(r *record) uint32 { return j.at(r.block + r.header + r.dataBlocks()) }

// data returns what a record holds, verified, and with the first word of each
// block back in its place. It is valid until the next call.
func (j *journal) data(r *record) ([]byte, error) {
	size := int(r.header+r.dataBlocks()) * logBlock
	if cap(j.buf) < size {
		j.buf = make([]byte, size)
	}
	all := j.buf[:size]
	if err := j.readInto(all, r.block); err != nil {
		return nil, err
	}
	head, data := all[:r.header*logBlock], all[r.header*logBlock:]
	if err := j.verifyRecord(r, head, data[:r.length]); err != nil {
		return nil, err
	}
	for i := range int(r.dataBlocks()) {
		words := head[44:]
		if i >= cyclesPerHeader {
			words = head[i/cyclesPerHeader*logBlock+4:]
		}
		at := i % cyclesPerHeader * 4
		copy(data[i*logBlock:], words[at:at+4])
	}
	return data[:r.length], nil
}

// verifyRecord checks a record's checksum: over its header, the further blocks of
// header that its length needs, and its data as it lies on disk. Version 4 of
// XFS need not have one, and mkfs.xfs writes its record, of a clean unmount,
// without.
func (j *journal) verifyRecord(r *record, head, data []byte) error {
	if !j.fs.sb.checksummed || r.crc == 0 && r.ops == 1 && len(data) >= opHeader && data[9]&opUnmount != 0 {
		return nil
	}
	var sums [2]uint32
	for i, size := range [2]int{recordHeader, recordHeader - 4} {
		sum := checksum(head[:size], 32)
		for at := logBlock; at < len(head) && at/logBlock*plainRecordSize < len(data); at += logBlock {
			sum = updateChecksum(sum, head[at:at+extendedHeader])
		}
		if sums[i] = updateChecksum(sum, data); sums[i] == r.crc {
			return nil
		}
	}
	return j.damaged(r.block, "checksum is %#08x, the record says %#08x", sums[0], r.crc)
}
