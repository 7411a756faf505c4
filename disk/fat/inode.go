package fat

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// rootInode is the number of the root, which has no entry. The boot sector lies
// where an entry of that number would.
const rootInode = 1

func inodeAt(off int64) uint64 { return uint64(off / entrySize) }

// entryPlace is where the entry of an inode lies, or what stands for that of the
// root: the boot sector.
func entryPlace(ino uint64) int64 {
	if ino == rootInode {
		return 0
	}
	return int64(ino) * entrySize
}

func inodeName(ino uint64) string { return fmt.Sprintf("inode %d", ino) }

// entryOf returns the directory entry of an inode that is not the root. Whether a
// directory holds it cannot be seen: any number that a directory did not yield
// may find what looks like an entry in the content of a file.
func (fs *Filesystem) entryOf(ino uint64) (entry, error) {
	g := fs.geo
	if ino >= uint64(g.size/entrySize) || int64(ino)*entrySize < g.rootStart {
		return entry{}, layer.Absent(inodeName(ino), "there is no such place in a directory")
	}
	off := int64(ino) * entrySize
	page, at, err := fs.dev.Page(off)
	if err != nil {
		return entry{}, layer.Unreadable(inodeName(ino), off, err)
	}
	raw := page[at:]
	if len(raw) < entrySize || kindOf(raw) != kindFile || isDot(raw) {
		return entry{}, layer.Absent(inodeName(ino), "there is no file's entry at its place")
	}
	e, err := g.parseEntry(raw)
	if err != nil {
		return entry{}, layer.Damaged(inodeName(ino), off, "%v", err)
	}
	return e, nil
}

// mode is what Linux makes of the attributes.
func (e *entry) mode() uint32 {
	switch {
	case e.isDirectory():
		return disk.ModeDir | 0o755
	case e.attributes&attrReadOnly != 0:
		return disk.ModeRegular | 0o444
	}
	return disk.ModeRegular | 0o644
}

// Inode implements [disk.Filesystem]. As btrfs does, directories have one link:
// FAT does not count them.
func (fs *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	n := disk.Inode{Ino: ino, Links: 1}
	if ino == rootInode {
		n.Mode = disk.ModeDir | 0o755
		size, err := fs.directorySize(ino, fs.geo.rootCluster)
		n.Size = size
		return n, err
	}
	e, err := fs.entryOf(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	n.Mode = e.mode()
	if e.windows&encrypted != 0 {
		n.Flags = disk.FlagEncrypted
	}
	n.Modify = e.written.unix()
	n.Access, n.Change = n.Modify, n.Modify
	if e.accessed.date != 0 {
		n.Access = e.accessed.unix()
	}
	if e.created.date != 0 {
		n.Birth = e.created.unix()
	}
	if e.isDirectory() {
		n.Size, err = fs.directorySize(ino, e.cluster)
		return n, err
	}
	n.Size = int64(e.size)
	if n.Size > int64(fs.geo.clusters)*fs.geo.clusterSize {
		return disk.Inode{}, layer.Damaged(inodeName(ino), int64(ino)*entrySize, "a file of %d bytes does not fit into the filesystem", n.Size)
	}
	return n, nil
}

// directorySize is that of a directory's clusters, as Linux has it. Where they
// are damaged it ends there: the error is [Filesystem.ReadDir]'s.
func (fs *Filesystem) directorySize(ino uint64, first uint32) (int64, error) {
	if first == 0 && ino == rootInode {
		return fs.geo.rootSize, nil
	}
	size := int64(0)
	c, err := fs.chain(ino, first)
	for err == nil && c.cluster != 0 && size < maxDirSize {
		size += fs.geo.clusterSize
		err = c.next()
	}
	if errors.Is(err, disk.ErrCorrupt) {
		err = nil
	}
	return size, err
}

// Readlink implements [disk.Filesystem]: there are no symlinks.
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) {
	return nil, layer.Absent(inodeName(ino), "FAT has no symlinks")
}

// Xattrs implements [disk.Filesystem]: there are none.
func (fs *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	if ino == rootInode {
		return nil, nil
	}
	_, err := fs.entryOf(ino)
	return nil, err
}

// Open implements [disk.Filesystem]. It follows the clusters to the end first, so
// that a file is refused at once if any of them is damaged.
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	n, err := fs.Inode(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, layer.Absent(inodeName(ino), "it is not a regular file")
	}
	f := &file{fs: fs, ino: ino, size: n.Size}
	if n.Size == 0 {
		return f, nil // its first cluster, if it has one, is of no use
	}
	e, err := fs.entryOf(ino)
	if err != nil {
		return nil, err
	}
	f.marks, err = fs.follow(ino, e.cluster, n.Size)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// follow follows the clusters of a file of size bytes, and returns every
// markStride-th of them. It goes on behind the last as far as it takes to know
// that they do not lead in a circle; what else is wrong there does not matter.
func (fs *Filesystem) follow(ino uint64, first uint32, size int64) (marks []uint32, err error) {
	c, err := fs.chain(ino, first)
	if err != nil {
		return nil, err
	}
	count := uint32((size + fs.geo.clusterSize - 1) / fs.geo.clusterSize) // at most geo.clusters
	for c.cluster != 0 && c.index < circleFactor*count {
		if c.index < count && c.index%markStride == 0 {
			marks = append(marks, c.cluster)
		}
		if err := c.next(); err != nil {
			if c.index < count || c.circle {
				return nil, err
			}
			return marks, nil
		}
	}
	if c.index < count {
		return nil, c.damaged(entryPlace(ino), "they end after %d, but %d bytes need %d", c.index, size, count)
	}
	return marks, nil
}
