package iso9660

import (
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// maxContinuations is how many continuation areas a record may have, one after the
	// other: the limit of Linux.
	maxContinuations = 32
	// maxUses is how many entries there may be in all of them. The longest target of a
	// symlink takes 20.
	maxUses = 256
)

// use calls yield for each entry of a record's system use area and of those that
// continue it: its signature of two bytes, and what it holds behind its first four.
// data is valid until yield returns. ino and off name the record.
//
// Layout of an entry (SUSP, section 4.1): 2 signature, 1 length, 1 version, data.
// "CE" (section 5.1) has the block, the offset in it and the length of the area that
// continues this one, each both.
func (fs *Filesystem) use(ino uint64, area []byte, yield func(signature string, data []byte) error) error {
	area = area[min(fs.skip, len(area)):]
	off, count := int64(ino), 0
	for range maxContinuations {
		var next []byte // the data of the CE
		for len(area) >= 4 && area[0] != 0 {
			if count++; count > maxUses {
				return layer.Damaged(inodeName(ino), off, "more than %d system use entries", maxUses)
			}
			length := int(area[2])
			if length < 4 || length > len(area) {
				return layer.Damaged(inodeName(ino), off, "a system use entry of %d bytes, of the %d that are left", length, len(area))
			}
			signature, data := string(area[:2]), area[4:length]
			area = area[length:]
			switch {
			case signature == "ST":
				area = nil
			case signature != "CE":
				if err := yield(signature, data); err != nil {
					return err
				}
			case len(data) < 24:
				return layer.Damaged(inodeName(ino), off, "a CE entry of %d bytes", len(data)+4)
			default:
				next = data
			}
		}
		if next == nil {
			return nil
		}
		var err error
		if off, area, err = fs.continuation(ino, off, next); err != nil {
			return err
		}
	}
	return layer.Damaged(inodeName(ino), off, "its system use area goes on in more than %d others", maxContinuations)
}

// continuation returns a continuation area and where it lies. It is within one sector
// (SUSP, section 5.1).
func (fs *Filesystem) continuation(ino uint64, off int64, data []byte) (int64, []byte, error) {
	le := binary.LittleEndian
	block, at, length := le.Uint32(data), int64(le.Uint32(data[8:])), int64(le.Uint32(data[16:]))
	start := int64(block)*fs.volume.blockSize + at
	if start%sectorSize+length > sectorSize || !ondisk.Within(start, length, fs.dev.Disk.Size()) {
		return 0, nil, layer.Damaged(inodeName(ino), off, "its system use area goes on with %d bytes at %#x, which is not within a sector of the disk", length, start)
	}
	sector, in, err := fs.dev.Page(start)
	if err != nil {
		return 0, nil, layer.Unreadable(inodeName(ino), start, err)
	}
	return start, sector[in:][:length], nil
}

// findRockRidge looks at the first record of the root: it tells whether SUSP is in
// use, and where each area begins ("SP", SUSP, section 5.3), and it has POSIX
// attributes if Rock Ridge is.
func (fs *Filesystem) findRockRidge() error {
	root := fs.root()
	r, _, err := fs.find(root)
	if err != nil {
		return err
	}
	self, err := fs.selfRecord(root, fs.contentOf(&r))
	if err != nil {
		return err
	}
	found := false
	err = fs.use(root, self.systemUse, func(signature string, data []byte) error {
		switch {
		case signature == "SP" && len(data) >= 3 && data[0] == 0xbe && data[1] == 0xef:
			fs.skip = int(data[2])
			found = true
		case signature == "PX":
			fs.rockRidge = found
		}
		return nil
	})
	if err != nil {
		fs.rockRidge, fs.skip = false, 0
	}
	return err
}
