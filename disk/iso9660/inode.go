package iso9660

import (
	"bytes"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// madeUpMode is what Linux gives to all files where there is no Rock Ridge.
	madeUpMode = 0o555
	// maxSections bounds the extents of a file: 16 TiB in extents of 4 GiB.
	maxSections = 4096

	agentHint = "back this disk up as an image, or the files with an agent in the guest"
)

// recordAt returns the record of an inode. Whether a directory holds it cannot be
// seen: any number that a directory did not yield may find what looks like a record in
// the content of a file.
func (fs *Filesystem) recordAt(ino uint64) (record, error) {
	const nothing = "there is no directory record at its place"
	if ino < firstDescriptor || ino >= uint64(fs.dev.Disk.Size()) {
		return record{}, layer.Absent(inodeName(ino), nothing)
	}
	sector, at, err := fs.dev.Page(int64(ino))
	if err != nil {
		return record{}, layer.Unreadable(inodeName(ino), int64(ino), err)
	}
	r, err := parseRecord(sector[at:])
	if err != nil && ino == fs.root() {
		return record{}, layer.Damaged("root directory record", int64(ino), "%v", err)
	}
	if err != nil {
		return record{}, layer.Absent(inodeName(ino), nothing)
	}
	return r, nil
}

// find returns the record and the attributes of an inode. Those of a directory may lie in
// the directory itself: Rock Ridge moves what is more than eight deep (RRIP, section
// 4.1.5), and the record of the root has no room for attributes.
func (fs *Filesystem) find(ino uint64) (record, *attributes, error) {
	r, err := fs.recordAt(ino)
	if err != nil {
		return record{}, nil, err
	}
	a, err := fs.attributesOf(ino, &r, nil)
	if err != nil {
		return record{}, nil, err
	}
	if a.child >= 0 {
		if r, err = fs.selfRecord(ino, a.child*fs.volume.blockSize); err != nil {
			return record{}, nil, err
		}
		if a, err = fs.attributesOf(ino, &r, nil); err != nil {
			return record{}, nil, err
		}
	}
	if !r.isDirectory() {
		return r, a, nil
	}
	switch start := fs.contentOf(&r); {
	case r.interleaved:
		return record{}, nil, layer.Damaged(directoryName(ino), start, "it is interleaved, which only files may be")
	case !ondisk.Within(start, int64(r.size), fs.dev.Disk.Size()):
		return record{}, nil, layer.Damaged(directoryName(ino), int64(ino), "its %d bytes at %#x do not lie on the disk of %d bytes", r.size, start, fs.dev.Disk.Size())
	}
	if ino == fs.root() && fs.rockRidge {
		self, err := fs.selfRecord(ino, fs.contentOf(&r))
		if err != nil {
			return record{}, nil, err
		}
		a, err = fs.attributesOf(ino, &self, nil)
		return r, a, err
	}
	return r, a, nil
}

// Inode implements [disk.Filesystem].
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	r, a, err := fs.find(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	kind := typeOf(&r, a)
	if kind == 0 {
		return disk.Inode{}, layer.Damaged(inodeName(ino), int64(ino), "its mode is %o, and its record says that it is %s", a.mode, plainType(&r))
	}
	n := disk.Inode{Ino: ino, Mode: kind | madeUpMode, Links: 1, Modify: r.time}
	if a.posix {
		n.Mode = kind | a.mode&0o7777
		n.UID, n.GID = a.uid, a.gid
	}
	switch kind {
	case disk.ModeDir:
		n.Size = int64(r.size)
		n.Links = max(1, a.links)
	case disk.ModeRegular:
		n.Size, err = fs.sizeOf(ino, &r, a)
	case disk.ModeSymlink:
		n.Size = int64(len(a.target))
	case disk.ModeBlock, disk.ModeChar:
		n.Rdev = a.rdev
	}
	a.setTimes(&n)
	return n, err
}

func plainType(r *record) string {
	if r.isDirectory() {
		return "a directory"
	}
	return "none"
}

// setTimes sets the times of an inode: those that Rock Ridge does not keep are that of
// its record.
func (a *attributes) setTimes(n *disk.Inode) {
	set := func(to *disk.Time, t *disk.Time) {
		if t != nil {
			*to = *t
		}
	}
	recorded := n.Modify
	n.Access, n.Change = recorded, recorded
	set(&n.Modify, a.modified)
	set(&n.Access, a.accessed)
	set(&n.Change, a.changed)
	set(&n.Birth, a.created)
}

// sizeOf returns the size of a regular file.
func (fs *Filesystem) sizeOf(ino uint64, r *record, a *attributes) (int64, error) {
	if a.compressed {
		return int64(a.plainSize), nil
	}
	sections, err := fs.sections(ino, r)
	if err != nil {
		return 0, err
	}
	last := sections[len(sections)-1]
	return last.off + last.length, nil
}

// Readlink implements [disk.Filesystem].
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) {
	r, a, err := fs.find(ino)
	switch {
	case err != nil:
		return nil, err
	case typeOf(&r, a) != disk.ModeSymlink:
		return nil, layer.Absent(inodeName(ino), "it is not a symlink")
	case len(a.target) == 0:
		return nil, layer.Damaged(inodeName(ino), int64(ino), "a symlink without a target")
	}
	return a.target, nil
}

// Xattrs implements [disk.Filesystem]: there are none.
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	_, err := fs.recordAt(ino)
	return nil, err
}

// sections returns where a file lies. Its other extents have records of the same name
// behind the first.
func (fs *Filesystem) sections(ino uint64, r *record) ([]section, error) {
	var list []section
	size := int64(0)
	add := func(r *record) {
		list = append(list, section{off: size, length: int64(r.size), at: fs.contentOf(r), interleaved: r.interleaved})
		size += int64(r.size)
	}
	add(r)
	next, name, off := *r, r.name, int64(ino)
	for next.flags&flagMultiExtent != 0 {
		if len(list) == maxSections {
			return nil, layer.Beyond(inodeName(ino), off, "more than %d extents", maxSections)
		}
		off += int64(next.length)
		sector, at, err := fs.dev.Page(off)
		if err == nil && at > 0 && (at >= len(sector) || sector[at] == 0) {
			off += int64(sectorSize - at)
			sector, at, err = fs.dev.Page(off)
		}
		if err != nil {
			return nil, layer.Unreadable(inodeName(ino), off, err)
		}
		next, err = parseRecord(sector[at:])
		if err != nil || !bytes.Equal(next.name, name) {
			return nil, layer.Damaged(inodeName(ino), off, "extent number %d of it should be here", len(list)+1)
		}
		add(&next)
	}
	return list, nil
}

// Open implements [disk.Filesystem].
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	r, a, err := fs.find(ino)
	switch {
	case err != nil:
		return nil, err
	case typeOf(&r, a) != disk.ModeRegular:
		return nil, layer.Absent(inodeName(ino), "it is not a regular file")
	case a.compressed:
		return nil, layer.Unsupported(inodeName(ino), int64(ino), agentHint, "its content is compressed by zisofs")
	case a.sparse:
		return nil, layer.Unsupported(inodeName(ino), int64(ino), agentHint, "its content is in the sparse form of Rock Ridge")
	}
	sections, err := fs.sections(ino, &r)
	if err != nil {
		return nil, err
	}
	f := &file{fs: fs, ino: ino, sections: sections}
	for _, s := range sections {
		f.size += s.length
		switch {
		case s.interleaved:
			return nil, layer.Unsupported(inodeName(ino), int64(ino), agentHint, "its content is interleaved with that of another file")
		case s.length > 0 && !ondisk.Within(s.at, s.length, fs.dev.Disk.Size()):
			return nil, layer.Damaged(inodeName(ino), int64(ino), "its %d bytes at %#x do not lie on the disk of %d bytes", s.length, s.at, fs.dev.Disk.Size())
		}
	}
	return f, nil
}
