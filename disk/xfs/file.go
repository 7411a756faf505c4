package xfs

import (
	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Open implements [disk.Filesystem]. What it returns is a [disk.Locator].
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, layer.Absent(inodeName(ino), "mode %#o is not a regular file", n.Mode)
	}
	if n.flags&flagRealtime != 0 {
		return nil, layer.Unsupported(inodeName(ino), ondisk.Nowhere, "back the file up inside the guest",
			"its content lies on the realtime device")
	}
	if err := fs.intents.refuseContent(ino); err != nil {
		return nil, err
	}
	return &file{mapping: newMapping(fs, n, n.data), size: n.Size, shares: n.flags2&flag2Reflink != 0}, nil
}

// file is content that lies in blocks.
type file struct {
	*mapping
	size   int64
	shares bool // blocks with other files, or with itself
}

var _ disk.Locator = (*file)(nil)

func (f *file) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	return ondisk.ReadPieces(p, off, f.size, f.readSome)
}

// piece is a range of a file, in bytes, that is of one kind.
type piece struct {
	length int64
	kind   disk.ExtentKind
	start  int64 // on disk, of data
}

// piece returns what lies at off, at most length bytes of it.
func (f *file) piece(off, length int64) (piece, error) {
	shift := f.fs.sb.blockShift
	within := off & (1<<shift - 1)
	s, err := f.at(uint64(off) >> shift)
	if err != nil {
		return piece{}, err
	}
	p := piece{length: length, kind: s.kind}
	if s.length <= uint64(length+within)>>shift {
		p.length = min(length, int64(s.length)<<shift-within)
	}
	if s.kind == disk.ExtentData {
		p.start = f.fs.sb.offset(s.physical) + within
	}
	return p, nil
}

// readSome reads from one run or hole, at least one byte.
func (f *file) readSome(p []byte, off int64) (int, error) {
	at, err := f.piece(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	p = p[:at.length]
	if at.kind != disk.ExtentData {
		clear(p)
		return len(p), nil
	}
	if _, err := f.fs.dev.readAt(p, at.start); err != nil {
		return 0, layer.Unreadable(place{"content of inode", f.ino}.String(), at.start, err)
	}
	return len(p), nil
}

// Extents implements [disk.Sparse].
func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	return f.pieces(off, length, func(off int64, p piece) error {
		return yield(disk.Extent{Offset: off, Length: p.length, Kind: p.kind})
	})
}

// Locate implements [disk.Locator].
func (f *file) Locate(off, length int64, yield func(disk.Location) error) error {
	return f.pieces(off, length, func(off int64, p piece) error {
		l := disk.Location{Offset: off, Length: p.length, Device: -1}
		if p.kind == disk.ExtentData && !f.fs.dev.isReplaced(p.start, p.length) {
			l.Device, l.At = 0, p.start
		}
		return yield(l)
	})
}

func (f *file) pieces(off, length int64, yield func(int64, piece) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil {
		return err
	}
	mapped := int64(0)
	for end := off + length; off < end; {
		p, err := f.piece(off, end-off)
		if err != nil {
			return err
		}
		if p.kind != disk.ExtentHole && !f.shares {
			if mapped += p.length; mapped > int64(f.fs.sb.blocks)<<f.fs.sb.blockShift {
				return f.damaged("it maps more blocks than the filesystem has")
			}
		}
		if err := yield(off, p); err != nil {
			return err
		}
		off += p.length
	}
	return nil
}
