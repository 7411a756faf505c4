package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	defaultCacheSize = 8 << 20

	// pageSize is the unit in which the table and the directories are read and kept.
	// No directory entry, and no table entry of 16 or 32 bits, lies in two pages.
	pageSize = 4096
)

// Options tunes [Open]. The zero value is good.
type Options struct {
	// CacheSize is how many bytes of the table and of directories are kept in
	// memory; 0 means 8 MiB.
	CacheSize int64
}

// Filesystem is an open FAT filesystem. All methods are safe for concurrent use.
//
// A file's inode number is the byte offset of its directory entry, divided by
// 32; the root's is 1.
type Filesystem struct {
	geo     *geometry
	dev     *ondisk.Pages
	owners  ondisk.Owners
	label   []byte
	remarks []string
	unsound bool // by what the guest said of its state
}

var (
	_ disk.Filesystem = (*Filesystem)(nil)
	_ disk.Usage      = (*Filesystem)(nil)
)

// Recognise reports whether d starts with the boot sector of a FAT filesystem
// whose numbers are possible.
func Recognise(d disk.Sparse) (bool, error) {
	raw, err := readBootSector(d)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // too small for one
	}
	if err != nil || !looksLikeFAT(raw) {
		return false, err
	}
	g := new(geometry)
	s, err := g.decode(raw)
	if err == nil {
		err = g.place(s)
	}
	// What is refused by name is recognised.
	return err == nil || errors.Is(err, disk.ErrUnsupported), nil
}

func readBootSector(d disk.Sparse) ([]byte, error) {
	raw := make([]byte, bootSectorSize)
	if err := ondisk.ReadFull(d, raw, 0); err != nil {
		return nil, layer.Unreadable("boot sector", 0, err)
	}
	return raw, nil
}

// Open reads the boot sector of the filesystem on d, and checks its numbers, as
// Linux does: the marks that [Recognise] asks for may be missing. d must stay
// readable, and its content must not change, as long as the Filesystem is in use.
func Open(d disk.Sparse, opts Options) (*Filesystem, error) {
	if opts.CacheSize <= 0 {
		opts.CacheSize = defaultCacheSize
	}
	raw, err := readBootSector(d)
	if err != nil {
		return nil, err
	}
	geo, err := parseGeometry(raw, d.Size())
	if err != nil {
		return nil, err
	}
	fs := &Filesystem{
		geo: geo, dev: ondisk.NewPages(d, pageSize, opts.CacheSize),
		owners: ondisk.Owners{Layer: layer, Unit: "cluster", Limit: maxDirClusters},
	}
	if err := fs.readState(); err != nil {
		return nil, err
	}
	if err := fs.readLabel(); err != nil {
		return nil, err
	}
	return fs, nil
}

// readState notes what the guest said of the filesystem's state, in the boot
// sector (Linux, Windows) and in the second entry of the table (Windows).
func (fs *Filesystem) readState() error {
	r := tableReader{fs: fs}
	v, err := r.entry(1)
	if err != nil {
		return err
	}
	var clean, faultless uint32 // bits that are set in a good state
	switch fs.geo.bits {
	case 16:
		clean, faultless = 1<<15, 1<<14
	case 32:
		clean, faultless = 1<<27, 1<<26
	}
	if fs.geo.dirty || v&clean != clean {
		fs.remarks = append(fs.remarks, "the guest did not unmount it, and FAT has no journal: what was being written may be damaged")
	}
	if v&faultless != faultless {
		fs.remarks = append(fs.remarks, "the guest recorded errors of the disk below it")
	}
	fs.unsound = len(fs.remarks) > 0
	if n := fs.geo.tableNumber; n != 0 {
		fs.remarks = append(fs.remarks, fmt.Sprintf("table number %d is in use, as the boot sector says; Linux would read number 0", n))
	}
	return nil
}

// readLabel takes the label that the root directory holds. That of the boot
// sector is a copy which nothing keeps up to date.
func (fs *Filesystem) readLabel() error {
	err := fs.entries(rootInode, fs.geo.rootCluster, func(_ int64, raw []byte) error {
		if kindOf(raw) == kindLabel {
			fs.label = label(raw)
			return errEnd
		}
		return nil
	})
	if errors.Is(err, disk.ErrCorrupt) {
		return nil // it is there again for those who read the directory
	}
	return err
}

// Info implements [disk.Filesystem]. The first four bytes of UUID are the serial
// number as tools print it: 12 34 AB CD for 1234-ABCD. The rest is zero.
func (fs *Filesystem) Info() disk.FilesystemInfo {
	info := disk.FilesystemInfo{
		Type:      "vfat",
		Label:     fs.label,
		Root:      rootInode,
		BlockSize: fs.geo.clusterSize,
		Size:      fs.geo.size,
		Remarks:   fs.remarks,
	}
	binary.BigEndian.PutUint32(info.UUID[:], fs.geo.serial)
	return info
}

// Used implements [disk.Usage]: the boot sectors, the tables, the root, and the
// clusters that the table does not have as free. One that it has as bad may be the
// last of a file, as Linux reads it. It returns an error where the guest did not
// unmount the filesystem or recorded errors: files may have clusters that are free.
func (fs *Filesystem) Used(device int, yield func(off, length int64) error) error {
	if device != 0 {
		return layer.Absent(fmt.Sprintf("device %d", device), "there is one device, number 0")
	}
	if fs.unsound {
		return layer.Damaged("file allocation table", fs.geo.table, "the guest did not unmount the filesystem, or recorded errors: what is free cannot be relied on")
	}
	start, end := int64(0), fs.geo.data // the range that is not yielded yet
	err := fs.usedClusters(func(cluster uint32) error {
		off := fs.geo.offset(cluster)
		if off == end {
			end += fs.geo.clusterSize
			return nil
		}
		if err := yield(start, end-start); err != nil {
			return err
		}
		start, end = off, off+fs.geo.clusterSize
		return nil
	})
	if err != nil {
		return err
	}
	return yield(start, end-start)
}

// usedClusters reads the whole table, past the cache: it can have a gigabyte.
func (fs *Filesystem) usedClusters(yield func(cluster uint32) error) error {
	const entries = 32 << 10 // at once: an even number, so that 12 bits come in pairs
	g := fs.geo
	buf := make([]byte, entries*int(g.bits)/8)
	for base := uint32(0); base < g.clusters+firstCluster; base += entries {
		n := min(entries, g.clusters+firstCluster-base)
		size := (int64(n)*int64(g.bits) + 7) / 8
		off := g.table + g.entryOffset(base)
		if err := ondisk.ReadFull(fs.dev.Disk, buf[:size], off); err != nil {
			return layer.Unreadable("file allocation table", off, err)
		}
		for i := uint32(0); i < n; i++ {
			if v := decodeEntry(buf[g.entryOffset(i):], g.bits, i%2 == 1); v == markFree || base+i < firstCluster {
				continue
			}
			if err := yield(base + i); err != nil {
				return err
			}
		}
	}
	return nil
}
