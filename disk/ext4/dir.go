package ext4

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxDirSize is the most that a directory is read of: with large_dir
	// Linux allows more, but 16 GiB are some 400 million names.
	maxDirSize = 16 << 30

	// dirReadSize is how much of a directory is read at once: a multiple of
	// every block size.
	dirReadSize = 64 << 10

	maxNameLen = 255

	// entryHeaderSize and minEntrySize are EXT4_BASE_DIR_LEN and the size of
	// an entry with a name of one byte.
	entryHeaderSize = 8
	minEntrySize    = 12

	// dirTailSize is the size of the entry that carries a block's checksum.
	dirTailSize = 12
)

// fileTypes translates the entries' file_type.
var fileTypes = [...]uint32{
	1: disk.ModeRegular, 2: disk.ModeDir, 3: disk.ModeChar, 4: disk.ModeBlock,
	5: disk.ModeFIFO, 6: disk.ModeSocket, 7: disk.ModeSymlink,
}

var dirBuffers = sync.Pool{New: func() any { return new([dirReadSize]byte) }}

// dirReader reads one directory, from the first block to the last: the blocks
// of a hash tree look like unused entries to those who read this way.
type dirReader struct {
	fs    *Filesystem
	dir   *inode
	yield func(disk.DirEntry) error
	// changed is what fast commits say of the directory, or nil.
	changed *changedDir
	// stopped is the error of yield, after which nothing is read.
	stopped error
	hash    *nameHash // of the names of an encrypted directory; may be nil
}

// dirBlock is a block of a directory, or a part of an inline one.
type dirBlock struct {
	data   []byte
	index  uint64 // the block's number in the directory
	off    int64  // byte offset on disk
	inline bool
}

// ReadDir implements [disk.Filesystem]. Names in an encrypted directory come
// in the encoded form in which Linux shows them without the key. A damaged entry
// costs itself, and the rest of its block where it does not tell how long it is:
// all others come before the error.
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	n, err := fs.file(ino)
	if err != nil {
		return err
	}
	if n.Type() != disk.ModeDir {
		return layer.Absent(inodeName(ino), "mode %#o is not a directory", n.Mode)
	}
	r := &dirReader{fs: fs, dir: n, changed: fs.changes.dir(ino)}
	r.yield = func(e disk.DirEntry) error {
		r.stopped = yield(e)
		return r.stopped
	}
	err = r.readDisk()
	if r.stopped != nil || r.changed == nil {
		return err
	}
	return cmp.Or(err, r.readAdded())
}

func (r *dirReader) readDisk() error {
	switch {
	case r.changed != nil && r.changed.created:
		return nil
	case r.dir.flags&flagInlineData != 0:
		return r.readInline()
	}
	return r.readBlocks()
}

// readAdded yields the entries that fast commits added.
func (r *dirReader) readAdded() error {
	for _, e := range r.changed.entries {
		if e.ino == 0 || e.ino == e.base {
			continue
		}
		if err := r.checkName([]byte(e.name), e.ino); err != nil {
			return layer.Damaged(fastCommitName, ondisk.Nowhere, "in directory %d, %v", r.dir.Ino, err)
		}
		entry := disk.DirEntry{Name: []byte(e.name), Ino: e.ino}
		if n, err := r.fs.file(e.ino); err == nil {
			entry.Type = n.Type()
		}
		if err := r.yield(entry); err != nil {
			return err
		}
	}
	return nil
}

func (r *dirReader) readBlocks() error {
	blockSize := r.fs.sb.blockSize()
	switch {
	case r.dir.Size == 0 || r.dir.Size%blockSize != 0:
		return layer.Damaged(inodeName(r.dir.Ino), ondisk.Nowhere, "a directory of %d bytes with blocks of %d", r.dir.Size, blockSize)
	case r.dir.Size > maxDirSize:
		return layer.Beyond(inodeName(r.dir.Ino), ondisk.Nowhere, "a directory of %d bytes, at most %d are read", r.dir.Size, int64(maxDirSize))
	case uint64(r.dir.Size/blockSize) > r.fs.sb.blockCount:
		return layer.Damaged(inodeName(r.dir.Ino), ondisk.Nowhere, "a directory of %d bytes is larger than the filesystem", r.dir.Size)
	}
	m, end := newMapping(r.fs, r.dir), uint64(r.dir.Size/blockSize)
	if err := r.checkPieces(m, end); err != nil {
		return err
	}
	buf := dirBuffers.Get().(*[dirReadSize]byte)
	defer dirBuffers.Put(buf)

	var first error // of a damaged block: the others are read all the same
	for block := uint64(0); block < end; {
		s, err := m.at(block)
		if err != nil {
			return err
		}
		// What mke2fs or e2fsck left unwritten is a directory to Linux all the same.
		if s.kind == disk.ExtentHole {
			first = cmp.Or(first, layer.Damaged(dirBlockName(block, r.dir.Ino), ondisk.Nowhere, "it is a hole"))
			block += s.length
			continue
		}
		count := min(s.length, end-block, uint64(dirReadSize/blockSize))
		run := buf[:int64(count)*blockSize]
		off := int64(s.physical) * blockSize
		if err := r.fs.dev.readAt(run, off); err != nil {
			return layer.Unreadable(dirBlockName(block, r.dir.Ino), off, err)
		}
		for ; len(run) > 0; run = run[blockSize:] {
			if err := r.readBlock(dirBlock{data: run[:blockSize], index: block, off: off}); err != nil {
				if r.stopped != nil {
					return r.stopped
				}
				first = cmp.Or(first, err)
			}
			block++
			off += blockSize
		}
	}
	return first
}

// checkPieces makes sure that no block of the disk is in a directory twice. Where
// the map cannot be read, reading the directory will tell, after what comes before.
func (r *dirReader) checkPieces(m *mapping, end uint64) error {
	var pieces ondisk.Pieces
	for block := uint64(0); block < end; {
		s, err := m.at(block)
		if err != nil {
			break
		}
		if s.kind != disk.ExtentHole && !pieces.Add(s.physical, min(s.length, end-block)) {
			return layer.Beyond(inodeName(r.dir.Ino), ondisk.Nowhere, "a directory in too many pieces")
		}
		block += min(s.length, end-block)
	}
	if block, twice := pieces.Twice(); twice {
		return layer.Damaged(inodeName(r.dir.Ino), int64(block)<<r.fs.sb.blockShift, "a block of the directory is there twice")
	}
	return nil
}

// readInline reads a directory in the inode: the parent's number, entries to
// the end of i_block, and more entries in the attribute.
func (r *dirReader) readInline() error {
	data, err := r.fs.inlineData(r.dir)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{data[4:blockFieldSize], data[blockFieldSize:]} {
		if err := r.readEntries(dirBlock{data: part, off: ondisk.Nowhere, inline: true}); err != nil {
			return err
		}
	}
	return nil
}

func dirBlockName(index, ino uint64) string {
	return fmt.Sprintf("directory block %d of inode %d", index, ino)
}

func (r *dirReader) damaged(b *dirBlock, format string, args ...any) error {
	name := dirBlockName(b.index, r.dir.Ino)
	if b.inline {
		name = fmt.Sprintf("inline directory of inode %d", r.dir.Ino)
	}
	return layer.Damaged(name, b.off, format, args...)
}

func (r *dirReader) readBlock(b dirBlock) error {
	if r.fs.sb.hasChecksum() {
		if err := r.verify(&b); err != nil {
			return err
		}
	}
	if b.index == 0 && r.dir.flags&flagEncrypt != 0 {
		r.hash = r.findHash(&b)
	}
	return r.readEntries(b)
}

// readEntries yields the entries of a block.
//
// Layout of an entry (Documentation/filesystems/ext4/directory.rst), little
// endian, at a multiple of 4:
//
//	0x0 4 inode   0x4 2 rec_len   0x6 1 name_len   0x7 1 file_type   0x8 name
//
// Without the filetype feature name_len has two bytes.
func (r *dirReader) readEntries(b dirBlock) error {
	var first error // of a damaged entry
	number := 0
	for rest := b.data; len(rest) > 0; number++ {
		length, err := r.checkEntry(&b, rest)
		if err != nil {
			return cmp.Or(first, err)
		}
		if err := r.entry(&b, rest[:length], number); err != nil {
			if r.stopped != nil {
				return err
			}
			first = cmp.Or(first, err)
		}
		rest = rest[length:]
	}
	return first
}

// checkEntry checks the header of the entry at the start of rest, and returns
// the entry's length.
func (r *dirReader) checkEntry(b *dirBlock, rest []byte) (int, error) {
	at := len(b.data) - len(rest)
	if len(rest) < minEntrySize {
		return 0, r.damaged(b, "%d bytes are left at %d, too few for an entry", len(rest), at)
	}
	length := r.recordLength(rest)
	need := entryHeaderSize + (r.nameLength(rest)+3)&^3
	switch left := len(rest) - length; {
	case length%4 != 0 || length < minEntrySize || left < 0 || left > 0 && left < minEntrySize:
		return 0, r.damaged(b, "the entry at %d has rec_len %d, %d bytes are left", at, length, len(rest))
	case need > length:
		return 0, r.damaged(b, "the entry at %d has a name of %d bytes and rec_len %d", at, r.nameLength(rest), length)
	}
	return length, nil
}

// recordLength decodes rec_len, which with blocks of 64 KiB has to reach 65,536.
func (r *dirReader) recordLength(entry []byte) int {
	length := int(binary.LittleEndian.Uint16(entry[4:]))
	if r.fs.sb.blockShift == maxBlockShift {
		if length == 0 || length == 0xffff {
			return 1 << maxBlockShift
		}
		return length&0xfffc | length&3<<16
	}
	return length
}

func (r *dirReader) nameLength(entry []byte) int {
	if r.fs.sb.incompat&incompatFiletype != 0 {
		return int(entry[6])
	}
	return int(binary.LittleEndian.Uint16(entry[6:]))
}

// entry yields one entry, the number-th of its block, unless it is unused or
// "." or "..".
func (r *dirReader) entry(b *dirBlock, raw []byte, number int) error {
	ino := uint64(binary.LittleEndian.Uint32(raw))
	name := raw[entryHeaderSize : entryHeaderSize+r.nameLength(raw)]
	var misplaced error
	if b.index == 0 && !b.inline && number < 2 {
		// What a directory starts with proves that this is its block. If it is
		// not, Linux lists it all the same.
		if want := ".."[:number+1]; string(name) != want || number == 0 && ino != r.dir.Ino {
			misplaced = r.damaged(b, "entry %d is not %q of inode %d", number, want, r.dir.Ino)
		}
	}
	if ino == 0 || ino == r.dir.Ino && misplaced != nil || string(name) == "." || string(name) == ".." {
		return misplaced
	}
	if err := r.checkName(name, ino); err != nil {
		return cmp.Or(misplaced, r.damaged(b, "%v", err))
	}
	if r.changed != nil && r.changed.replaces(name, ino) {
		return misplaced
	}
	if r.dir.flags&flagEncrypt != 0 {
		name = encodeEncrypted(name, r.hash)
	}
	e := disk.DirEntry{Name: name, Ino: ino}
	if r.fs.sb.incompat&incompatFiletype != 0 && int(raw[7]) < len(fileTypes) {
		e.Type = fileTypes[raw[7]]
	}
	return cmp.Or(r.yield(e), misplaced)
}

// checkName checks a name, and the inode that it is for.
func (r *dirReader) checkName(name []byte, ino uint64) error {
	switch {
	case len(name) == 0 || len(name) > maxNameLen:
		return fmt.Errorf("an entry for inode %d has a name of %d bytes", ino, len(name))
	case ino > uint64(r.fs.sb.inodeCount) || r.fs.reserved(ino):
		return fmt.Errorf("entry %q refers to inode %d, which no file can have", name, ino)
	case r.dir.flags&flagEncrypt == 0 && (bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0):
		return fmt.Errorf("the entry of inode %d has a name with '/' or NUL: %q", ino, name)
	}
	return nil
}
