package fat

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// maxDirSize is the most that a directory can have: 65,536 entries, of the
// specification and of Linux.
const maxDirSize = 65536 * entrySize

// maxDirClusters is how many clusters all directories may have together: two
// gigabytes of names in clusters of 4 KiB. It bounds the table of owners to some
// 20 MB.
const maxDirClusters = 1 << 19

// errEnd ends the reading of a directory.
var errEnd = errors.New("end of the directory")

// entries calls yield for the entries of directory ino, which starts at cluster
// first, until the end or until yield returns an error: errEnd is none. first is
// 0 for the root of FAT12 and FAT16, which has a place of its own.
func (fs *Filesystem) entries(ino uint64, first uint32, yield func(off int64, raw []byte) error) error {
	if first == 0 && ino == rootInode {
		return notEnd(fs.entriesIn(ino, fs.geo.rootStart, fs.geo.rootSize, yield))
	}
	c, err := fs.chain(ino, first)
	if err != nil {
		return err
	}
	for read := int64(0); c.cluster != 0; read += fs.geo.clusterSize {
		off := fs.geo.offset(c.cluster)
		if read >= maxDirSize {
			return layer.Damaged(directoryName(ino), off, "it has more than %d entries", maxDirSize/entrySize)
		}
		if err := fs.owners.Claim(uint64(c.cluster), ino, off); err != nil {
			return err
		}
		if err := fs.entriesIn(ino, off, fs.geo.clusterSize, yield); err != nil {
			return notEnd(err)
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

func notEnd(err error) error {
	if err == errEnd {
		return nil
	}
	return err
}

// entriesIn yields the entries of one stretch of a directory.
func (fs *Filesystem) entriesIn(ino uint64, off, length int64, yield func(off int64, raw []byte) error) error {
	for end := off + length; off < end; {
		page, at, err := fs.dev.Page(off)
		if err != nil {
			return layer.Unreadable(directoryName(ino), off, err)
		}
		page = page[at:]
		for ; len(page) >= entrySize && off < end; page = page[entrySize:] {
			raw := page[:entrySize]
			if kindOf(raw) == kindEnd {
				return errEnd
			}
			if err := yield(off, raw); err != nil {
				return err
			}
			off += entrySize
		}
	}
	return nil
}

func directoryName(ino uint64) string { return fmt.Sprintf("directory %d", ino) }

// ReadDir implements [disk.Filesystem]. An entry whose name is none is left out:
// the error comes when all others have been yielded. Of directories that share
// clusters, the one that is read first has them.
func (fs *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	r := &dirReader{fs: fs, ino: ino, yield: yield, first: fs.geo.rootCluster}
	if ino != rootInode {
		e, err := fs.entryOf(ino)
		if err != nil {
			return err
		}
		if !e.isDirectory() {
			return layer.Absent(inodeName(ino), "it is not a directory")
		}
		r.first = e.cluster
	}
	if err := fs.entries(ino, r.first, r.entry); err != nil {
		return err
	}
	if ino != rootInode && r.index < 2 {
		r.damaged(r.fs.geo.offset(r.first), noDots)
	}
	return r.damage
}

const noDots = "it does not start with the entries of itself and of the directory above"

// dirReader turns the entries of one directory into names.
type dirReader struct {
	fs     *Filesystem
	ino    uint64
	first  uint32 // cluster
	yield  func(disk.DirEntry) error
	index  int // of the next entry
	long   longName
	buf    [maxLongParts * longPartUnits * maxUTF8Unit]byte
	damage error // the first that cost one name
}

func (r *dirReader) entry(off int64, raw []byte) error {
	index := r.index
	r.index++
	if index < 2 && r.ino != rootInode && r.dot(index, off, raw) {
		return nil
	}
	switch kindOf(raw) {
	case kindLong:
		r.long.add(raw)
		return nil
	case kindFile:
		defer r.long.reset()
		return r.file(off, raw)
	}
	r.long.reset()
	return nil
}

// damaged notes what is wrong with the directory, while its reading goes on.
func (r *dirReader) damaged(off int64, format string, args ...any) {
	if r.damage == nil {
		r.damage = layer.Damaged(directoryName(r.ino), off, format, args...)
	}
}

// dot checks the first two entries of a directory, "." and "..". They are all
// that tells a directory from what else its clusters may have been used for. It
// reports whether an entry is one of these.
func (r *dirReader) dot(index int, off int64, raw []byte) bool {
	e, err := r.fs.geo.parseEntry(raw)
	want := [...][]byte{dotName, dotDotName}[index]
	if err != nil || !bytes.Equal(e.name, want) || !e.isDirectory() || index == 0 && e.cluster != r.first {
		r.damaged(off, noDots)
	}
	return isDot(raw)
}

// file yields the entry of a file or directory.
func (r *dirReader) file(off int64, raw []byte) error {
	e, err := r.fs.geo.parseEntry(raw)
	if err != nil {
		return layer.Damaged(directoryName(r.ino), off, "%v", err)
	}
	name := r.long.appendTo(r.buf[:0], e.name)
	if checkName(name) != "" {
		name = e.appendShort(r.buf[:0])
	}
	if wrong := checkName(name); wrong != "" {
		r.damaged(off, "an entry is left out: %s", wrong)
		return nil
	}
	return r.yield(disk.DirEntry{Name: name, Ino: inodeAt(off), Type: e.mode() & disk.ModeType})
}
