package iso9660

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	defaultCacheSize = 8 << 20

	// sectorSize is that of a logical sector (ECMA-119, section 6.1.2), whatever the
	// logical blocks have. No directory record lies in two.
	sectorSize = 2048
)

// Options tunes [Open]. The zero value is good.
type Options struct {
	// CacheSize is how many bytes of directories are kept in memory; 0 means 8 MiB.
	CacheSize int64
}

// Filesystem is an open ISO 9660 image. All methods are safe for concurrent use.
//
// A file's inode number is the byte offset of its directory record; that of the root
// lies in a volume descriptor.
type Filesystem struct {
	dev     *ondisk.Pages
	volume  *descriptor // whose tree is shown
	size    int64       // bytes
	owners  ondisk.Owners
	remarks []string

	date      [16]byte
	rockRidge bool
	skip      int // bytes at the start of each record's system use that are not SUSP's
}

var _ disk.Filesystem = (*Filesystem)(nil)

// Open reads the volume descriptors of the image on d, and finds out which of its
// trees to show. d must stay readable, and its content must not change, as long as the
// Filesystem is in use.
func Open(d disk.Sparse, opts Options) (*Filesystem, error) {
	if opts.CacheSize <= 0 {
		opts.CacheSize = defaultCacheSize
	}
	dev := ondisk.NewPages(d, sectorSize, opts.CacheSize)
	primary, joliet, err := readDescriptors(dev)
	if err != nil {
		return nil, err
	}
	fs := &Filesystem{
		dev: dev, volume: primary, size: int64(primary.blocks) * primary.blockSize, date: primary.date,
		owners: ondisk.Owners{Layer: layer, Unit: "block", Limit: maxDirBlocks},
	}
	if fs.size > d.Size() {
		fs.remarks = append(fs.remarks, fmt.Sprintf("the image is cut short: %d of its %d bytes are there", d.Size(), fs.size))
	}
	err = fs.findRockRidge()
	switch {
	case fs.rockRidge:
	case joliet != nil:
		fs.volume = joliet
		if err != nil {
			fs.remarks = append(fs.remarks, fmt.Sprintf("the tree of Joliet is shown, without what Rock Ridge may keep: %v", err))
		}
	case errors.Is(err, disk.ErrCorrupt): // it is there again for those who read the root
	case err != nil:
		return nil, err
	}
	return fs, nil
}

// Info implements [disk.Filesystem]. UUID is what tools take for one: 16 digits, see
// [Date].
func (fs *Filesystem) Info() disk.FilesystemInfo {
	return disk.FilesystemInfo{
		Type:      "iso9660",
		Label:     fs.volume.label,
		UUID:      fs.date,
		Root:      fs.root(),
		BlockSize: fs.volume.blockSize,
		Size:      fs.size,
		Remarks:   fs.remarks,
	}
}

// root is the number of the root: its record is in the volume descriptor.
func (fs *Filesystem) root() uint64 { return uint64(fs.volume.off) + 156 }
