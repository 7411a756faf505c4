package ext4

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// Open implements [disk.Filesystem].
func (fs *Filesystem) Open(ino uint64) (disk.Sparse, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeRegular {
		return nil, layer.Absent(inodeName(ino), "mode %#o is not a regular file", n.Mode)
	}
	return fs.content(n)
}

// content opens what n holds, whatever its type.
func (fs *Filesystem) content(n *inode) (disk.Sparse, error) {
	if n.flags&flagEncrypt != 0 && n.Type() != disk.ModeDir {
		return nil, layer.Unsupported(inodeName(n.Ino), ondisk.Nowhere, "back this disk up as an image, or back the file up inside the guest",
			"feature encrypt: only the guest has the key to the content")
	}
	if n.flags&flagInlineData != 0 {
		data, err := fs.inlineData(n)
		if err != nil {
			return nil, err
		}
		return &inlineFile{data: data[:min(int64(len(data)), n.Size)], size: n.Size}, nil
	}
	return &file{mapping: newMapping(fs, n), size: n.Size}, nil
}

// file is content that lies in blocks.
type file struct {
	*mapping
	size int64
}

func (f *file) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	return ondisk.ReadPieces(p, off, f.size, f.readSome)
}

// readSome reads from one run or hole, at least one byte.
func (f *file) readSome(p []byte, off int64) (int, error) {
	blockSize := f.fs.sb.blockSize()
	block, within := uint64(off/blockSize), off%blockSize
	s, err := f.at(block)
	if err != nil {
		return 0, err
	}
	// A stretch is at most 2^32 blocks of at most 2^16 bytes.
	p = p[:min(int64(len(p)), int64(s.length)*blockSize-within)]
	if s.kind != disk.ExtentData {
		clear(p)
		return len(p), nil
	}
	start := int64(s.physical)*blockSize + within
	if err := f.fs.dev.readAt(p, start); err != nil {
		return 0, layer.Unreadable(fmt.Sprintf("content of inode %d", f.ino), start, err)
	}
	return len(p), nil
}

// Extents implements [disk.Sparse].
func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	return f.stretches(off, length, func(s stretch, off, length int64) error {
		return yield(disk.Extent{Offset: off, Length: length, Kind: s.kind})
	})
}

// stretches calls yield for the runs and holes of a range, with the bytes of the
// file that they stand for.
func (f *file) stretches(off, length int64, yield func(s stretch, off, length int64) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil {
		return err
	}
	blockSize := f.fs.sb.blockSize()
	mapped, leaves := uint64(0), uint64(0)
	for end := off + length; off < end; {
		s, err := f.at(uint64(off / blockSize))
		if err != nil {
			return err
		}
		if s.kind != disk.ExtentHole {
			mapped += s.length
		}
		if s.leaf {
			leaves++
		}
		// A map that leads to itself makes an endless file of few blocks. A leaf
		// has a hole, or for each run one hole at most.
		if blocks := f.fs.sb.blockCount; mapped > blocks || leaves/3 > blocks {
			return layer.Damaged(f.name(), ondisk.Nowhere, "it maps more blocks than the filesystem has")
		}
		n := min(int64(s.length)*blockSize-off%blockSize, end-off)
		if err := yield(s, off, n); err != nil {
			return err
		}
		off += n
	}
	return nil
}
