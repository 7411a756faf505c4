package xfs

import (
	"bytes"
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The magic numbers of directory blocks with entries, in version 4 and 5.
const (
	dirBlockMagic  = 0x58443242
	dirDataMagic   = 0x58443244
	dirBlockMagic5 = 0x58444233
	dirDataMagic5  = 0x58444433
)

const (
	// dirLeafOffset is where a directory keeps its index, in bytes: what lies
	// before are its entries (XFS_DIR2_LEAF_OFFSET).
	dirLeafOffset = 1 << 35

	dirHeader     = 16 // of a block, in version 4
	dirHeader5    = 64
	dirTail       = 8 // at the end of a directory of one block: 4 count, 4 stale
	dirLeafEntry  = 8 // of its index, before the tail
	dirEntryAlign = 8
	dirFreeTag    = 0xffff
)

// dirTypes expands the file type in directory entries.
var dirTypes = [...]uint32{
	1: disk.ModeRegular, 2: disk.ModeDir, 3: disk.ModeChar, 4: disk.ModeBlock,
	5: disk.ModeFIFO, 6: disk.ModeSocket, 7: disk.ModeSymlink,
}

// directory reads one directory's entries.
type directory struct {
	fs    *Filesystem
	inode *inode
	yield func(disk.DirEntry) error
}

func dirName(ino uint64) place { return place{"directory", ino} }

// ReadDir implements [disk.Filesystem].
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	n, err := fs.file(ino)
	if err != nil {
		return err
	}
	if n.Type() != disk.ModeDir {
		return layer.Absent(inodeName(ino), "mode %#o is not a directory", n.Mode)
	}
	if err := fs.intents.refuseContent(ino); err != nil {
		return err
	}
	d := &directory{fs: fs, inode: n, yield: yield}
	if n.data.format == formatLocal {
		return d.short()
	}
	return d.blocks()
}

func (d *directory) damaged(off int64, format string, args ...any) error {
	return layer.Damaged(dirName(d.inode.Ino).String(), off, format, args...)
}

// emit checks an entry and passes it on.
func (d *directory) emit(off int64, name []byte, ino uint64, kind byte) error {
	switch {
	case len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.':
		return nil
	case len(name) == 0 || bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return d.damaged(off, "the name %q is not possible", name)
	case !d.fs.sb.validInode(ino):
		return d.damaged(off, "%q is inode %d, for which the filesystem has no place", name, ino)
	}
	e := disk.DirEntry{Name: name, Ino: ino}
	if int(kind) < len(dirTypes) {
		e.Type = dirTypes[kind]
	}
	return d.yield(e)
}

// short reads a directory that lies in its inode. Layout ("Shortform
// Directories"):
//
//	0 1 count of entries   1 1 count of those with large numbers   2 4 or 8 parent
//
// then for each entry: 1 length of the name, 2 offset, the name, 1 type if the
// filesystem has that, 4 or 8 number: 8 if there is any large one.
func (d *directory) short() error {
	c := ondisk.NewCursor(d.inode.data.raw[:d.inode.Size], binary.BigEndian)
	count, large := int(c.U8()), c.U8() != 0
	number := func() uint64 {
		if large {
			return c.U64()
		}
		return uint64(c.U32())
	}
	number() // the parent
	for range count {
		length := int(c.U8())
		c.Skip(2)
		name := c.Bytes(length)
		var kind byte
		if d.fs.sb.hasFtype {
			kind = c.U8()
		}
		ino := number()
		if c.Err() != nil {
			break
		}
		if err := d.emit(ondisk.Nowhere, name, ino, kind); err != nil {
			return err
		}
	}
	switch {
	case c.Err() != nil:
		return d.damaged(ondisk.Nowhere, "%v", c.Err())
	case int64(c.Offset()) != d.inode.Size:
		return d.damaged(ondisk.Nowhere, "%d of %d bytes are used", c.Offset(), d.inode.Size)
	}
	return nil
}

// blocks reads the entries of a directory that has blocks of its own. The index
// of names behind them is not needed.
func (d *directory) blocks() error {
	sb := d.fs.sb
	size := sb.blockSize() << sb.dirShift
	if d.inode.Size < size || d.inode.Size&(size-1) != 0 || d.inode.Size > dirLeafOffset {
		return d.damaged(ondisk.Nowhere, "its size is %d, with blocks of %d bytes", d.inode.Size, size)
	}
	m := newMapping(d.fs, d.inode, d.inode.data)
	end := uint64(d.inode.Size) >> sb.blockShift
	if err := d.checkPieces(m, end); err != nil {
		return err
	}
	step := uint64(1) << sb.dirShift
	for block := uint64(0); block < end; {
		s, err := m.at(block)
		if err != nil {
			return err
		}
		whole := s.length >> sb.dirShift
		if s.kind == disk.ExtentHole && whole > 0 && block > 0 {
			block += whole * step
			continue
		}
		for range max(whole, 1) {
			if block >= end {
				break
			}
			if err := d.block(m, block, s); err != nil {
				return err
			}
			block += step
			s.physical += step
			s.length -= min(s.length, step)
		}
	}
	return nil
}

// checkPieces makes sure that no block of the disk is in a directory twice.
func (d *directory) checkPieces(m *mapping, end uint64) error {
	var pieces ondisk.Pieces
	for block := uint64(0); block < end; {
		s, err := m.at(block)
		if err != nil {
			return err
		}
		if s.kind == disk.ExtentData && !pieces.Add(s.physical, s.length) {
			return layer.Beyond(dirName(d.inode.Ino).String(), ondisk.Nowhere, "it is in too many pieces")
		}
		block += min(s.length, end-block)
	}
	if block, twice := pieces.Twice(); twice {
		return d.damaged(d.fs.sb.offset(block), "a block is there twice")
	}
	return nil
}

// block reads one directory block, which starts with stretch s and is in one
// piece if that is long enough.
func (d *directory) block(m *mapping, block uint64, s stretch) error {
	data, off, err := d.read(m, block, s)
	if err != nil {
		return err
	}
	single := false
	switch binary.BigEndian.Uint32(data) {
	case dirBlockMagic, dirBlockMagic5:
		single = true
	}
	if single && d.inode.Size != int64(len(data)) {
		return d.damaged(off, "a block that is all of a directory, in one of %d bytes", d.inode.Size)
	}
	return d.entries(data, off, single)
}

// read returns a directory block, verified. One in several pieces is read anew
// each time: those are rare.
func (d *directory) read(m *mapping, block uint64, s stretch) ([]byte, int64, error) {
	sb := d.fs.sb
	step := uint64(1) << sb.dirShift
	if s.kind == disk.ExtentData && s.length >= step {
		off := sb.offset(s.physical)
		data, err := d.fs.block(directoryForm, off, int(step)<<sb.blockShift, d.inode.Ino, dirName(d.inode.Ino))
		return data, off, err
	}
	data := make([]byte, step<<sb.blockShift)
	var first int64
	replayed := false
	for i := uint64(0); i < step; {
		s, err := m.at(block + i)
		if err != nil {
			return nil, 0, err
		}
		if s.kind != disk.ExtentData {
			return nil, 0, d.damaged(ondisk.Nowhere, "there is a hole in block %d", block+i)
		}
		n := min(s.length, step-i)
		off := sb.offset(s.physical)
		if i == 0 {
			first = off
		}
		r, err := d.fs.dev.readAt(data[i<<sb.blockShift:(i+n)<<sb.blockShift], off)
		if err != nil {
			return nil, 0, layer.Unreadable(dirName(d.inode.Ino).String(), off, err)
		}
		replayed = replayed || r
		i += n
	}
	if err := d.fs.verify(directoryForm, data, first, replayed, dirName(d.inode.Ino)); err != nil {
		return nil, 0, err
	}
	return data, first, d.fs.checkOwner(directoryForm, data, first, d.inode.Ino, dirName(d.inode.Ino))
}

// entries reads the entries of a block. Layout ("Block Directories"), from the
// end of the header, each at a multiple of 8:
//
//	0 8 inumber   8 1 length of the name   9 the name   1 type if the filesystem
//	has that   then at the end 2 tag: where this entry starts
//
// or, unused: 0 2 0xffff   2 2 length   and at the end 2 tag. A directory of one
// block has its index at the end of that.
func (d *directory) entries(data []byte, off int64, single bool) error {
	at, end := dirHeader, len(data)
	if d.fs.sb.checksummed {
		at = dirHeader5
	}
	if single {
		end -= dirTail
		count := binary.BigEndian.Uint32(data[end:])
		if uint64(count) > uint64(end-at)/dirLeafEntry {
			return d.damaged(off, "an index of %d entries in a block of %d bytes", count, len(data))
		}
		end -= int(count) * dirLeafEntry
	}
	for at < end {
		length, err := d.entry(data[:end], at, off)
		if err != nil {
			return err
		}
		at += length
	}
	return nil
}

// entry reads what starts at offset at, and returns its length.
func (d *directory) entry(data []byte, at int, off int64) (int, error) {
	if len(data)-at < dirEntryAlign {
		return 0, d.damaged(off, "%d bytes are left at the end", len(data)-at)
	}
	free := binary.BigEndian.Uint16(data[at:]) == dirFreeTag
	var length int
	if free {
		length = int(binary.BigEndian.Uint16(data[at+2:]))
	} else if at+9 <= len(data) {
		length = 8 + 1 + int(data[at+8]) + 2
		if d.fs.sb.hasFtype {
			length++
		}
		length = (length + dirEntryAlign - 1) &^ (dirEntryAlign - 1)
	}
	if length < dirEntryAlign || length%dirEntryAlign != 0 || length > len(data)-at {
		return 0, d.damaged(off, "an entry of %d bytes at %d", length, at)
	}
	if tag := int(binary.BigEndian.Uint16(data[at+length-2:])); tag != at {
		return 0, d.damaged(off, "the entry at %d says that it lies at %d", at, tag)
	}
	if free {
		return length, nil
	}
	name := data[at+9 : at+9+int(data[at+8])]
	var kind byte
	if d.fs.sb.hasFtype {
		kind = data[at+9+len(name)]
	}
	return length, d.emit(off, name, binary.BigEndian.Uint64(data[at:]), kind)
}
