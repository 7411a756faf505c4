package guest

import (
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "guest"}

const nowhere = ondisk.Nowhere

const (
	// MaxMounts is how many filesystems one tree can have: the number of a mount
	// is the uppermost byte of an inode number, of which the highest bit is left
	// free so that the number fits an int64.
	MaxMounts = 128

	mountShift = 56 // see disk.MaxIno
)

// Options tunes [Open]. The zero value is good.
type Options struct {
	// Root is the name of the volume with the root filesystem; "" finds it.
	Root string
}

// Mount is a filesystem, or a part of one, in the tree.
type Mount struct {
	// Path is where it is, from "/"; hostile bytes.
	Path []byte
	// Volume is the index of its volume in the layout.
	Volume int
	// Subvolume is the ID of a subvolume of btrfs that was asked for, or 0.
	Subvolume uint64
	// Source is what the fstab calls it; hostile bytes. Empty where the fstab
	// says nothing.
	Source string
	// Root is the inode number of its root, as [Split] takes it apart.
	Root uint64
}

// mount is a [Mount] with its content.
type mount struct {
	Mount
	fs   disk.Filesystem
	root uint64 // in fs
	// covered are the mounts upon names in this one: by the inode number of the
	// directory, then by the name.
	covered map[uint64]map[string]int
}

// Filesystem is the tree of a guest. All methods are safe for concurrent use.
//
// An inode number is that of its filesystem, with the number of the mount above:
// see [Split]. What is mounted twice has a number for each.
type Filesystem struct {
	mounts  []mount
	remarks []string
	info    disk.FilesystemInfo
}

var _ disk.Filesystem = (*Filesystem)(nil)

// Split returns the number of the mount that an inode is in, and its number in
// that mount's filesystem.
func Split(ino uint64) (mount int, inner uint64) {
	return int(ino >> mountShift), ino & (disk.MaxIno - 1)
}

func join(mount int, inner uint64) uint64 { return uint64(mount)<<mountShift | inner }

// Mounts returns what the tree is put together of. The first is the root.
func (f *Filesystem) Mounts() []Mount {
	list := make([]Mount, len(f.mounts))
	for i := range f.mounts {
		list[i] = f.mounts[i].Mount
		list[i].Root = join(i, f.mounts[i].root)
	}
	return list
}

// inner returns the mount of an inode number, and the number in it.
func (f *Filesystem) inner(ino uint64) (*mount, uint64, error) {
	m, inner := Split(ino)
	if m >= len(f.mounts) {
		return nil, 0, layer.Absent("inode", "number %#x is of mount %d, there are %d", ino, m, len(f.mounts))
	}
	return &f.mounts[m], inner, nil
}

// Info implements [disk.Filesystem]: label, UUID and block size are those of the
// root filesystem, sizes the sums of all filesystems.
func (f *Filesystem) Info() disk.FilesystemInfo { return f.info }

// sum makes what Info returns.
func (f *Filesystem) sum() disk.FilesystemInfo {
	info := f.mounts[0].fs.Info()
	info.Type, info.Root, info.Remarks = "guest", join(0, f.mounts[0].root), f.remarks
	seen := []int{f.mounts[0].Volume}
	for _, m := range f.mounts[1:] {
		if slices.Contains(seen, m.Volume) {
			continue
		}
		seen = append(seen, m.Volume)
		more := m.fs.Info()
		info.Size += more.Size
		info.InodeCount += more.InodeCount
	}
	return info
}

// Inode implements [disk.Filesystem].
func (f *Filesystem) Inode(ino uint64) (disk.Inode, error) {
	m, inner, err := f.inner(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	n, err := m.fs.Inode(inner)
	n.Ino = ino
	return n, err
}

// ReadDir implements [disk.Filesystem].
func (f *Filesystem) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	m, inner, err := f.inner(ino)
	if err != nil {
		return err
	}
	number, _ := Split(ino)
	covered := m.covered[inner]
	return m.fs.ReadDir(inner, func(e disk.DirEntry) error {
		if e.Ino >= disk.MaxIno {
			return layer.Beyond("inode", nowhere, "number %#x", e.Ino)
		}
		e.Ino = join(number, e.Ino)
		if covered != nil {
			if over, ok := covered[string(e.Name)]; ok {
				e.Ino = join(over, f.mounts[over].root)
			}
		}
		return yield(e)
	})
}

// Readlink implements [disk.Filesystem].
func (f *Filesystem) Readlink(ino uint64) ([]byte, error) {
	m, inner, err := f.inner(ino)
	if err != nil {
		return nil, err
	}
	return m.fs.Readlink(inner)
}

// Xattrs implements [disk.Filesystem].
func (f *Filesystem) Xattrs(ino uint64) ([]disk.Xattr, error) {
	m, inner, err := f.inner(ino)
	if err != nil {
		return nil, err
	}
	return m.fs.Xattrs(inner)
}

// Open implements [disk.Filesystem].
func (f *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	m, inner, err := f.inner(ino)
	if err != nil {
		return nil, err
	}
	return m.fs.Open(inner)
}
