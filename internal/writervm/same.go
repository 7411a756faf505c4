package writervm

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// Identifier is a source that can tell of two of its files that they have the same
// content, without a look at it: their identities are the same.
type Identifier interface {
	Identity(ino uint64) (id [32]byte, ok bool)
}

const (
	// minSame is from what size on content is shared, in bytes: what is smaller than a
	// block has none of its own in btrfs.
	minSame = 4 << 10
	// maxSame is how many files are remembered whose content others may share. The guest
	// has some 150 bytes for each.
	maxSame = 1 << 19
)

// content is what a file holds: its identity, and where its holes are.
type content [sha256.Size]byte

// sharer finds files of subvolumes that have one content: snapshots share what nobody has
// changed with their original, and might not fit on the disk without that.
type sharer struct {
	ids  Identifier // nil where nothing is shared
	deep int        // how many subvolumes the walk is in
	told map[content]uint64
}

func (r *run) newSharer(fsys disk.Filesystem) sharer {
	s := sharer{told: map[content]uint64{}}
	if r.fstype == "btrfs" && !r.opts.Hollow {
		s.ids, _ = fsys.(Identifier)
	}
	return s
}

// within counts a folder that the walk enters or, with -1, leaves.
func (s *sharer) within(f *wire.File, n int) {
	if f.Flags&disk.FlagSubvolume != 0 {
		s.deep += n
	}
}

// of returns what a file holds; false if it shares that with nobody.
func (s *sharer) of(f *wire.File, file disk.Sparse) (c content, ok bool, err error) {
	if s.ids == nil || s.deep == 0 || f.Size < minSame {
		return c, false, nil
	}
	id, ok := s.ids.Identity(f.Ino)
	if !ok {
		return c, false, nil
	}
	h := sha256.New()
	h.Write(id[:])
	err = file.Extents(0, f.Size, func(e disk.Extent) error {
		if e.Kind == disk.ExtentData {
			h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(e.Offset)), uint64(e.Length)))
		}
		return nil
	})
	return content(h.Sum(nil)), err == nil, err
}

// remember notes a file of which all was told, and reports whether it did.
func (s *sharer) remember(c content, ino uint64) bool {
	if len(s.told) == maxSame {
		return false
	}
	s.told[c] = ino
	return true
}
