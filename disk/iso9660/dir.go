package iso9660

import (
	"bytes"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxDirBlocks is how many logical blocks all directories may have together: a
// gigabyte of names in blocks of 2 KiB. It bounds the table of owners to some 20 MB.
const maxDirBlocks = 1 << 19

// contentOf returns where the content of a record begins.
func (fs *Filesystem) contentOf(r *record) int64 {
	return (int64(r.block) + int64(r.attributes)) * fs.volume.blockSize
}

// selfRecord returns the record of itself that a directory at byte start begins with.
func (fs *Filesystem) selfRecord(ino uint64, start int64) (record, error) {
	if !ondisk.Within(start, minRecord, fs.dev.Disk.Size()) {
		return record{}, layer.Damaged(directoryName(ino), int64(ino), "it would begin at %#x, and the disk has %d bytes", start, fs.dev.Disk.Size())
	}
	sector, at, err := fs.dev.Page(start)
	if err != nil {
		return record{}, layer.Unreadable(directoryName(ino), start, err)
	}
	r, err := parseRecord(sector[at:])
	if err != nil || !fs.isSelf(&r, start) {
		return record{}, layer.Damaged(directoryName(ino), start, noSelf)
	}
	return r, nil
}

const noSelf = "it does not begin with the records of itself and of the directory above"

// The names of the first two records of a directory (ECMA-119, section 7.6.2).
var selfName, parentName = []byte{0}, []byte{1}

// isSelf reports whether r is the first record of the directory at byte start.
func (fs *Filesystem) isSelf(r *record, start int64) bool {
	return bytes.Equal(r.name, selfName) && r.isDirectory() && fs.contentOf(r) == start
}

// ReadDir implements [disk.Filesystem]. An entry that is damaged is left out: the error
// comes when all others have been yielded. Of directories that share blocks, the one that
// is read first has them.
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	d, _, err := fs.find(ino)
	if err != nil {
		return err
	}
	if !d.isDirectory() {
		return layer.Absent(inodeName(ino), "it is not a directory")
	}
	start := fs.contentOf(&d)
	r := &dirReader{fs: fs, ino: ino, yield: yield, start: start}
	for off, end := start, start+int64(d.size); off < end; {
		if off%fs.volume.blockSize == 0 || off == start {
			if err := fs.owners.Claim(uint64(off/fs.volume.blockSize), ino, off); err != nil {
				return err
			}
		}
		n, err := r.next(off, end)
		if err != nil {
			return err
		}
		off += n
	}
	if r.index < 2 {
		r.damaged(start, noSelf)
	}
	return r.damage
}

// dirReader turns the records of one directory into names.
type dirReader struct {
	fs       *Filesystem
	ino      uint64
	start    int64
	yield    func(disk.DirEntry) error
	index    int // of the next record
	unended  bool
	last     [maxName]byte // the name of the record before, if unended
	lastSize int
	buf      [maxName]byte
	damage   error // the first that cost one name
}

// damaged notes what is wrong with the directory, while its reading goes on.
func (r *dirReader) damaged(off int64, format string, args ...any) {
	r.note(layer.Damaged(directoryName(r.ino), off, format, args...))
}

func (r *dirReader) note(err error) {
	if r.damage == nil {
		r.damage = err
	}
}

// next reads the record at byte off, of a directory that goes to end, and returns how
// far the next one is. What is damaged costs the rest of its sector.
func (r *dirReader) next(off, end int64) (int64, error) {
	sector, at, err := r.fs.dev.Page(off)
	if err != nil {
		return 0, layer.Unreadable(directoryName(r.ino), off, err)
	}
	rest := int64(sectorSize - at)
	raw := sector[at:][:min(int64(len(sector)-at), end-off)]
	if raw[0] == 0 { // no other record begins in this sector
		return rest, nil
	}
	rec, err := parseRecord(raw)
	if err != nil {
		r.damaged(off, "%v", err)
		return rest, nil
	}
	return int64(rec.length), r.record(off, &rec)
}

func (r *dirReader) record(off int64, rec *record) error {
	index := r.index
	r.index++
	self, parent := bytes.Equal(rec.name, selfName), bytes.Equal(rec.name, parentName)
	if index == 0 && !r.fs.isSelf(rec, r.start) || index == 1 && !parent {
		r.damaged(off, noSelf)
	}
	if self || parent {
		return nil
	}
	if r.continues(off, rec) || rec.flags&flagAssociated != 0 {
		return nil
	}
	a, err := r.fs.attributesOf(uint64(off), rec, r.buf[:0])
	if err != nil {
		r.note(err)
		return nil
	}
	if a.moved {
		return nil
	}
	wrong := a.nameWrong
	if len(a.name) == 0 && wrong == "" {
		a.name = r.fs.appendName(r.buf[:0], rec)
	}
	if wrong == "" {
		wrong = checkName(a.name)
	}
	if wrong != "" {
		r.damaged(off, "an entry is left out: %s", wrong)
		return nil
	}
	return r.yield(disk.DirEntry{Name: a.name, Ino: uint64(off), Type: typeOf(rec, a)})
}

// continues reports whether a record has another extent of the file before it.
func (r *dirReader) continues(off int64, rec *record) bool {
	same := r.unended && bytes.Equal(r.last[:r.lastSize], rec.name)
	if r.unended && !same {
		r.damaged(off, "another extent of the file before should be here")
	}
	r.unended = rec.flags&flagMultiExtent != 0
	r.lastSize = copy(r.last[:], rec.name)
	return same
}

// typeOf returns the type of what a record names, or 0 where it contradicts itself.
func typeOf(r *record, a *attributes) uint32 {
	switch {
	case a.child >= 0:
		return disk.ModeDir
	case a.posix && isType(a.mode) && (a.mode&disk.ModeType == disk.ModeDir) == r.isDirectory():
		return a.mode & disk.ModeType
	case a.posix:
		return 0
	case r.isDirectory():
		return disk.ModeDir
	}
	return disk.ModeRegular
}

func isType(mode uint32) bool {
	switch mode & disk.ModeType {
	case disk.ModeSocket, disk.ModeSymlink, disk.ModeRegular, disk.ModeBlock, disk.ModeDir, disk.ModeChar, disk.ModeFIFO:
		return true
	}
	return false
}
